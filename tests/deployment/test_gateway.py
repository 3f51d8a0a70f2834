"""The gateway's configuration as it stands, with only the addresses changed: before two real replicas, and before stand-ins."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from service import errors
from service.config import ENV_PREFIX, Settings
from service.http.problems import PROBLEM_MEDIA_TYPE
from tests.deployment import tools
from tests.integration.server import PATIENCE_S, ServerProcess, running
from tests.toy_artifact import png_of, write_artifact

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "docker" / "gateway" / "nginx.conf"
COMPOSE = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "docker-compose.yml").read_text()))
"""With the defaults of its variables."""
REPLICAS = ("service", "replica")
PATH = "/v1/recognize"
HELD_LIMIT_BYTES = 500_000
"""Bodies below it are complete before a replica sees them."""
MEASURED_BODIES = 32
"""Of the largest, at once, for which a replica's memory was measured (docs/deployment.md)."""
PNG = {"content-type": "image/png"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


AS_CLIENT = "x-test-client"
"""A header that says which address a request of a test is from."""


def write_config(folder: Path, port: int, replica_ports: tuple[int, ...]) -> Path:
    """The real file with other addresses; every one of them must have been there to be changed."""
    text = CONFIG.read_text()
    text = text.replace("server_tokens off;", f"server_tokens off; set_real_ip_from 127.0.0.1; real_ip_header {AS_CLIENT};")
    changes = {"listen 8080;": f"listen 127.0.0.1:{port};", "/tmp/": f"{folder}/", "/dev/stdout": f"{folder}/access.log"}
    changes |= {f"server {name}:8000 ": f"server 127.0.0.1:{at} " for name, at in zip(REPLICAS, replica_ports, strict=True)}
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "nginx.conf"
    path.write_text(text)
    return path


@contextmanager
def gateway(folder: Path, replica_ports: tuple[int, ...], disk_kib: int | None = None, rate: str = "") -> Iterator[str]:
    """The address of a running one.

    Args:
        disk_kib: No file may become larger, as if the disk were full; `[crit]` is then in its log.
        rate: Instead of its own limit of requests: such as `1r/m burst=3`.
    """
    folder.mkdir()
    port = free_port()
    config = write_config(folder, port, replica_ports)
    if rate:
        each, burst = rate.split()
        text = re.sub(r"rate=\w+/s", f"rate={each}", config.read_text())
        config.write_text(re.sub(r"zone=rate_of_client burst=\d+", f"zone=rate_of_client {burst}", text))
    log = folder / "stderr"
    # Else its workers are another user, who may not enter pytest's folders.
    directives = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    command = [*tools.command("nginx"), "-p", str(folder), "-c", str(config), "-g", directives]
    if disk_kib is not None:
        command = ["sh", "-c", f'trap "" XFSZ; ulimit -f {disk_kib * 2}; exec "$@"', "sh", *command]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, start_new_session=True)
    try:
        wait_for(lambda: connects(port), lambda: process.poll() is None, log)
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGQUIT)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
        assert not re.search(r"\[(emerg|alert|crit)\]", log.read_text()) or disk_kib is not None, log.read_text()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the workers too
        process.wait(PATIENCE_S)


def wait_for(condition: Callable[[], bool], alive: Callable[[], bool], log: Path) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert alive(), log.read_text()
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(0.02)


def connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def seconds(directive: str) -> float:
    [value] = re.findall(rf"^\s*{directive} (\d+)s;", CONFIG.read_text().partition("upstream replicas")[0], re.M)
    return float(value)


# -- What must fit together ------------------------------------------------------------------------------------------------


