"""Connections shared among addresses once they are scarce, over real sockets: all of 127.0.0.0/8 is this machine."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from service.errors import TOO_MANY_CONNECTIONS
from service.http.connection.limit import SLOW_HEAD_S
from tests.fakes import PATIENCE_S
from tests.integration.connections import BODY, PATIENT, PROBE, Server, head, serving
from tests.integration.in_process import read_answer

MOST = 8
POST = head() + BODY
ATTACKER, GOOD, GATEWAY = "127.0.0.2", "127.0.0.3", "127.0.0.4"
HALF_HEAD = b"POST /v1/recognize HTTP/1.1"

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="which has but one address of its own by default")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(**PATIENT, max_connections=MOST) as small:
        yield small


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as connections:
        yield connections


def connect(server: Server, stack: ExitStack, address: str, sent: bytes = b"") -> socket.socket:
    connection = stack.enter_context(socket.create_connection(server.address, PATIENCE_S, (address, 0)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(sent)
    return connection


def seen(server: Server) -> None:
    """Wait until the server has seen all that was sent before."""
    for _ in range(2):
        with server.connection() as probing:
            probing.sendall(PROBE)
            assert read_answer(probing)[0] == 200


@pytest.mark.parametrize("sent", [HALF_HEAD, head()])
def test_others_get_in_while_one_address_holds_all_with_half_requests(server: Server, stack: ExitStack, sent: bytes) -> None:
    held = [connect(server, stack, ATTACKER, sent) for _ in range(MOST)]
    seen(server)
    good = [connect(server, stack, GOOD, POST) for _ in range(2)]
    assert [read_answer(connection)[0] for connection in good] == [200, 200]
    status, _, body = read_answer(held[0])
    assert (status, json.loads(body)["type"]) == (429, TOO_MANY_CONNECTIONS.type)
    # And the address that holds far more gets none of theirs.
    for _ in range(MOST):
        connect(server, stack, ATTACKER, sent)
    seen(server)
    for connection in good:
        connection.sendall(POST)
        assert read_answer(connection)[0] == 200


def test_half_heads_do_not_keep_others_of_the_same_address_out(server: Server, stack: ExitStack) -> None:
    for _ in range(MOST):
        connect(server, stack, ATTACKER, HALF_HEAD)
    seen(server)
    time.sleep(1.1 * SLOW_HEAD_S)
    for _ in range(3):
        assert read_answer(connect(server, stack, ATTACKER, POST))[0] == 200


def test_a_trusted_gateway_may_hold_all(stack: ExitStack) -> None:
    with serving(**PATIENT, max_connections=MOST, trusted_proxies=GATEWAY) as server:  # type: ignore[arg-type]
        held = [connect(server, stack, GATEWAY, head("Expect: 100-continue")) for _ in range(MOST)]
        for connection in held:
            assert connection.recv(100).startswith(b"HTTP/1.1 100")
        assert read_answer(connect(server, stack, GOOD, POST))[0] == 429
        for connection in held:
            connection.sendall(BODY)
            assert read_answer(connection)[0] == 200
        stack.close()
