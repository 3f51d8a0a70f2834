"""Single connections to a server in this process, and what it counts of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from service.core.runtime import Runtime
from tests.fakes import PATIENCE_S, FakeSession, toy_runtime
from tests.integration.in_process import Address, listening
from tests.toy_artifact import png_of

BODY = png_of("word")
PROBE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
PATIENT: dict[str, float] = {"receive_timeout_s": PATIENCE_S, "keep_alive_s": PATIENCE_S}
HASTY: dict[str, float] = {"receive_timeout_s": 0.2, "keep_alive_s": PATIENCE_S}


def head(*lines: str, body: bytes = BODY, version: str = "1.1") -> bytes:
    told = [f"POST /v1/recognize HTTP/{version}", "Host: x", "Content-Type: image/png", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join([*told, "", ""]).encode()


class Server:
    """A server, and what it counted."""

    def __init__(self, address: Address, runtime: Runtime) -> None:
        self.address, self.runtime = address, runtime

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        with socket.create_connection(self.address, PATIENCE_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield connection

    def told(self, slug: str) -> float:
        return self.runtime.metrics.problems.labels(slug)._value.get()


@contextmanager
def serving(session: FakeSession | None = None, **settings: float) -> Iterator[Server]:
    runtime = toy_runtime(session, **settings)
    with listening(runtime) as address:
        yield Server(address, runtime)


def counted(server: Server, sample: str) -> float:
    for line in server.runtime.metrics.render().decode().splitlines():
        if line.startswith(sample + " "):
            return float(line.split()[-1])
    raise AssertionError(sample)
