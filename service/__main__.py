"""`parseq-serve`: read the settings, load the artifact, serve until told to stop."""

from __future__ import annotations

from service.process import early_signals

if __name__ == "__main__":  # `service.entry` does it for the console script
    early_signals.hold()

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Final, NoReturn

from service import __version__
from service.config import Settings, doubts, env_name, load_settings
from service.core.catalogue import model_sources
from service.core.models import ModelEntry
from service.core.runtime import Runtime
from service.errors import StartupError
from service.process.cpu import cpu_budget
from service.process.logs import configure_logging
from service.process.open_files import allow_connections, connections_within, max_open_files
from service.serving import Server, listen, prepare_process, uvicorn_config
from service.sessions.artifact import load_artifact
from service.tracing.tracing import open_tracing

EXIT_OK: Final = 0
EXIT_FORCED: Final = 1
EXIT_STARTUP_FAILED: Final = 3
EXIT_UNHEALTHY: Final = 4

logger = logging.getLogger("service")


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
        prepare_process()
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
    listener = listen(settings.host, settings.port)
    server = Server(uvicorn_config(settings, runtime), runtime)
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


def _check_grpc(settings: Settings) -> None:
    """See to it that what would end the start later is told at once, in one line."""
    try:
        import service.grpc.server  # noqa: F401
    except ModuleNotFoundError as error:
        raise StartupError(
            f"PARSEQ_GRPC_PORT={settings.grpc_port} needs the package {error.name}: install the extra `grpc` "
            "(pip install 'parseq-service[grpc]'), or set it to 0"
        ) from error
    listen(settings.host, settings.grpc_port, "PARSEQ_GRPC_PORT").close()  # gRPC binds it anew, by itself


if __name__ == "__main__":
    run()
