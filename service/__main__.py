"""`parseq-serve`: read the settings, load the artifact, serve until told to stop."""

from __future__ import annotations

from service.process import early_signals

if __name__ == "__main__":  # `service.entry` does it for the console script
    early_signals.hold()

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NoReturn

from service import __version__
from service.config import Settings, doubts, env_name, load_settings
from service.core.catalogue import model_sources
from service.core.models import ModelEntry, ModelSource
from service.core.runtime import Runtime
from service.ending import Reasons, handle_signals, log_address
from service.errors import StartupError
from service.pod_serving import front_processes, serve_pod
from service.process.cpu import cpu_budget
from service.process.logs import configure_logging
from service.process.open_files import allow_connections, connections_within, max_open_files
from service.serving import Server, listen, prepare_process, uvicorn_config
from service.sessions.artifact import load_artifact
from service.tracing.tracing import open_tracing

EXIT_STARTUP_FAILED: Final = 3

logger = logging.getLogger(__package__)


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
    n_fronts = front_processes(settings, entries[0].artifact.provider, cpu_budget())
    return _serve_alone(settings, entries, find) if n_fronts == 1 else serve_pod(settings, entries, n_fronts, load_artifact)


def _serve_alone(settings: Settings, entries: Sequence[ModelEntry], find: Callable[[], Sequence[ModelSource]]) -> int:
    def end(*_signal: object) -> None:
        server.should_exit = True

    reasons = Reasons(end)
    tracing = open_tracing(os.environ, __version__)
    runtime = Runtime(settings, entries, reasons.failed, reasons.ill, find=find, tracing=tracing)
    listener = listen(settings.host, settings.port)
    server = Server(uvicorn_config(settings, runtime), runtime)
    log_address(listener)
    handle_signals(end, runtime)
    server.run(sockets=[listener])
    return reasons.exit_code(settings, server.force_exit)


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
