"""Connections of clients that are slow, silent, or speak something else, over real sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import ClassVar

import pytest

from service.config import Settings
from service.errors import HEAD_TOO_LARGE, MALFORMED_REQUEST, METHOD_NOT_ALLOWED, REQUEST_TIMEOUT, UNREADABLE_IMAGE
from service.http.connection import protocol
from service.http.connection.protocol import HttpProtocol
from service.http.connection.whole_writes import WholeAnswers
from tests.fakes import PATIENCE_S, FakeSession
from tests.integration.connections import BODY, HASTY, PATIENT, PROBE, Server, head, serving
from tests.integration.in_process import read_answer

MAX_HEAD_BYTES: int = Settings.model_fields["max_head_bytes"].default
READ_BYTES = 2**18
"""What uvloop receives at once, at most."""
MAX_HEADERS: int = Settings.model_fields["max_headers"].default
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(**PATIENT) as patient:
        yield patient


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    with serving(**HASTY) as server:
        yield server


UPGRADES = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"),
    "websocket": ("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "both": ("Upgrade: h2c", "Upgrade: websocket", "Connection: keep-alive", "Connection: upgrade"),
}


@pytest.mark.parametrize("pieces", [1, 2, 1000])
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_a_proposed_upgrade_is_ignored_and_the_body_read(server: Server, upgrade: str, pieces: int) -> None:
    request = head(*UPGRADES[upgrade]) + BODY
    with server.connection() as connection:
        for _ in range(3):
            if pieces == 2:
                connection.sendall(request[: -len(BODY)])
                connection.sendall(BODY)
            else:
                step = -(-len(request) // pieces)
                for start in range(0, len(request), step):
                    connection.sendall(request[start : start + step])
            status, answered, body = read_answer(connection)
            assert (status, json.loads(body)["text"]) == (200, "word")
            assert "connection: close" not in answered
        connection.sendall(PROBE)
        assert read_answer(connection)[0] == 200


def test_a_proposed_upgrade_leaves_the_rest_of_the_head_as_it_is(server: Server) -> None:
    with server.connection() as connection:
        connection.sendall(head(*UPGRADES["h2c"], "X-Request-Id: mine", "Expect: 100-continue"))
        assert connection.recv(100) == CONTINUE
        connection.sendall(BODY)
        status, answered, _ = read_answer(connection)
        assert status == 200
        assert "x-request-id: mine" in answered


def test_a_client_that_proposes_an_upgrade_and_its_last_request_gets_its_answer(server: Server) -> None:
    with server.connection() as connection:
        connection.sendall(head("Connection: close, Upgrade", "Upgrade: h2c") + BODY + PROBE)
        status, answered, _ = read_answer(connection)
        assert status == 200
        assert "connection: close" in answered
        assert connection.recv(1) == b""


def test_a_body_in_chunks_survives_a_proposed_upgrade(server: Server) -> None:
    lines = (
        "POST /v1/recognize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    )
    with server.connection() as connection:
        connection.sendall(lines.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) + PROBE)
        assert [read_answer(connection)[0] for _ in range(2)] == [200, 200]


def test_many_proposals_in_one_packet_are_answered_in_order(server: Server) -> None:
    upgrade = head(*UPGRADES["h2c"]) + BODY
    with server.connection() as connection:
        connection.sendall((upgrade + PROBE) * 100)
        bodies = [json.loads(read_answer(connection)[2]) for _ in range(200)]
        assert [body.get("text") for body in bodies] == ["word", None] * 100


def test_a_tunnel_is_refused(server: Server) -> None:
    with server.connection() as connection:
        connection.sendall(b"CONNECT /v1/recognize HTTP/1.1\r\nHost: x\r\n\r\n")
        status, _, body = read_answer(connection)
        assert status in (MALFORMED_REQUEST.status, METHOD_NOT_ALLOWED.status)
        assert json.loads(body)["type"] in (MALFORMED_REQUEST.type, METHOD_NOT_ALLOWED.type)


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost x\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_problem_document(server: Server, request_: bytes) -> None:
    before = server.told(MALFORMED_REQUEST.slug)
    with server.connection() as connection:
        connection.sendall(request_)
        status, answered, body = read_answer(connection)
        assert connection.recv(1) == b""
    assert (status, json.loads(body)["type"]) == (400, MALFORMED_REQUEST.type)
    assert "content-type: application/problem+json" in answered
    assert "x-request-id: " in answered
    assert "connection: close" in answered
    assert server.told(MALFORMED_REQUEST.slug) == before + 1


def test_a_body_that_is_no_http_is_a_problem_with_the_id_of_its_request(server: Server) -> None:
    lines = "POST /v1/recognize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nX-Request-Id: mine\r\n\r\n"
    for separate in (False, True):
        before = server.told(MALFORMED_REQUEST.slug)
        with server.connection() as connection:
            if separate:
                connection.sendall(lines.encode() + b"3\r\nabc\r\n")
                connection.sendall(b"oops\r\n")
            else:
                connection.sendall(lines.encode() + b"oops\r\n")
            status, answered, body = read_answer(connection)
            assert connection.recv(1) == b""
        assert (status, json.loads(body)["type"]) == (400, MALFORMED_REQUEST.type)
        assert "x-request-id: mine" in answered
        assert server.told(MALFORMED_REQUEST.slug) == before + 1


def test_what_is_no_http_does_not_take_the_answers_before_it_along(server: Server) -> None:
    with server.connection() as connection:
        connection.sendall(head() + BODY + head() + BODY + b"hello\r\n\r\n")
        assert [json.loads(read_answer(connection)[2])["text"] for _ in range(2)] == ["word"] * 2
        assert connection.recv(1) == b""


@pytest.mark.parametrize("sent", [b"P", head()[:-2]])
def test_a_head_that_does_not_end_is_told(hasty: Server, sent: bytes) -> None:
    before = hasty.told(REQUEST_TIMEOUT.slug)
    with hasty.connection() as connection:
        connection.sendall(sent)
        status, answered, body = read_answer(connection)
        assert connection.recv(1) == b""
    assert (status, json.loads(body)["type"]) == (408, REQUEST_TIMEOUT.type)
    assert "PARSEQ_RECEIVE_TIMEOUT_S" in json.loads(body)["detail"]
    assert "connection: close" in answered
    assert hasty.told(REQUEST_TIMEOUT.slug) == before + 1


@pytest.mark.parametrize("before", [b"", head() + BODY])
def test_a_head_without_end_is_told(server: Server, before: bytes) -> None:
    told = server.told(HEAD_TOO_LARGE.slug)
    with server.connection() as connection:
        connection.sendall(before)
        if before:
            assert read_answer(connection)[0] == 200
        connection.sendall(
            b"GET /livez HTTP/1.1\r\nX: ".ljust(MAX_HEAD_BYTES + READ_BYTES + 1, b"A")
        )  # not a byte more: it would not be read
        status, answered, body = read_answer(connection)
    assert (status, json.loads(body)["type"]) == (431, HEAD_TOO_LARGE.type)
    assert "connection: close" in answered
    assert server.told(HEAD_TOO_LARGE.slug) == told + 1


def test_a_large_head_and_a_body_much_larger_are_no_head_without_end(server: Server) -> None:
    junk = bytes(20 * MAX_HEAD_BYTES)
    with server.connection() as connection:
        for _ in range(4):
            connection.sendall(head("X: " + "A" * (MAX_HEAD_BYTES // 2), body=junk) + junk)
            assert read_answer(connection)[0] == UNREADABLE_IMAGE.status


@pytest.mark.parametrize(
    ("lines", "setting"),
    [
        (["X: " + "A" * MAX_HEAD_BYTES], "PARSEQ_MAX_HEAD_BYTES"),
        (["X: " + "A" * 1000] * 80, "PARSEQ_MAX_HEAD_BYTES"),
        (["X: y"] * MAX_HEADERS, "PARSEQ_MAX_HEADERS"),
    ],
    ids=["one", "several", "many"],
)
def test_heads_are_bounded_in_bytes_and_in_headers(server: Server, lines: list[str], setting: str) -> None:
    told = server.told(HEAD_TOO_LARGE.slug)
    with server.connection() as connection:
        connection.sendall(head(*lines))
        status, answered, body = read_answer(connection)
        assert (status, json.loads(body)["type"]) == (431, HEAD_TOO_LARGE.type)
        assert setting in json.loads(body)["detail"]
        assert "connection: close" in answered
    assert server.told(HEAD_TOO_LARGE.slug) == told + 1


def test_as_many_headers_as_permitted_are_read(server: Server) -> None:
    with server.connection() as connection:
        for _ in range(2):
            connection.sendall(head(*["X: y"] * (MAX_HEADERS - 3)) + BODY)
            assert read_answer(connection)[0] == 200


@pytest.mark.parametrize("garbage", [b"hello\r\n\r\n", b"\x16\x03\x01"])
def test_what_is_no_http_is_told_also_after_a_request(server: Server, garbage: bytes) -> None:
    with server.connection() as connection:
        connection.sendall(head("X-Request-Id: mine") + BODY)
        assert read_answer(connection)[0] == 200
        connection.sendall(garbage)
        status, answered, _ = read_answer(connection)
        assert status == 400
        assert "x-request-id: mine" not in answered


def trickle(connection: socket.socket) -> None:
    """One byte after the other, for as long as the server is there."""
    connection.settimeout(0.01)
    try:
        while True:
            connection.sendall(b"x")
            try:
                connection.recv(1, socket.MSG_PEEK)
                break
            except TimeoutError:
                continue
    finally:
        connection.settimeout(PATIENCE_S)


@pytest.mark.parametrize("content_type", ["image/png", "application/json", "multipart/form-data; boundary=x"])
def test_a_body_that_trickles_or_never_comes_is_told(hasty: Server, content_type: str) -> None:
    lines = f"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nX-Request-Id: mine\r\n"
    for trickles in (True, False):
        before = hasty.told(REQUEST_TIMEOUT.slug)
        with hasty.connection() as connection:
            connection.sendall(f"{lines}Content-Length: 1000000\r\n\r\n".encode())
            if trickles:
                trickle(connection)
            status, answered, body = read_answer(connection)
        assert (status, json.loads(body)["type"]) == (408, REQUEST_TIMEOUT.type)
        assert "x-request-id: mine" in answered
        assert "connection: close" in answered
        assert hasty.told(REQUEST_TIMEOUT.slug) == before + 1
    text = hasty.runtime.metrics.render().decode()
    assert 'parseq_request_duration_seconds_count{status="408"}' in text
    assert "parseq_requests_in_flight 0.0" in text


def test_a_body_nobody_waits_for_does_not_keep_the_connection(hasty: Server) -> None:
    with hasty.connection() as connection:
        connection.sendall(b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert read_answer(connection)[0] == METHOD_NOT_ALLOWED.status
        assert connection.recv(1) == b""


def test_the_next_request_has_its_own_time(hasty: Server) -> None:
    with hasty.connection() as connection:
        for _ in range(3):
            connection.sendall(head())
            connection.sendall(BODY)
            assert read_answer(connection)[0] == 200
        connection.sendall(head()[:20])
        assert read_answer(connection)[0] == 408


def test_time_in_which_the_server_is_at_work_does_not_count() -> None:
    """Neither for the request that is being read nor for one behind it; that one is given up if it then does not come."""
    session = FakeSession()
    with serving(session, **HASTY, max_queue_wait_ms=3.6e6, request_timeout_ms=3.6e6) as server:
        session.gate.clear()
        with server.connection() as single, server.connection() as patient, server.connection() as silent:
            single.sendall(head("Expect: 100-continue"))
            assert single.recv(100) == CONTINUE
            single.sendall(BODY)
            for connection in (patient, silent):
                connection.sendall(head() + BODY + head())
            for _ in range(3):  # one time-out after the other passes
                with server.connection() as clock:
                    clock.sendall(b"P")
                    assert read_answer(clock)[0] == 408
            session.gate.set()
            status, answered, _ = read_answer(single)
            assert status == 200
            assert "connection: close" not in answered
            assert read_answer(patient)[0] == 200
            patient.sendall(BODY)
            assert read_answer(patient)[0] == 200
            assert [read_answer(silent)[0] for _ in range(2)] == [200, 408]


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_a_connection_that_says_nothing_is_not_kept_for_ever(sent: bytes) -> None:
    with serving(receive_timeout_s=PATIENCE_S, keep_alive_s=1) as server, server.connection() as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


class Spy(WholeAnswers):
    """Sends at once whatever is written, and remembers it."""

    written: ClassVar[list[bytes]] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()


def test_an_answer_is_sent_in_one_piece(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a server that is killed leaves nobody with a head and no body."""
    connect = HttpProtocol.connection_made
    monkeypatch.setattr(HttpProtocol, "connection_made", lambda self, given: connect(self, Spy(given, self.loop)))
    requests = (
        head() + BODY,
        PROBE,
        head(body=b"no image") + b"no image",
        head("Upgrade: h2c", "Connection: upgrade") + BODY,
        b"?\r\n",
    )
    Spy.written.clear()
    with server.connection() as connection:
        for request_ in requests:
            connection.sendall(request_)
            read_answer(connection)
    assert [data.count(b"HTTP/1.1 ") for data in Spy.written] == [1] * len(requests)
    assert all(data.partition(b"\r\n\r\n")[2] for data in Spy.written)


@pytest.mark.parametrize("body_bytes", [10_000, 10**9])
def test_who_still_sends_at_the_end_reads_its_answer_unharmed(body_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is closed altogether is reset by what comes then, and some systems drop the answer with it."""
    monkeypatch.setattr(protocol, "DRAIN_LINGER_S", PATIENCE_S / 2)
    kind, status = ("text/plain", 415) if body_bytes < 10**9 else ("image/png", 413)
    lines = f"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {body_bytes}\r\n\r\n"
    running = ExitStack()
    server = running.enter_context(serving(**PATIENT, drain_timeout_s=PATIENCE_S))
    end = threading.Thread(target=running.close)
    try:
        with server.connection() as connection:
            connection.sendall(lines.encode() + bytes(1000))
            assert read_answer(connection)[0] == status
            end.start()
            assert connection.recv(1) == b""
            for _ in range(3):
                connection.sendall(bytes(100))
                time.sleep(0.05)
    finally:
        running.close()
