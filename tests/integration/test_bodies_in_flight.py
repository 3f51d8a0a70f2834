"""Bodies that together would take more memory than there is for them, over real sockets."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from service.errors import NO_ROOM_FOR_BODY
from tests.fakes import PATIENCE_S
from tests.integration.connections import BODY, PATIENT, PROBE, Server, counted, head, serving
from tests.integration.in_process import read_answer

MIB = 2**20
ROOM = 4 * MIB
LARGE = MIB


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(**PATIENT, max_bodies_bytes=ROOM, max_body_bytes=2 * MIB, max_image_bytes=2 * MIB) as server:
        yield server


def upload(server: Server, stack: ExitStack, n_bytes: int, *lines: str) -> socket.socket:
    """All of a body but its last byte."""
    connection = stack.enter_context(server.connection())
    connection.sendall(head(*lines, body=bytes(n_bytes)) + bytes(n_bytes - 1))
    return connection


def settle(server: Server, n_bytes: float) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while counted(server, "parseq_body_bytes") < n_bytes:
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_a_body_that_comes_at_once_is_told_too(server: Server) -> None:
    with ExitStack() as stack:
        uploads = [upload(server, stack, LARGE) for _ in range(4)]
        settle(server, 3.9 * LARGE)
        whole = 200_000
        late = stack.enter_context(server.connection())
        late.sendall(head(body=bytes(whole)) + bytes(whole))
        told = {read_answer(late)[0]}
        for connection in uploads:
            connection.sendall(b"\0")
            told.add(read_answer(connection)[0])
        assert told == {422, 429}  # never that the body is empty


def test_requests_sent_ahead_that_find_no_room_end_the_connection() -> None:
    little = 2**16
    with (
        serving(**PATIENT, max_bodies_bytes=2 * little, max_body_bytes=little, max_image_bytes=little) as server,
        ExitStack() as stack,
    ):
        ahead = stack.enter_context(server.connection())
        ahead.settimeout(PATIENCE_S)
        ahead.sendall(PROBE * (200_000 // len(PROBE)))
        settle(server, little // 2)
        for _ in range(20):
            upload(server, stack, little // 4)
        received = 0
        while piece := ahead.recv(2**16):
            received += len(piece)
        assert received


def test_what_does_not_fit_is_told_and_not_reset(server: Server) -> None:
    with ExitStack() as stack:
        uploads = [upload(server, stack, LARGE) for _ in range(12)]
        settle(server, 3 * LARGE)
        assert counted(server, "parseq_body_bytes") <= ROOM
        statuses = []
        for connection in uploads:
            connection.sendall(b"\0")
            status, answered, body = read_answer(connection)
            statuses.append(status)
            if status == 429:
                assert json.loads(body)["type"] == NO_ROOM_FOR_BODY.type
                assert "PARSEQ_MAX_BODIES_BYTES" in json.loads(body)["detail"]
                assert "retry-after: 1\r\n" in answered
            connection.sendall(PROBE)  # the connection is as good as before
            assert read_answer(connection)[0] == 200
        assert set(statuses) == {422, 429}
        assert statuses.count(422) >= 3
        assert server.told(NO_ROOM_FOR_BODY.slug) == statuses.count(429)
    assert counted(server, "parseq_body_bytes") == 0


def test_small_requests_pass_while_slow_uploads_hold_all_the_room(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(8):
            upload(server, stack, LARGE)
        settle(server, 3 * LARGE)
        for _ in range(20):
            with server.connection() as connection:
                connection.sendall(head() + BODY)
                assert read_answer(connection)[0] == 200


def test_the_client_that_holds_most_is_told_first() -> None:
    proxied: dict[str, object] = {"trusted_proxies": "127.0.0.1", "max_bodies_bytes": ROOM, "max_body_bytes": 2 * MIB}
    with serving(**PATIENT, **proxied, max_image_bytes=2 * MIB) as server, ExitStack() as stack:  # type: ignore[arg-type]
        mine = upload(server, stack, LARGE, "X-Forwarded-For: 192.0.2.1")
        theirs = [upload(server, stack, LARGE, "X-Forwarded-For: 192.0.2.2") for _ in range(3)]
        settle(server, 3 * LARGE)
        later = upload(server, stack, LARGE, "X-Forwarded-For: 192.0.2.3")
        for connection in (mine, later):
            connection.sendall(b"\0")
            assert read_answer(connection)[0] == 422
        for connection in theirs:
            connection.sendall(b"\0")
        assert 429 in [read_answer(connection)[0] for connection in theirs]


def test_what_is_held_is_given_back_when_clients_leave(server: Server) -> None:
    for abort in (False, True):
        with ExitStack() as stack:
            uploads = [upload(server, stack, LARGE) for _ in range(3)]
            settle(server, 2 * LARGE)
            if abort:
                for connection in uploads:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        end_s = time.monotonic() + PATIENCE_S
        while counted(server, "parseq_body_bytes"):
            assert time.monotonic() < end_s
            time.sleep(0.01)
