"""The Open Inference Protocol through the real HTTP server: room for bodies, bodies without end, and probes when it is full."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.core.runtime import Runtime
from tests.fakes import FakeSession, toy_runtime
from tests.integration.in_process import listening, read_answer
from tests.open_inference import INFER, LENGTH_HEADER, as_json, binary, files, outputs_of
from tests.toy_artifact import pixels_of, png_of

ROOM = 2**20


def held_bytes(url: str) -> float:
    [line] = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith("parseq_body_bytes ")]
    return float(line.split()[1])


def wait_until_held(url: str, n_bytes: float) -> None:
    while held_bytes(url) < n_bytes:
        time.sleep(0.01)


def small_room(session: FakeSession) -> Runtime:
    return toy_runtime(session, max_body_bytes=ROOM // 2, max_json_bytes=ROOM // 2, max_bodies_bytes=ROOM)


def post(url: str, content: bytes, headers: Mapping[str, str]) -> httpx.Response:
    return httpx.post(f"{url}{INFER}", content=content, headers=headers)


def test_what_is_unpacked_takes_room_as_any_body_does() -> None:
    session = FakeSession()
    body, headers = binary(bytes(3 * 256 * 512), [1, 256, 512, 3], "UINT8")  # some 0.4 MB, and as much for the picture
    packed, small = {**headers, "content-encoding": "gzip"}, files(png_of("abc"))
    with listening(small_room(session=session)) as address, ThreadPoolExecutor(1) as pool:
        url = "http://{}:{}".format(*address)
        session.gate.clear()
        try:
            png = {"content-type": "image/png"}
            large = pool.submit(
                httpx.post, f"{url}/v1/recognize", content=png_of("abc") + bytes(ROOM // 2 - 10_000), headers=png
            )
            wait_until_held(url, ROOM // 2 - 10_000)
            answer = post(url, gzip.compress(body), packed)
            assert (answer.status_code, "error" in answer.json()) == (429, True)
            assert held_bytes(url) < ROOM // 2
        finally:
            session.gate.set()
        assert large.result().json()["text"] == "abc"
        assert outputs_of(post(url, gzip.compress(body), packed))["text"] == [""]
        assert outputs_of(post(url, *small))["text"] == ["abc"]
        assert held_bytes(url) == 0


def test_a_bomb_is_refused_when_there_is_no_room_for_it() -> None:
    runtime = toy_runtime(max_body_bytes=2**24, max_bodies_bytes=2**25)
    largest = gzip.compress(bytes(2**24))
    with listening(runtime) as address:
        url = "http://{}:{}".format(*address)
        answer = post(url, largest, {LENGTH_HEADER: "10", "content-encoding": "gzip"})
        assert answer.status_code == 400  # there is room for it, and it is no JSON
        with socket.create_connection(address) as other:
            other.sendall(
                b"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % 2**22
            )
            other.sendall(bytes(2**21))
            wait_until_held(url, 2**21)
            answer = post(url, largest, {LENGTH_HEADER: "10", "content-encoding": "gzip"})
            assert answer.status_code == 400  # what arrives had to go for what has arrived
            assert read_answer(other)[0] == 429
        answer = post(url, gzip.compress(bytes(2**24 + 1)), {LENGTH_HEADER: "10", "content-encoding": "gzip"})
        assert (answer.status_code, answer.headers["content-type"]) == (413, "application/json")
        answer = post(url, gzip.compress(bytes(2**28)), {LENGTH_HEADER: "10", "content-encoding": "gzip"})
        assert answer.status_code == 413
        assert held_bytes(url) == 0
        assert httpx.get(f"{url}/livez").status_code == 200


def test_a_body_of_which_too_much_is_announced_is_refused_before_it_comes() -> None:
    with listening(toy_runtime()) as address, socket.create_connection(address) as connection:
        connection.sendall(
            b"POST %b HTTP/1.1\r\nHost: x\r\n%b: 10\r\nContent-Length: %d\r\n\r\n"
            % (INFER.encode(), LENGTH_HEADER.encode(), 2**27)
        )
        status, head, body = read_answer(connection)
        assert status == 413
        assert "content-type: application/json\r\n" in head
        assert "PARSEQ_MAX_BODY_BYTES" in json.loads(body)["error"]


def test_a_body_that_does_not_end_is_given_up() -> None:
    with listening(toy_runtime(receive_timeout_s=0.3)) as address, socket.create_connection(address) as connection:
        body, _ = files(png_of("abc"))
        connection.sendall(
            b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (INFER.encode(), len(body) + 1, body)
        )
        status, head, body = read_answer(connection)
        assert status == 408
        assert "content-type: application/json\r\n" in head
        assert "error" in json.loads(body)


def test_heads_that_are_no_text_are_no_harm() -> None:
    with listening(toy_runtime()) as address:
        for head in (
            b"X-A: \xff\xfe",
            b"Inference-Header-Content-Length: \xff",
            b"Content-Encoding: \xff",
            b"Content-Type: \xff",
        ):
            with socket.create_connection(address) as connection:
                body = json.dumps(as_json(png_of("a"))).encode()
                connection.sendall(
                    b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\nContent-Length: %d\r\n\r\n%b"
                    % (INFER.encode(), head, len(body), body)
                )
                assert read_answer(connection)[0] in (200, 400, 415)


def test_pixels_and_files_read_alike_through_the_server() -> None:
    with listening(toy_runtime()) as address:
        url = "http://{}:{}".format(*address)
        body, headers = binary(pixels_of("abc").tobytes(), [1, 32, 128, 3], "UINT8")
        assert outputs_of(post(url, body, headers))["text"] == ["abc"]
        assert outputs_of(post(url, *files(png_of("abc"))))["text"] == ["abc"]


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/ping"])
def test_probes_are_answered_when_all_connections_are_taken(path: str) -> None:
    with listening(toy_runtime(max_connections=1)) as address, socket.create_connection(address) as taken:
        taken.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx" % INFER.encode())
        time.sleep(0.1)  # it is being received
        assert httpx.get("http://{}:{}{}".format(*address, path)).status_code == 200
        assert httpx.get("http://{}:{}/v2".format(*address)).status_code in (200, 429)
