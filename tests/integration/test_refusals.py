"""Refusals before the body is read, over real sockets: whatever the client does with its body, both sides stay in step."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tests.fakes import PATIENCE_S, FakeSession, toy_runtime
from tests.integration.in_process import listening, read_answer
from tests.toy_artifact import png_of

PNG = {"content-type": "image/png"}
HEAD = "POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {}\r\n{}\r\n"
PROBE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
SMALL, LARGE = 5_000, 8_000_000


class BusyServer:
    """Its only lane is kept in a run until `gate` is opened; until then nobody is let in."""

    def __init__(self, address: tuple[str, int], gate: threading.Event) -> None:
        self.address = address
        self.url = "http://{}:{}".format(*address)
        self.gate = gate

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        with socket.create_connection(self.address, PATIENCE_S) as connection:
            yield connection


@pytest.fixture
def server() -> Iterator[BusyServer]:
    session = FakeSession()
    runtime = toy_runtime(
        session,
        max_batch_size=1,
        max_queue_wait_ms=500.0,
        max_batch_queue_wait_ms=500.0,
        keep_alive_s=1,
        receive_timeout_s=PATIENCE_S,
    )
    with ThreadPoolExecutor(1) as pool, listening(runtime, session.wait_entered) as address:  # that is the warm-up
        busy = BusyServer(address, session.gate)
        runtime.models.default.cost.seed({1: 2.0})
        session.entered = threading.Semaphore(0)
        session.gate.clear()
        first = pool.submit(httpx.post, f"{busy.url}/v1/recognize", content=png_of("a"), headers=PNG, timeout=PATIENCE_S)
        session.wait_entered()
        yield busy
        session.gate.set()
        assert first.result().json()["text"] == "a"


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_ordinary_client_keeps_its_connection(server: BusyServer, size: int) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S, limits=httpx.Limits(max_connections=1)) as client:
        streams = set()
        for _ in range(5):
            with client.stream("POST", "/v1/recognize", content=bytes(size), headers=PNG) as refused:
                streams.add(refused.extensions["network_stream"])
                assert refused.status_code == 429
                refused.read()
                assert refused.json()["status"] == 429
        assert len(streams) == 1
        assert client.get("/livez").status_code == 200


def test_a_body_in_chunks_is_thrown_away_too(server: BusyServer) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S, limits=httpx.Limits(max_connections=1)) as client:
        for _ in range(3):
            chunks = (bytes(100_000) for _ in range(20))
            assert client.post("/v1/recognize", content=chunks, headers=PNG).status_code == 429
        assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_answer_comes_before_the_body_and_the_next_request_after_it(server: BusyServer, size: int) -> None:
    with server.connection() as connection:
        for _ in range(3):
            connection.sendall(HEAD.format(size, "").encode())
            assert read_answer(connection)[0] == 429
            connection.sendall(bytes(size))
        connection.sendall(PROBE)
        assert read_answer(connection)[0] == 200


def test_requests_in_one_packet_are_answered_in_order(server: BusyServer) -> None:
    with server.connection() as connection:
        refused = HEAD.format(SMALL, "").encode() + bytes(SMALL)
        connection.sendall(refused + PROBE + refused + PROBE)
        assert [read_answer(connection)[0] for _ in range(4)] == [429, 200, 429, 200]


def test_a_client_that_asks_first_is_told_no_and_sends_nothing(server: BusyServer) -> None:
    with server.connection() as connection:
        connection.sendall(HEAD.format(LARGE, "Expect: 100-continue\r\n").encode())
        status, head, _ = read_answer(connection)
        assert status == 429
        assert "connection: close" in head
        assert connection.recv(1) == b""


def test_a_connection_whose_body_came_late_is_not_kept_for_ever(server: BusyServer) -> None:
    with server.connection() as connection:
        connection.sendall(HEAD.format(SMALL, "").encode())
        assert read_answer(connection)[0] == 429
        connection.sendall(bytes(SMALL))
        assert connection.recv(1) == b""  # after PARSEQ_KEEP_ALIVE_S


def test_once_there_is_room_the_same_connection_is_served(server: BusyServer) -> None:
    body = png_of("b")
    with server.connection() as connection:
        connection.sendall(HEAD.format(len(body), "").encode())
        assert read_answer(connection)[0] == 429
        connection.sendall(body)
        server.gate.set()
        while True:
            connection.sendall(HEAD.format(len(body), "").encode() + body)
            if read_answer(connection)[0] == 200:
                return
