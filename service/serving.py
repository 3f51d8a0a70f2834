"""The HTTP server of one process: what it listens on, how uvicorn is set up, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
from types import FrameType
from typing import Final

import uvicorn

from service.config import Settings
from service.core.host import Host, Tally
from service.errors import StartupError
from service.http.app import App
from service.http.connection.protocol import protocol_for
from service.process.heap import return_large_blocks
from service.process.request import outside_requests

SWITCH_INTERVAL_S: Final = 0.0005
"""How long the thread that serves HTTP may wait for one that decodes images to pause. With Python's own 5 ms, a single crop
waits for each bit of another request's work; 0.5 ms costs no throughput."""
BACKLOG: Final = 2048
LOOK_EVERY_S: Final = 0.1
"""Whether the drain is over or was told to end; as uvicorn does."""
GRPC_SHARE: Final = 4
"""One part in so many of the connections is for gRPC, which makes few: a client's calls share one."""

logger = logging.getLogger(__package__)


class Server(uvicorn.Server):
    """uvicorn, with readiness turned off the moment a signal asks it to stop; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, runtime: Host) -> None:
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


def prepare_process() -> None:
    """Set what holds for a whole process that serves HTTP. To be called once all is imported, before a model is loaded."""
    return_large_blocks()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # What is imported stays to the end. Looking through all of it again, as each full collection does, held up every request
    # for 50 to 65 ms, and that several times a minute under load. Models come later: those that are replaced are collected.
    gc.collect()
    gc.freeze()


def listen(host: str, port: int, cure: str = "PARSEQ_PORT, or --host and --port", *, shared: bool = False) -> socket.socket:
    """A listening socket; bound here, so that a port in use is reported in one clear line.

    Args:
        host: Name or address.
        port: 0: a free one.
        cure: What to set otherwise, for the message.
        shared: Whether further sockets may listen at the same port (SO_REUSEPORT); connections are divided among them.

    The unspecified IPv6 address (`::`) means all addresses, those of IPv4 too where the system can do both with one socket.

    Raises:
        StartupError: The address cannot be resolved or bound.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both, reuse_port=shared)
    except OSError as error:
        raise StartupError(
            f"cannot listen on {host} port {port} ({error.strerror or error}): set PARSEQ_HOST and {cure}"
        ) from error


def uvicorn_config(settings: Settings, runtime: Host, tallies: tuple[Tally, Tally] | None = None) -> uvicorn.Config:
    """How uvicorn serves the app.

    Args:
        settings: Of the service.
        runtime: Has the models; its lifecycle is the app's.
        tallies: Of connections, and of bytes of bodies, where the limits are on the sums over several processes.
    """
    app = App(runtime)
    n_grpc = max(1, settings.max_connections // GRPC_SHARE) if settings.grpc_port else 0
    n_http = max(1, settings.max_connections - n_grpc)
    protocol = protocol_for(
        settings.model_copy(update={"max_connections": n_http}),
        runtime.metrics,
        app.problems,
        app.addresses,
        app.refuse,
        tallies,
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
