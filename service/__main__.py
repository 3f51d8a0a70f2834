"""`parseq-serve`: read the settings, load the artifact, serve until told to stop."""

from __future__ import annotations

from service.process import early_signals

if __name__ == "__main__":  # `service.entry` does it for the console script
    early_signals.hold()

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Final, NoReturn

import uvicorn

from service import __version__
from service.config import Settings, doubts, env_name, load_settings
from service.core.catalogue import model_sources
from service.core.models import ModelEntry
from service.core.runtime import Runtime
from service.errors import StartupError
from service.http.app import App
from service.http.connection.protocol import protocol_for
from service.process.cpu import cpu_budget
from service.process.heap import return_large_blocks
from service.process.logs import configure_logging
from service.process.open_files import allow_connections, connections_within, max_open_files
from service.process.request import outside_requests
from service.sessions.artifact import load_artifact
from service.tracing.tracing import open_tracing

SWITCH_INTERVAL_S: Final = 0.0005
"""How long the thread that serves HTTP may wait for one that decodes images to pause. With Python's own 5 ms, a single crop
waits for each bit of another request's work; 0.5 ms costs no throughput."""
EXIT_OK: Final = 0
EXIT_FORCED: Final = 1
EXIT_STARTUP_FAILED: Final = 3
EXIT_UNHEALTHY: Final = 4
BACKLOG: Final = 2048
LOOK_EVERY_S: Final = 0.1
"""Whether the drain is over or was told to end; as uvicorn does."""
GRPC_SHARE: Final = 4
"""One part in so many of the connections is for gRPC, which makes few: a client's calls share one."""

logger = logging.getLogger(__package__)


