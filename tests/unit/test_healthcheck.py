"""The health check of the images, against a server that answers as it is told."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from service.config import Settings
from service.healthcheck import DEFAULT_PORT, EXIT_NOT_READY, EXIT_READY, main


class Server(ThreadingHTTPServer):
    status = 200


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b"as told")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("PARSEQ_PORT", str(server.server_port))
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("host", ["", "0.0.0.0", "127.0.0.1", "localhost"])
def test_ready_at_the_address_that_the_settings_name(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("PARSEQ_HOST", host)
    assert main() == EXIT_READY


def test_not_ready_is_unhealthy(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.status = 503
    assert main() == EXIT_NOT_READY
    assert capsys.readouterr().out == "/readyz answers 503: as told\n"


@pytest.mark.parametrize("port", ["1", "70000", "tcp://10.0.0.1:8000"])
def test_nobody_to_ask_is_unhealthy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], port: str) -> None:
    monkeypatch.setenv("PARSEQ_PORT", port)
    assert main() == EXIT_NOT_READY
    assert capsys.readouterr().out.startswith("/readyz cannot be asked: ")


def test_the_default_port_is_that_of_the_service() -> None:
    assert int(DEFAULT_PORT) == Settings.model_fields["port"].default
