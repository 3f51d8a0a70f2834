"""What HTTP permits and what it forbids, byte by byte, over real sockets (RFC 9110 and 9112)."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import MALFORMED_REQUEST, UNAUTHORIZED, UNSUPPORTED_TRANSFER_CODING, Kind
from tests.fakes import PATIENCE_S, FakeSession
from tests.integration.connections import BODY, PATIENT, PROBE, Server, head, serving
from tests.integration.in_process import read_answer

KEY = "0123456789abcdef"
CHUNKED = b"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n"
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(**PATIENT) as patient:
        yield patient


def coded(value: bytes, version: bytes = b"1.1") -> bytes:
    lines = CHUNKED.replace(b"chunked", value).replace(b"HTTP/1.1", b"HTTP/" + version)
    return lines + b"\r\n" + IN_CHUNKS + b"\r\n"


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (PROBE.replace(b"Host: x\r\n", b""), MALFORMED_REQUEST),
        (PROBE.replace(b"Host: x\r\n", b"Host: x\r\nHost: x\r\n"), MALFORMED_REQUEST),
        (PROBE.replace(b"Host: x\r\n", b"Host: x y\r\n"), MALFORMED_REQUEST),
        (PROBE.replace(b"Host: x\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"), MALFORMED_REQUEST),
        (b"GET /livez\r\n\r\n", MALFORMED_REQUEST),
        (PROBE.replace(b"1.1", b"2.0"), MALFORMED_REQUEST),
        (coded(b"gzip, chunked"), UNSUPPORTED_TRANSFER_CODING),
        (coded(b"gzip\r\nTransfer-Encoding: chunked"), UNSUPPORTED_TRANSFER_CODING),
        (coded(b"chunked, identity"), MALFORMED_REQUEST),
        (coded(b"identity"), MALFORMED_REQUEST),
        (coded(b"chunked", b"1.0"), MALFORMED_REQUEST),
        (coded(b"chunked\r\nContent-Length: 3"), MALFORMED_REQUEST),
        (CHUNKED + b"\r\n5;" + b"a" * 300_000 + b"\r\nhello\r\n0\r\n\r\n", MALFORMED_REQUEST),
        (CHUNKED + b"\r\n" + b"1;abcdefghijklmnopqrstuvw\r\nx\r\n" * 20_000, MALFORMED_REQUEST),
        (CHUNKED + b"\r\n" + b"1\r\nx\r\n" * 40_000, MALFORMED_REQUEST),
    ],
)
def test_what_is_forbidden_is_told(server: Server, sent: bytes, kind: Kind) -> None:
    with server.connection() as connection:
        connection.sendall(sent)
        status, answered, body = read_answer(connection)
        assert connection.recv(1) == b""
    assert (status, json.loads(body)["type"]) == (kind.status, kind.type)
    assert "connection: close" in answered


def test_letters_in_a_url_that_are_not_ascii_are_named(server: Server) -> None:
    with server.connection() as connection:
        connection.sendall(PROBE.replace(b"/livez", "/livez?charset=chars:£".encode()))
        status, _, body = read_answer(connection)
    assert status == 400
    assert "%C2%A3" in json.loads(body)["detail"]


@pytest.mark.parametrize(
    "sent",
    [
        PROBE.replace(b"Host: x", b"Host:"),
        PROBE.replace(b"Host: x", b"Host: x \t"),
        PROBE.replace(b"Host: x", b"Host: x\r\nContent-Length: 0 "),
        PROBE.replace(b"Host: x", b"Host: [::1]:8000"),
        PROBE.replace(b"/livez", b"http://x/livez"),
        PROBE.replace(b"/livez", b"http://x"),
        PROBE.replace(b"/livez", b"http://x?y"),
        b"\r\n\r\n" + PROBE,
    ],
)
def test_what_is_permitted_is_answered(server: Server, sent: bytes) -> None:
    with server.connection() as connection:
        for _ in range(2):
            connection.sendall(sent)
            assert read_answer(connection)[0] == 200


def test_http_1_0_needs_no_host_and_knows_no_continue(server: Server) -> None:
    with server.connection() as connection:
        connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert read_answer(connection)[0] == 200
    with server.connection() as connection:
        connection.sendall(head("Expect: 100-continue", version="1.0"))
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(PATIENCE_S)
        connection.sendall(BODY)
        assert read_answer(connection)[0] == 200


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_chunks_with_extensions_and_trailers_are_read(server: Server, step: int) -> None:
    sent = CHUNKED + b"\r\n" + IN_CHUNKS.replace(b"\r\n", b";name=value\r\n", 1) + b"Trailer: x\r\n\r\n" + PROBE
    with server.connection() as connection:
        for start in range(0, len(sent), step):
            connection.sendall(sent[start : start + step])
        assert [read_answer(connection)[0] for _ in range(2)] == [200, 200]


def test_trailers_are_no_headers(server: Server) -> None:
    trailers = b"Content-Type: application/json\r\nX-Request-Id: trailing\r\nX-Request-Timeout-Ms: x\r\nHost: y\r\n"
    trailers += b"Content-Encoding: gzip\r\nExpect: 100-continue\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    with server.connection() as connection:
        for _ in range(2):
            connection.sendall(CHUNKED + b"\r\n" + IN_CHUNKS + trailers + b"\r\n")
            status, answered, body = read_answer(connection)
            assert (status, json.loads(body)["text"]) == (200, "word")
            assert "trailing" not in answered


def test_a_key_in_a_trailer_opens_nothing(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY + "\n")
    with serving(**PATIENT, api_keys_file=keys) as server:  # type: ignore[arg-type]
        for trailer in (b"", b"X-API-Key: %b\r\n" % KEY.encode(), b"Authorization: Bearer %b\r\n" % KEY.encode()):
            with server.connection() as connection:
                connection.sendall(CHUNKED + b"\r\n" + IN_CHUNKS + trailer + b"\r\n")
                status, _, body = read_answer(connection)
                assert (status, json.loads(body)["type"]) == (401, UNAUTHORIZED.type)


def rest_of(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


@pytest.mark.parametrize("n_requests", [1, 3, 30])
def test_a_client_that_sends_nothing_more_gets_all_its_answers(server: Server, n_requests: int) -> None:
    with server.connection() as connection:
        connection.sendall((head() + BODY) * n_requests)
        connection.shutdown(socket.SHUT_WR)
        received = rest_of(connection)
    assert received.count(b"HTTP/1.1 200 OK\r\n") == received.count(b'"word"') == n_requests
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_what_a_client_began_and_did_not_end_is_dropped_and_what_came_before_answered(server: Server) -> None:
    with server.connection() as connection:
        connection.sendall(head() + BODY + head() + BODY + head() + BODY[:10])
        connection.shutdown(socket.SHUT_WR)
        assert rest_of(connection).count(b'"word"') == 2


@pytest.mark.parametrize("closes", [True, False])
def test_who_hangs_up_is_told_from_who_waits_for_an_answer(closes: bool) -> None:
    session = FakeSession()
    with serving(session, **PATIENT, request_timeout_ms=3.6e6, max_queue_wait_ms=3.6e6) as server:
        session.gate.clear()
        with server.connection() as first, server.connection() as second:
            first.sendall(head() + BODY)
            session.entered.acquire(timeout=PATIENCE_S)
            second.sendall(head() + BODY)
            if closes:
                second.close()
                left = 'parseq_request_duration_seconds_count{status="499"} 1.0'
                end_s = time.monotonic() + PATIENCE_S
                while left not in server.runtime.metrics.render().decode():
                    assert time.monotonic() < end_s
                    time.sleep(0.01)
            else:
                second.shutdown(socket.SHUT_WR)
            session.gate.set()
            assert read_answer(first)[0] == 200
            if not closes:
                received = rest_of(second)
                assert received.startswith(b"HTTP/1.1 200 OK\r\n")
                assert b'"word"' in received