class Server(uvicorn.Server):
    """uvicorn, with readiness turned off the moment a signal asks it to stop; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, runtime: Runtime) -> None:
        super().__init__(config)
        self._runtime = runtime
        self._ends: list[asyncio.Future[None]] = []
        """Of other transports than HTTP."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain on the first signal, end the process on the second."""
        self._runtime.drain()
        if self.should_exit:
            self.force_exit = True
            outside_requests(logger.warning, "told to stop a second time: requests in flight are dropped")
            # uvicorn would report the tasks that it leaves behind as errors, each with a traceback.
            logging.getLogger("uvicorn.error").disabled = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, all transports at once, within the time for the drain."""
        app = self.config.app
        if isinstance(app, App):
            self._ends = [asyncio.ensure_future(companion.stop()) for companion in app.companions]
        await super().shutdown(sockets)
        if isinstance(app, App) and self.force_exit:
            await asyncio.gather(*[companion.drop() for companion in app.companions])

    async def _wait_tasks_to_complete(self) -> None:
        await super()._wait_tasks_to_complete()
        while not all(end.done() for end in self._ends) and not self.force_exit:  # noqa: ASYNC110 - a signal handler sets it
            await asyncio.sleep(LOOK_EVERY_S)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve; the exit code is 0 after a clean stop, 1 after a forced one, 3 if it could not start, 4 if it broke."""
    try:
        settings = load_settings(**_parse(argv))
        configure_logging(settings.log_level, settings.log_format)
        for line in doubts(os.environ, [env_name(name) for name in Settings.model_fields]):
            logger.warning(line)
        if too_few_files := allow_connections(settings.max_connections):
            logger.warning(too_few_files)
            fitting = connections_within(max_open_files(), settings.max_connections)
            settings = settings.model_copy(update={"max_connections": fitting})
        return_large_blocks()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        return _serve(settings)
    except StartupError as error:
        print(f"parseq-serve: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_STARTUP_FAILED


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """`main`, and then the end of the process, whatever its threads are at.

    Python would take itself apart while a self-check or a lane that was given up may still be in ONNX Runtime: coming back from
    there to no interpreter, the thread aborts the process, and a clean stop ends with SIGABRT.
    """
    code = main(argv)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody may be there to read it
            stream.flush()
    os._exit(code)


def _parse(argv: Sequence[str] | None) -> dict[str, str]:
    parser = argparse.ArgumentParser(
        prog="parseq-serve",
        description="Serve artifacts of parseq-export over HTTP. Every setting can be given in the environment "
        "(PARSEQ_PORT and so on, see docs/configuration.md); these options win over it.",
    )
    parser.add_argument("--host", help="address to listen on (PARSEQ_HOST, default 127.0.0.1)")
    parser.add_argument("--port", help="TCP port to listen on, 0 for a free one (PARSEQ_PORT, default 8000)")
    parser.add_argument("--artifact", metavar="FILE", help="the .onnx to serve, or several (PARSEQ_ARTIFACT, default: bundled)")
    return {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}


def _serve(settings: Settings) -> int:
    if settings.grpc_port:
        _check_grpc(settings)
    find = partial(model_sources, settings, load_artifact)
    entries = [ModelEntry(source.open(None, cpu_budget()), source) for source in find()]
    failures: list[str] = []
    illnesses: list[str] = []

    def stop_for(reasons: list[str], reason: str) -> None:
        reasons.append(reason)
        server.should_exit = True

    tracing = open_tracing(os.environ, __version__)
    runtime = Runtime(settings, entries, partial(stop_for, failures), partial(stop_for, illnesses), find=find, tracing=tracing)
    listener = _listen(settings.host, settings.port)
    server = Server(_uvicorn_config(settings, runtime), runtime)
    host, port = listener.getsockname()[:2]
    logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    _handle_signals(server, runtime)
    server.run(sockets=[listener])
    if failures:
        raise StartupError(f"{settings.artifact}: {failures[0]}")
    if illnesses:
        # An orderly end would wait for whatever hangs.
        print(f"parseq-serve: ended, to be restarted: {illnesses[0]}", file=sys.stderr, flush=True)
        os._exit(EXIT_UNHEALTHY)
    return EXIT_FORCED if server.force_exit else EXIT_OK


def _handle_signals(server: Server, runtime: Runtime) -> None:
    """Exit with 0 on SIGTERM and SIGINT, and reload the artifacts on SIGHUP, even if it came earlier.

    uvicorn has handlers of its own while it runs. At its end it raises the signal that stopped it again, for the handlers that
    it found: the default ones would turn a clean stop into a kill.
    """

    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if hasattr(signal, "SIGHUP"):  # not on Windows
        signal.signal(signal.SIGHUP, lambda _signal, _frame: runtime.ask_to_reload())
    if early_signals.release():
        runtime.ask_to_reload()


def _listen(host: str, port: int, cure: str = "PARSEQ_PORT, or --host and --port") -> socket.socket:
    """A listening socket; bound here, so that a port in use is reported in one clear line.

    The unspecified IPv6 address (`::`) means all addresses, those of IPv4 too where the system can do both with one socket.

    Raises:
        StartupError: The address cannot be resolved or bound.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise StartupError(
            f"cannot listen on {host} port {port} ({error.strerror or error}): set PARSEQ_HOST and {cure}"
        ) from error


def _check_grpc(settings: Settings) -> None:
    """See to it that what would end the start later is told at once, in one line."""
    try:
        import service.grpc.server  # noqa: F401
    except ModuleNotFoundError as error:
        raise StartupError(
            f"PARSEQ_GRPC_PORT={settings.grpc_port} needs the package {error.name}: install the extra `grpc` "
            "(pip install 'parseq-service[grpc]'), or set it to 0"
        ) from error
    _listen(settings.host, settings.grpc_port, "PARSEQ_GRPC_PORT").close()  # gRPC binds it anew, by itself


def _uvicorn_config(settings: Settings, runtime: Runtime) -> uvicorn.Config:
    app = App(runtime)
    n_grpc = max(1, settings.max_connections // GRPC_SHARE) if settings.grpc_port else 0
    n_http = max(1, settings.max_connections - n_grpc)
    protocol = protocol_for(
        settings.model_copy(update={"max_connections": n_http}), runtime.metrics, app.problems, app.addresses
    )
    if n_grpc:
        from service.grpc.server import GrpcServer

        limited = settings.model_copy(update={"max_connections": n_grpc})
        app.companions.append(GrpcServer(app, runtime, limited, protocol.shared.budget))
    return uvicorn.Config(
        app,
        loop="auto" if sys.platform == "win32" else "uvloop",  # no uvloop on Windows
        http=protocol,
        log_config=None,
        log_level="warning",
        access_log=False,
        ws="none",
        lifespan="on",
        server_header=False,
        proxy_headers=False,  # `ClientAddresses` reads the header itself
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.drain_timeout_s,
    )


if __name__ == "__main__":
    run()
