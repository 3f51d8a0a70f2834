"""More connections than there may be, over real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from service.errors import REQUEST_TIMEOUT, TOO_MANY_CONNECTIONS
from tests.fakes import PATIENCE_S
from tests.integration.connections import BODY, HASTY, PATIENT, PROBE, Server, head, serving
from tests.integration.in_process import read_answer

MOST = 4
POST = head() + BODY


@pytest.fixture
def small() -> Iterator[Server]:
    with serving(**PATIENT, max_connections=MOST) as server:
        yield server


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as connections:
        yield connections


def busy(server: Server, stack: ExitStack) -> list[socket.socket]:
    """As many connections as there may be, each of which has begun a request that the server knows of."""
    connections = [stack.enter_context(server.connection()) for _ in range(MOST)]
    for connection in connections:
        connection.sendall(head("Expect: 100-continue"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
    return connections


def refused(connection: socket.socket) -> bool:
    connection.sendall(POST)
    status, answered, body = read_answer(connection)
    return status != 200 and told_too_many(connection, status, answered, body)


def told_too_many(connection: socket.socket, status: int, answered: str, body: bytes) -> bool:
    assert (status, json.loads(body)["type"]) == (429, TOO_MANY_CONNECTIONS.type)
    assert "PARSEQ_MAX_CONNECTIONS" in json.loads(body)["detail"]
    assert "retry-after: 1\r\n" in answered
    assert "connection: close" in answered
    assert connection.recv(1) == b""
    return True


def test_when_all_are_busy_one_more_is_refused_and_the_others_are_answered(small: Server, stack: ExitStack) -> None:
    connections, told = busy(small, stack), small.told(TOO_MANY_CONNECTIONS.slug)
    for _ in range(2 * MOST):
        with small.connection() as surplus:
            assert refused(surplus)
    assert small.told(TOO_MANY_CONNECTIONS.slug) == told + 2 * MOST
    for connection in connections:
        connection.sendall(BODY)
        assert read_answer(connection)[0] == 200
    with small.connection() as one_more:
        assert not refused(one_more)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/readyz?verbose"])
def test_probes_are_answered_on_one_more_connection_once(small: Server, stack: ExitStack, path: str) -> None:
    busy(small, stack)
    with small.connection() as surplus:
        surplus.sendall(PROBE.replace(b"/livez", path.encode()))
        status, answered, _ = read_answer(surplus)
        assert status == 200
        assert "connection: close" in answered
        assert surplus.recv(1) == b""


@pytest.mark.parametrize("sent", [b"", b"POST /v1/reco"])
def test_one_more_that_asks_nothing_is_closed_soon(small: Server, stack: ExitStack, sent: bytes) -> None:
    busy(small, stack)
    with small.connection() as surplus:
        surplus.settimeout(PATIENCE_S / 2)  # the others have all of it
        surplus.sendall(sent)
        if sent:
            told_too_many(surplus, *read_answer(surplus))
        else:
            assert surplus.recv(1) == b""


def test_one_more_that_is_slow_within_the_limit_is_told_its_time() -> None:
    with serving(**HASTY, max_connections=MOST) as server, server.connection() as slow:
        slow.sendall(b"POST /v1/reco")
        document = json.loads(read_answer(slow)[2])
    assert document["type"] == REQUEST_TIMEOUT.type
    assert "0.2 s (PARSEQ_RECEIVE_TIMEOUT_S)" in document["detail"]


def test_one_more_may_ask_once_there_is_room(small: Server, stack: ExitStack) -> None:
    connections = busy(small, stack)
    with small.connection() as surplus:
        surplus.sendall(POST[:10])
        connections[0].close()
        for _ in range(2):  # by then the server knows
            with small.connection() as probing:
                probing.sendall(PROBE)
                assert read_answer(probing)[0] == 200
                assert probing.recv(1) == b""
        surplus.sendall(POST[10:])
        assert read_answer(surplus)[0] == 200
        assert not refused(surplus)


def test_the_connection_that_is_idle_for_longest_makes_room(small: Server, stack: ExitStack) -> None:
    connections = [stack.enter_context(small.connection()) for _ in range(MOST)]
    for connection in [*connections, connections[0]]:
        assert not refused(connection)
    with small.connection() as one_more:
        assert not refused(one_more)
        assert connections[1].recv(1) == b""
        for connection in (connections[0], *connections[2:], one_more):
            assert not refused(connection)


def test_connections_that_never_asked_make_room_in_order(small: Server, stack: ExitStack) -> None:
    silent = [stack.enter_context(small.connection()) for _ in range(5 * MOST)]
    for connection in silent[:-MOST]:
        assert connection.recv(1) == b""
    for connection in silent[-MOST:]:
        assert not refused(connection)
