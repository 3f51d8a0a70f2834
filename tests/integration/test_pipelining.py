"""Clients that send requests ahead, or do not read the answers, over real sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from service.http.connection.protocol import MAX_UNANSWERED, HttpProtocol
from tests.fakes import PATIENCE_S
from tests.integration.connections import BODY, PATIENT, PROBE, Server, counted, head, serving
from tests.integration.in_process import read_answer

PAGE = PROBE.replace(b"/livez", b"/")
MANY = 3000


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(**PATIENT) as patient:
        yield patient


def deaf_client(server: Server, stack: ExitStack, sent: bytes) -> socket.socket:
    """A client that reads nothing of what it is answered; its system takes as little as it can."""
    connection = stack.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.settimeout(PATIENCE_S)
    connection.connect(server.address)
    connection.setblocking(False)
    connection.send(sent)
    connection.settimeout(PATIENCE_S)
    return connection


def wait_for(server: Server, sample: str, value: float) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while counted(server, sample) < value:
        assert time.monotonic() < end_s, sample
        time.sleep(0.02)


def test_all_that_is_sent_ahead_is_answered_in_order(server: Server) -> None:
    kinds = [(PROBE, "alive"), (head() + BODY, "word"), (head(body=b"x") + b"x", "unreadable")]
    with server.connection() as connection:
        connection.sendall(b"".join(request for request, _ in kinds) * 20)
        for _ in range(20):
            for _, expected in kinds:
                assert expected in read_answer(connection)[2].decode()


def test_few_requests_of_one_connection_are_parsed_and_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    complete = HttpProtocol.on_message_complete

    def watch(self: HttpProtocol) -> None:
        nonlocal most
        complete(self)
        most = max(most, self._unanswered())

    monkeypatch.setattr(HttpProtocol, "on_message_complete", watch)
    with serving(**PATIENT) as server, server.connection() as connection, server.connection() as other:
        held_back = counted(server, "parseq_requests_held_back_total")
        connection.sendall(PROBE * 1000)
        other.sendall(PROBE)
        assert read_answer(other)[0] == 200
        for _ in range(1000):
            assert read_answer(connection)[0] == 200
        assert counted(server, "parseq_requests_held_back_total") > held_back
        connection.sendall(PROBE)
        assert read_answer(connection)[0] == 200
    assert most == MAX_UNANSWERED < 10


def test_the_memory_of_what_is_sent_ahead_counts_as_bodies_do(server: Server) -> None:
    with ExitStack() as stack:
        deaf_client(server, stack, PAGE * MANY)
        wait_for(server, "parseq_body_bytes", 10_000)
    end_s = time.monotonic() + PATIENCE_S
    while counted(server, "parseq_body_bytes"):
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_who_does_not_read_its_answers_is_given_up() -> None:
    with serving(**PATIENT, send_timeout_s=0.4) as server, ExitStack() as stack:
        for _ in range(3):
            deaf_client(server, stack, PAGE * MANY)
        wait_for(server, 'parseq_connections_ended_total{reason="unread"}', 3)
        with server.connection() as connection:
            connection.sendall(PROBE)
            assert read_answer(connection)[0] == 200


def test_who_reads_slowly_gets_everything() -> None:
    with serving(**PATIENT, send_timeout_s=1) as server, ExitStack() as stack:
        connection = deaf_client(server, stack, PAGE * 200)
        received = b""
        while received.count(b"</html>") < 200:
            data = connection.recv(20_000)
            assert data
            received += data
            time.sleep(0.002)
        assert counted(server, 'parseq_connections_ended_total{reason="unread"}') == 0


def test_unread_answers_make_room_and_do_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        with serving(**PATIENT, max_connections=3, drain_timeout_s=PATIENCE_S) as server:
            for _ in range(3):
                deaf_client(server, stack, PAGE * MANY)
            end_s = time.monotonic() + PATIENCE_S
            while True:
                with server.connection() as connection:
                    connection.sendall(head() + BODY)
                    if read_answer(connection)[0] == 200:
                        break
                assert time.monotonic() < end_s
                time.sleep(0.1)
            assert counted(server, 'parseq_connections_ended_total{reason="made_room"}') >= 1
            started_s = time.monotonic()
        assert time.monotonic() - started_s < PATIENCE_S / 2
    assert "Traceback" not in caplog.text
    assert "Exception" not in caplog.text
