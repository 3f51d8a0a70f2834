"""The service behind its HTTP server in this process, for tests that speak to it byte by byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import uvicorn

from service.core.runtime import Runtime
from service.serving import listen, uvicorn_config
from tests.fakes import PATIENCE_S

Address = tuple[str, int]


@contextmanager
def listening(runtime: Runtime, started: Callable[[], None] = lambda: None) -> Iterator[Address]:
    """A server that is ready; `started` is called in between."""
    listener = listen("127.0.0.1", 0)
    address = listener.getsockname()
    service = uvicorn.Server(uvicorn_config(runtime.settings, runtime))
    thread = threading.Thread(target=service.run, args=([listener],))
    thread.start()
    try:
        started()
        _wait_until_ready("http://{}:{}".format(*address))
        yield address
    finally:
        service.should_exit = True
        thread.join(PATIENCE_S)


def _wait_until_ready(url: str) -> None:
    for _ in range(10_000):
        if httpx.get(f"{url}/readyz").status_code == 200:
            return
    raise AssertionError("the server did not become ready")


def read_answer(connection: socket.socket) -> tuple[int, str, bytes]:
    """Status, lower-case head and body of one answer."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    text = head.decode().lower()
    length = int(text.partition("content-length: ")[2].partition("\r\n")[0])
    while len(body) < length:
        body += _some(connection)
    assert len(body) == length
    return int(text.split()[1]), text, body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(1)  # never more than one answer
    assert data, "the server hung up"
    return data
