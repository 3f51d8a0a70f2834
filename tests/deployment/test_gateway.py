"""The gateway's configuration as it stands, with only the addresses changed: before two real replicas, and before stand-ins."""

from __future__ import annotations

import json
import os
import re
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
from tests.deployment import tools
from tests.integration.server import PATIENCE_S, ServerProcess, running
from tests.toy_artifact import png_of, write_artifact

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "docker" / "gateway" / "nginx.conf"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
REPLICAS = ("service", "replica")
PATH = "/v1/recognize"
PNG = {"content-type": "image/png"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def write_config(folder: Path, port: int, replica_ports: tuple[int, ...]) -> Path:
    """The real file with other addresses; every one of them must have been there to be changed."""
    text = CONFIG.read_text()
    changes = {"listen 8080;": f"listen 127.0.0.1:{port};", "/tmp/": f"{folder}/", "/dev/stdout": f"{folder}/access.log"}
    changes |= {f"server {name}:8000 ": f"server 127.0.0.1:{at} " for name, at in zip(REPLICAS, replica_ports, strict=True)}
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "nginx.conf"
    path.write_text(text)
    return path


@contextmanager
def gateway(folder: Path, replica_ports: tuple[int, ...]) -> Iterator[str]:
    folder.mkdir()
    port = free_port()
    config = write_config(folder, port, replica_ports)
    log = folder / "stderr"
    # Else its workers are another user, who may not enter pytest's folders.
    directives = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    command = [*tools.command("nginx"), "-p", str(folder), "-c", str(config), "-g", directives]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, start_new_session=True)
    try:
        wait_for(lambda: connects(port), lambda: process.poll() is None, log)
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGQUIT)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
        assert not re.search(r"\[(emerg|alert|crit)\]", log.read_text()), log.read_text()
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
    documents = [json.loads(body) for body in re.findall(r"return \d+ '(\{.*\})';", CONFIG.read_text())]
    assert len(documents) == 3
    caught = re.findall(r"^\s*error_page (\d+) = (@\w+);", CONFIG.read_text(), re.M)
    assert [status for status, _place in caught] == ["413", "502", "504"]
    assert [place for _status, place in caught] == re.findall(r"^\s*location (@\w+) \{", CONFIG.read_text(), re.M)
    for document in documents:
        kind = kinds[document["type"]]
        assert (document["title"], document["status"]) == (kind.title, kind.status)


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
        self.rfile.read(int(self.headers["content-length"]))
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
def test_only_what_no_replica_worked_on_is_sent_once_more(tmp_path: Path, status: int | None, asked: int, told: int) -> None:
    with stand_ins(status, status) as servers, gateway(tmp_path / "g", (servers[0].port, servers[1].port)) as url:
        response = httpx.post(url + PATH, content=b"body", headers=PNG, timeout=PATIENCE_S)
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


def test_what_the_gateway_refuses_by_itself(tmp_path: Path) -> None:
    with stand_ins(200, 200) as servers, gateway(tmp_path / "g", (servers[0].port, servers[1].port)) as url:
        limit_bytes = Settings.model_validate({"max_body_bytes": 8388608}).max_body_bytes
        assert httpx.post(url + PATH, content=bytes(limit_bytes), timeout=PATIENCE_S).status_code == 200
        too_large = httpx.post(url + PATH, content=bytes(limit_bytes + 1), timeout=PATIENCE_S)
        assert (too_large.status_code, too_large.json()["type"]) == (413, errors.BODY_TOO_LARGE.type)
        assert too_large.headers["content-type"] == errors.PROBLEM_MEDIA_TYPE
        assert httpx.get(f"{url}/metrics").status_code == 404
        assert sum(server.asked for server in servers) == 1


def test_without_any_replica_it_says_so_in_the_services_words(tmp_path: Path) -> None:
    with gateway(tmp_path / "g", (free_port(), free_port())) as url:
        response = httpx.post(url + PATH, content=b"body", timeout=PATIENCE_S)
    assert (response.status_code, response.json()["type"]) == (503, errors.NOT_READY.type)
    assert response.headers["retry-after"] == "1"


# -- Before real replicas ----------------------------------------------------------------------------------------------------


class Load:
    """Clients that post without a pause until told to stop; what came back is counted."""

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
        with httpx.Client(base_url=self._url, timeout=PATIENCE_S) as client:
            while not self._stop.is_set():
                try:
                    response = client.post(PATH, content=png_of("word"), headers=PNG)
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
        return stack.enter_context(running(artifact, tmp_path / f"log-{index}", port=ports[index]))

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