def test_nginx_accepts_it(tmp_path: Path) -> None:
    config = write_config(tmp_path, 8080, (8001, 8002))
    ran = subprocess.run([*tools.command("nginx"), "-t", "-p", tmp_path, "-c", config], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "[warn]" not in ran.stderr.replace('[warn] the "user" directive', "")


def test_limits_and_time_outs_fit_those_of_the_service() -> None:
    text = CONFIG.read_text()
    environment = COMPOSE["services"]["service"]["environment"]
    settings = Settings.model_validate(
        {name.removeprefix(ENV_PREFIX).lower(): value for name, value in environment.items() if name.startswith(ENV_PREFIX)}
    )
    assert re.findall(r"^\s*client_max_body_size (\d+);", text, re.M) == [str(settings.max_body_bytes)]
    [streamed_s] = re.findall(r"^            client_body_timeout (\d+)s;", text, re.M)
    assert int(streamed_s) > settings.receive_timeout_s
    assert f"{settings.max_body_bytes} bytes at most" in text
    assert seconds("proxy_read_timeout") > settings.batch_timeout_ms / 1000
    [idle_s] = re.findall(r"^\s*keepalive_timeout (\d+)s;", text.partition("upstream replicas")[2], re.M)
    assert int(idle_s) < settings.keep_alive_s
    grace_s = int(COMPOSE["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
    assert seconds("worker_shutdown_timeout") < grace_s
    assert seconds("worker_shutdown_timeout") > seconds("proxy_read_timeout")
    # Of a client that is slow, not gone; the service itself gives a whole request PARSEQ_RECEIVE_TIMEOUT_S.
    for directive in ("client_header_timeout", "client_body_timeout", "send_timeout", "proxy_send_timeout"):
        assert 5 <= seconds(directive) <= settings.receive_timeout_s, directive
    [again_s] = re.findall(r"^\s*proxy_next_upstream_timeout (\d+)s;", text, re.M)
    assert int(again_s) < seconds("proxy_read_timeout")


def test_it_stands_before_the_services_of_the_compose_file() -> None:
    servers = re.findall(r"^\s*server (\w+):(\d+) (backup)?", CONFIG.read_text(), re.M)
    assert servers == [(name, "8000", backup) for backup in ("", "backup") for name in REPLICAS]
    assert set(COMPOSE["services"]["gateway"]["depends_on"]) == set(REPLICAS)


def test_its_own_errors_are_those_of_the_service() -> None:
    kinds = {kind.type: kind for kind in errors.KINDS}
    text = CONFIG.read_text()
    documents = [(int(status), json.loads(body)) for status, body in re.findall(r"return (\d+) '(\{.*\})';", text)]
    for status, document in documents:
        kind = kinds[document["type"]]
        assert (document["title"], document["status"], status) == (kind.title, kind.status, kind.status)
    caught = re.findall(r"^\s*error_page ([\d ]+) = ([@/][\w/]+);", text, re.M)
    statuses = {int(status) for listed, _place in caught for status in listed.split()}
    # Those of limits among them, whatever they are; 418 is no error but a way.
    limits = {int(status) for status in re.findall(r"^\s*limit_\w+_status (\d+);", text, re.M)}
    assert statuses == {400, 404, 405, 413, 414, 494, 500, 501, 502, 504, 505, 418} | limits
    assert {place for _statuses, place in caught} == set(re.findall(r"^\s*location (?:= )?([@/]\w[\w/]*) \{", text, re.M)) - {
        "/metrics"
    }


def test_places_for_bodies_fit_memory_and_disk() -> None:
    """However slow they come: what is held is bounded by the number of places, and smaller than what there is."""
    text = CONFIG.read_text()
    places = {name: int(number) for name, number in re.findall(r"^\s*limit_conn (\w+) (\d+);", text, re.M)}
    container = COMPOSE["services"]["gateway"]
    [disk_mib] = re.findall(r"^/tmp:size=(\d+)m$", container["tmpfs"][0])
    assert places["held_of_all"] * HELD_LIMIT_BYTES <= int(disk_mib) * 2**20 * 0.95
    [buffer_kib] = re.findall(r"^\s*client_body_buffer_size (\d+)k;", text, re.M)
    [heads, head_kib] = re.findall(r"^\s*large_client_header_buffers (\d+) (\d+)k;", text, re.M)[0]
    [answers, answer_kib] = re.findall(r"^\s*proxy_buffers (\d+) (\d+)k;", text, re.M)[0]
    # Buffers are made when they are needed; an answer of more than one is rare.
    request_kib = int(buffer_kib) + int(heads) * int(head_kib) + int(answer_kib)
    memory_mib = int(container["mem_limit"].removesuffix("m"))
    assert places["of_all"] * request_kib / 1024 + int(disk_mib) <= memory_mib
    settings = Settings.model_fields
    assert places["of_all"] < settings["max_connections"].default
    assert int(answers) * int(answer_kib) >= 64
    for kind in ("held", "large"):  # nobody gets them all, nor is one client's share worth nothing
        assert 4 <= places[f"{kind}_of_client"] <= places[f"{kind}_of_all"] / 4
    assert places["large_of_all"] <= MEASURED_BODIES


# -- Before stand-ins ------------------------------------------------------------------------------------------------------


class StandIn(ThreadingHTTPServer):
    """Answers every POST with one status, and counts; `None` hangs up instead."""

    daemon_threads = True  # the gateway keeps its connections

    def __init__(self, status: int | None) -> None:
        super().__init__(("127.0.0.1", 0), StandInHandler)
        self.status = status
        self.asked = 0
        self.connections = 0
        self.hosts: set[str] = set()
        self.forwarded: list[list[str]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class StandInHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        self.server.asked += 1
        self.server.hosts.add(self.headers["host"])
        self.server.forwarded.append(self.headers.get_all("x-forwarded-for", []))
        if self.headers["content-length"] is not None:
            self.rfile.read(int(self.headers["content-length"]))
        else:  # in chunks
            while (size := int(self.rfile.readline(), 16)) > 0:
                self.rfile.read(size + 2)
            self.rfile.readline()
        if self.server.status is None:
            self.close_connection = True
            return
        self.send_response(self.server.status)
        self.send_header("Retry-After", "7")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def stand_ins(*statuses: int | None) -> Iterator[list[StandIn]]:
    servers = [StandIn(status) for status in statuses]
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield servers
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join(PATIENCE_S)
            server.socket.close()


@pytest.mark.parametrize(
    ("status", "asked", "told"),
    [
        (429, 1, 429),  # busy: whoever asks both makes an overload worse
        (500, 1, 500),
        (504, 1, 504),  # its time is up
        (422, 1, 422),
        (503, 3, 503),  # it drains or warms up: the other one may not
        (None, 3, 503),  # it hung up
    ],
)
@pytest.mark.parametrize("size_bytes", [4, HELD_LIMIT_BYTES - 1])
def test_only_what_no_replica_worked_on_is_sent_once_more(
    tmp_path: Path, status: int | None, asked: int, told: int, size_bytes: int
) -> None:
    with stand_ins(status, status) as servers, gateway(tmp_path / "g", (servers[0].port, servers[1].port)) as url:
        response = httpx.post(url + PATH, content=bytes(size_bytes), headers=PNG, timeout=PATIENCE_S)
    assert sum(server.asked for server in servers) == asked
    assert response.status_code == told
    if status is not None and status != 503:
        assert response.headers["retry-after"] == "7"


@pytest.mark.parametrize("status", [503, None])
def test_the_other_replica_reads_what_one_could_not(tmp_path: Path, status: int | None) -> None:
    with stand_ins(status, 200) as servers, gateway(tmp_path / "g", (servers[0].port, servers[1].port)) as url:
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
            assert {client.post(PATH, content=b"body", headers=PNG).status_code for _ in range(20)} == {200}
        # It is left alone for a while after two failures.
        assert 1 <= servers[0].asked < 20


def test_it_keeps_connections_passes_the_host_on_and_writes_a_log_for_programs(tmp_path: Path) -> None:
    with (
        stand_ins(200, 200) as servers,
        gateway(tmp_path / "g", (servers[0].port, servers[1].port)) as url,
        httpx.Client(base_url=url, timeout=PATIENCE_S) as client,
    ):
        for _ in range(20):
            assert client.post(PATH, content=b"body", headers=PNG | {"host": "words.example"}).status_code == 200
    assert sum(server.asked for server in servers) == 20
    # Each of nginx's two workers keeps its own to each replica.
    assert sum(server.connections for server in servers) <= 4
    assert {"words.example"} == servers[0].hosts | servers[1].hosts
    lines = [json.loads(line) for line in (tmp_path / "g" / "access.log").read_text().splitlines()]
    assert [(line["request"], line["status"]) for line in lines] == [(f"POST {PATH}", 200)] * 20


def test_replicas_get_a_host_also_from_clients_that_name_none(tmp_path: Path) -> None:
    with stand_ins(200, 200) as servers, gateway(tmp_path / "g", (servers[0].port, servers[1].port)) as url:
        answer = raw(url, f"POST {PATH} HTTP/1.0\r\nContent-Length: 4\r\n\r\nbody".encode())
    assert answer.status_code == 200
    assert {"gateway"} == servers[0].hosts | servers[1].hosts


def test_what_the_gateway_refuses_by_itself(tmp_path: Path) -> None:
    with stand_ins(200, 200) as servers, gateway(tmp_path / "g", (servers[0].port, servers[1].port)) as url:
        limit_bytes = Settings.model_validate({"max_body_bytes": 8388608}).max_body_bytes
        assert httpx.post(url + PATH, content=bytes(limit_bytes), timeout=PATIENCE_S).status_code == 200
        too_large = httpx.post(url + PATH, content=bytes(limit_bytes + 1), timeout=PATIENCE_S)
        assert (too_large.status_code, too_large.json()["type"]) == (413, errors.BODY_TOO_LARGE.type)
        assert too_large.headers["content-type"] == PROBLEM_MEDIA_TYPE
        assert is_problem(httpx.get(f"{url}/metrics"), errors.NOT_FOUND)
        assert sum(server.asked for server in servers) == 1


def test_without_any_replica_it_says_so_in_the_services_words(tmp_path: Path) -> None:
    with gateway(tmp_path / "g", (free_port(), free_port())) as url:
        response = httpx.post(url + PATH, content=b"body", timeout=PATIENCE_S)
    assert (response.status_code, response.json()["type"]) == (503, errors.NOT_READY.type)
    assert response.headers["retry-after"] == "1"


def is_problem(response: httpx.Response, kind: errors.Kind) -> bool:
    """Whether an answer of the gateway is a problem document of that kind, with an id as every answer of the service."""
    assert response.headers["content-type"] == PROBLEM_MEDIA_TYPE, response.text
    assert response.headers["x-request-id"]
    document = response.json()
    return (response.status_code, document["type"], document["status"]) == (kind.status, kind.type, kind.status)


def raw(url: str, request: bytes) -> httpx.Response:
    """The answer to bytes that no client library would send."""
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port), PATIENCE_S) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


UNREADABLE = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\r\n\r\n", errors.MALFORMED_REQUEST),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", errors.MALFORMED_REQUEST),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", errors.MALFORMED_REQUEST),
    "another version": (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", errors.MALFORMED_REQUEST),
    "a coding that is none": (
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: zip\r\n\r\n",
        errors.MALFORMED_REQUEST,
    ),
    "a path that leaves the root": (b"GET /../x HTTP/1.1\r\nHost: x\r\n\r\n", errors.MALFORMED_REQUEST),
    "a long path": (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", errors.HEAD_TOO_LARGE),
    "a long header": (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n", errors.HEAD_TOO_LARGE),
    "a method that is not passed on": (
        b"TRACE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        errors.METHOD_NOT_ALLOWED,
    ),
    "a path of its own": (
        b"GET /problems/head HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        errors.NOT_FOUND,
    ),
    "metrics, with a body that would be passed on": (
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        errors.NOT_FOUND,
    ),
}


def test_what_it_cannot_read_or_does_not_pass_on_is_a_problem_document(tmp_path: Path) -> None:
    with stand_ins(200, 200) as servers, gateway(tmp_path / "g", (servers[0].port, servers[1].port)) as url:
        for name, (request, kind) in UNREADABLE.items():
            assert is_problem(raw(url, request), kind), name
        given = httpx.get(f"{url}/metrics", headers={"x-request-id": "mine-1"})
        assert given.headers["x-request-id"] == "mine-1"
        assert httpx.get(f"{url}/metrics", headers={"x-request-id": "not mine"}).headers["x-request-id"] != "not mine"
        assert servers[0].asked == servers[1].asked == 0


def test_a_replica_is_told_the_clients_address_and_not_what_the_client_says(tmp_path: Path) -> None:
    with stand_ins(200, 200) as servers, gateway(tmp_path / "g", (servers[0].port, servers[1].port)) as url:
        for body in (b"small", bytes(100_000), bytes(600_000)):
            headers = PNG | {"x-forwarded-for": "192.0.2.66, 10.0.0.1", AS_CLIENT: "198.51.100.7"}
            assert httpx.post(url + PATH, content=body, headers=headers, timeout=PATIENCE_S).status_code == 200
    assert servers[0].forwarded + servers[1].forwarded == [["198.51.100.7"]] * 3


class Uploads:
    """Uploads that lack their last byte, from a client of any address."""

    def __init__(self, url: str) -> None:
        self._address = (httpx.URL(url).host, httpx.URL(url).port)
        self.connections: list[socket.socket] = []

    def __enter__(self) -> Uploads:
        return self

    def __exit__(self, *_error: object) -> None:
        for connection in self.connections:
            connection.close()

    def begin(self, count: int, size_bytes: int, client: str) -> None:
        for _ in range(count):
            connection = socket.create_connection(self._address, PATIENCE_S)  # type: ignore[arg-type]
            self.connections.append(connection)
            head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{AS_CLIENT}: {client}\r\nContent-Length: {size_bytes}\r\n\r\n"
            with suppress(ConnectionError):  # it may have been refused by now
                connection.sendall(head.encode() + bytes(size_bytes - 1))

    def refused(self) -> int:
        """How many have been answered by now."""
        return len(select.select(self.connections, [], [], 0)[0])


def post(url: str, size_bytes: int, client: str) -> httpx.Response:
    return httpx.post(url + PATH, content=bytes(size_bytes), headers=PNG | {AS_CLIENT: client}, timeout=PATIENCE_S)


@pytest.mark.parametrize(("size_bytes", "kind"), [(HELD_LIMIT_BYTES - 1, "held"), (8388608, "large")])
def test_slow_uploads_take_no_places_but_those_of_their_client(tmp_path: Path, size_bytes: int, kind: str) -> None:
    [mine, everybodys] = [
        int(re.findall(rf"limit_conn {kind}_of_{whose} (\d+);", CONFIG.read_text())[0]) for whose in ("client", "all")
    ]
    with (
        stand_ins(200, 200) as servers,
        gateway(tmp_path / "g", (servers[0].port, servers[1].port)) as url,
        Uploads(url) as uploads,
    ):
        uploads.begin(mine + 3, size_bytes, "192.0.2.1")
        end_s = time.monotonic() + PATIENCE_S
        while uploads.refused() < 3 and time.monotonic() < end_s:
            time.sleep(0.05)
        assert uploads.refused() == 3
        refused = post(url, size_bytes, "192.0.2.1")
        assert is_problem(refused, errors.TOO_MANY_CONNECTIONS)
        assert refused.headers["retry-after"] == "1"
        # Its crops are read as ever, and so are everybody else's bodies, of whatever size.
        assert post(url, 20_000, "192.0.2.1").status_code == 200
        assert {post(url, size, "192.0.2.2").status_code for size in (5, 20_000, 400_000, 3_000_000, 8388608)} == {200}
        written = sum(file.stat().st_size for file in (tmp_path / "g" / "body").rglob("*") if file.is_file())
        assert written <= everybodys * HELD_LIMIT_BYTES * 1.01


def test_addresses_of_one_network_are_one_client(tmp_path: Path) -> None:
    with (
        stand_ins(200, 200) as servers,
        gateway(tmp_path / "g", (servers[0].port, servers[1].port)) as url,
        Uploads(url) as uploads,
    ):
        for last in range(8):
            uploads.begin(1, 600_000, f"2001:db8:0:1::{last + 1:x}")
        end_s = time.monotonic() + PATIENCE_S
        while sum(server.asked for server in servers) < 8 and time.monotonic() < end_s:
            time.sleep(0.05)
        assert is_problem(post(url, 600_000, "2001:db8:0:1:ffff::1"), errors.TOO_MANY_CONNECTIONS)
        assert post(url, 600_000, "2001:db8:0:2::1").status_code == 200


def test_more_requests_a_second_than_one_client_may_send(tmp_path: Path) -> None:
    """With a rate that a test can exceed."""
    folder = tmp_path / "g"
    with stand_ins(200, 200) as servers, gateway(folder, (servers[0].port, servers[1].port), rate="1r/m burst=3") as url:
        answers = [post(url, 5, "192.0.2.1") for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
        assert is_problem(answers[-1], errors.QUEUE_FULL)
        assert answers[-1].headers["retry-after"] == "1"
        assert post(url, 5, "192.0.2.2").status_code == 200


def test_a_full_disk_is_a_problem_document(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    with stand_ins(200, 200) as servers, gateway(folder, (servers[0].port, servers[1].port), disk_kib=128) as url:
        assert is_problem(post(url, 400_000, "192.0.2.1"), errors.INTERNAL)
        assert post(url, 20_000, "192.0.2.1").status_code == 200
        assert post(url, 3_000_000, "192.0.2.1").status_code == 200  # needs no disk


def test_a_body_of_unknown_length_is_limited_too(tmp_path: Path) -> None:
    with stand_ins(200, 200) as servers, gateway(tmp_path / "g", (servers[0].port, servers[1].port)) as url:

        def chunks(count: int) -> Iterator[bytes]:
            yield from (bytes(2**20) for _ in range(count))

        assert httpx.post(url + PATH, content=chunks(3), headers=PNG, timeout=PATIENCE_S).status_code == 200
        with suppress(httpx.WriteError):  # it may have been hung up on while it still sent
            told = httpx.post(url + PATH, content=chunks(20), headers=PNG, timeout=PATIENCE_S)
            assert is_problem(told, errors.BODY_TOO_LARGE)


# -- Before real replicas ----------------------------------------------------------------------------------------------------


def test_a_large_body_that_trickles_is_ended_by_the_replica(tmp_path: Path) -> None:
    """nginx alone would wait for ever, as long as there is a byte now and then."""
    artifact = write_artifact(tmp_path / "toy.onnx")
    with (
        running(artifact, tmp_path / "log", receive_timeout_s=2, forked=True) as replica,
        gateway(tmp_path / "g", (int(httpx.URL(replica.url).port or 0),) * 2) as url,
        Uploads(url) as uploads,
    ):
        uploads.begin(1, 600_000, "192.0.2.1")
        [connection] = uploads.connections
        answer = connection.recv(65536).partition(b"\r\n\r\n")
        assert answer[0].startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer[2] or connection.recv(65536))["type"] == errors.REQUEST_TIMEOUT.type


class Load:
    """Clients that post until told to stop; what came back is counted.

    They take a breath between requests: without it they would take the cores from the replica that starts meanwhile.
    """

    def __init__(self, url: str, clients: int) -> None:
        self.answers: Counter[str] = Counter()
        self._url = url
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._post) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def go_on(self, answers: int) -> None:
        """Wait for so many more answers."""
        with self._changed:
            enough = self.answers.total() + answers
            assert self._changed.wait_for(lambda: self.answers.total() >= enough, PATIENCE_S)

    def _post(self) -> None:
        content = png_of("word")
        with httpx.Client(base_url=self._url, timeout=PATIENCE_S) as client:
            while not self._stop.wait(0.02):
                try:
                    response = client.post(PATH, content=content, headers=PNG)
                    answer = response.json()["text"] if response.status_code == 200 else str(response.status_code)
                except httpx.HTTPError as error:
                    answer = repr(error)
                with self._changed:
                    self.answers[answer] += 1
                    self._changed.notify_all()


def test_each_replica_restarts_under_load_and_nothing_is_lost(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "toy.onnx", work=1)
    ports = (free_port(), free_port())

    def start(stack: ExitStack, index: int) -> ServerProcess:
        return stack.enter_context(running(artifact, tmp_path / f"log-{index}", port=ports[index], forked=True))

    with ExitStack() as stack:
        replicas = [start(stack, 0), start(stack, 1)]
        url = stack.enter_context(gateway(tmp_path / "g", ports))
        with Load(url, clients=4) as load:
            for index in (0, 1):
                load.go_on(100)
                assert replicas[index].terminate() == 0
                load.go_on(100)  # from the other one
                replicas[index] = start(stack, index)
            # The second was stopped while the first may still have been thought dead. Now both must get their share again.
            end_s = time.monotonic() + PATIENCE_S
            while not all(replica.metric('parseq_crops_total{outcome="done"}') for replica in replicas):
                assert time.monotonic() < end_s, "a replica gets nothing after its restart"
                load.go_on(20)
    assert set(load.answers) == {"word"}, load.answers
