"""A small HTTP server that does to each request what the next line of its script says, for tests of clients."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], Any]
"""Status, headers, JSON."""


class Misbehaving(ThreadingHTTPServer):
    """Answers model lists and recognition; `script` holds what happens to the next recognition requests instead.

    A line of the script is an `Answer`, `"reset"` (the connection breaks off without an answer), `"slow"` (a byte at a time),
    or a function of the ids in the request.
    """

    daemon_threads = True

    def __init__(self, *script: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = list(script)
        self.limits = {"max_body_bytes": 10**6, "max_crops_per_request": 8, "max_regions": 4}
        self.requests: list[list[str]] = []
        """Of each recognition request the file names in it."""
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.most_at_once = self.at_once = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def misbehaving(*script: Any) -> Iterator[Misbehaving]:
    with Misbehaving(*script) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def read_as(ids: list[str]) -> Answer:
    """Each crop is read as its own id."""
    results = [{"id": id_, "text": id_, "confidence": 0.5, "unknown": 1} for id_ in ids]
    return 200, {}, {"results": results, "model": "toy", "model_version": "0"}


def problem(status: int, slug: str, **headers: str) -> Answer:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    document = {"type": f"urn:parseq:problem:{slug}", "title": f"It is {slug}", "status": status, "detail": "Because."}
    return status, told, document


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Misbehaving

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        model = {
            "name": "toy",
            "version": "0",
            "charset": "ab",
            "charset_url": "models/toy/charset",
            "limits": self.server.limits,
        }
        self._send((200, {}, {"models": [model], "status": "ready"}))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts: Any = BytesParser().parsebytes(head + body).get_payload()
        ids = [str(part.get_filename()) for part in parts if part.get_filename()]
        regions = [part.get_payload(decode=True) for part in parts if not part.get_filename()]
        if regions:
            ids = [str(number) for number in range(len(json.loads(regions[0])))]
        server = self.server
        with server.lock:
            server.requests.append(ids)
            server.headers.append(dict(self.headers))
            server.paths.append(self.path)
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            step: Any = server.script.pop(0) if server.script else read_as
        try:
            if step == "reset":
                linger = struct.pack("ii", 1, 0)  # the close is a reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
            elif step == "slow":
                self._drip()
            else:
                self._send(step(ids) if isinstance(step, Callable) else step)  # type: ignore[arg-type]
        finally:
            with server.lock:
                server.at_once -= 1

    def _send(self, answer: Answer) -> None:
        status, headers, document = answer
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Request-Id": "the-id", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        try:
            for _ in range(200):
                self.wfile.write(b" ")
                time.sleep(0.05)
        except OSError:
            self.close_connection = True
