"""The gRPC server: where it listens, what it bounds, how it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import grpc
import grpc.aio

from service.config import Settings
from service.core.host import Host
from service.errors import StartupError
from service.grpc.arrivals import Arrivals
from service.grpc.health import Health
from service.grpc.messages import HEALTH_SERVICE, SERVICE
from service.grpc.service import InferenceService
from service.http.app import App
from service.http.connection.body_budget import BodyBudget

CALLS_SHARE: Final = 4
"""So many calls at once for each connection there may be, of all together. One connection may have all of them: where gRPC
holds it to fewer, what is beyond does not wait but fails, as `UNAVAILABLE`."""
PENDING_SHARE: Final = 4
"""So many times more have come and not been looked at; gRPC drops what is beyond, as `CANCELLED`, which should not be us."""
PING_EVERY_MS: Final = 60_000
"""To find out that a client is gone which did not say so."""
CLIENT_PINGS_EVERY_MS: Final = 10_000
"""As often a client may do the same."""

logger = logging.getLogger(__name__)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of the library is: not that a client has left in the moment of its answer, told with a traceback."""
    return record.exc_info is None or not isinstance(record.exc_info[1], grpc.aio.InternalError)


class GrpcServer:
    """Answers gRPC beside an app, with its gates and counters. On the event loop of the app, which starts and stops it.

    Args:
        app: That answers HTTP.
        runtime: Of the app.
        settings: Of the service; the connections are those of gRPC alone.
        budget: Of the bodies of requests, however they come.
    """

    def __init__(self, app: App, runtime: Host, settings: Settings, budget: BodyBudget) -> None:
        self._app = app
        self._runtime = runtime
        self._settings = settings
        self._budget = budget
        self._server: Any = None
        self._health: Health | None = None
        self._stopping: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            StartupError: The port is taken.
        """
        settings, runtime = self._settings, self._runtime
        most_calls = CALLS_SHARE * settings.max_connections
        arrivals = Arrivals(
            self._budget,
            settings.max_body_bytes,
            settings.receive_timeout_s,
            most_calls_of_one=most_calls // 2,
            end=grpc.aio.EOF,
        )
        service = InferenceService(
            self._app,
            runtime.models,
            runtime,
            arrivals,
            max_headers=settings.max_headers,
            max_crops=settings.max_crops_per_request,
        )
        self._health = Health(runtime, arrivals)
        server = grpc.aio.server(options=options_of(settings), maximum_concurrent_rpcs=most_calls)
        # To gRPC requests come one by one: so the gates are passed before a message is wanted.
        methods = {name: grpc.stream_unary_rpc_method_handler(method) for name, method in service.methods.items()}
        health = {
            "Check": grpc.stream_unary_rpc_method_handler(self._health.check),
            "Watch": grpc.stream_stream_rpc_method_handler(self._health.watch),
        }
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(SERVICE, methods),
                grpc.method_handlers_generic_handler(HEALTH_SERVICE, health),
            )
        )
        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)
        host, port = settings.host, settings.grpc_port
        try:
            server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError as error:
            raise StartupError(f"cannot listen for gRPC on {host} port {port}: set PARSEQ_GRPC_PORT") from error
        await server.start()
        self._server = server
        logger.info("listening for gRPC on %s port %d", host, port)

    async def stop(self) -> None:
        """Take no more calls, and wait for those in flight as long as the drain lasts; the rest are cancelled."""
        if self._server is None:
            return
        if self._stopping is None:
            assert self._health is not None
            self._health.end()
            self._stopping = asyncio.ensure_future(self._server.stop(self._settings.drain_timeout_s))
        await asyncio.shield(self._stopping)

    async def drop(self) -> None:
        """Cancel the calls in flight. Without it the library ends the process in its own way (SIGABRT)."""
        if self._server is not None:
            await self._server.stop(None)


def options_of(settings: Settings) -> list[tuple[str, int]]:
    """What bounds clients (github.com/grpc/grpc, include/grpc/impl/channel_arg_names.h)."""
    age_s = settings.grpc_connection_age_s
    answer_ms = 1000 * settings.receive_timeout_s + settings.batch_timeout_ms
    ages = {"max_connection_age_ms": round(1000 * age_s), "max_connection_age_grace_ms": round(answer_ms)} if age_s else {}
    n_pending = PENDING_SHARE * CALLS_SHARE * settings.max_connections
    options = {
        "so_reuseport": 0,  # else a second server would have half of the clients, and nobody would know
        "max_receive_message_length": settings.max_body_bytes,
        "max_send_message_length": -1,
        "max_metadata_size": settings.max_head_bytes,
        "absolute_max_metadata_size": settings.max_head_bytes,
        "max_allowed_incoming_connections": settings.max_connections,
        "server.max_pending_requests": n_pending,
        "server.max_pending_requests_hard_limit": n_pending,
        "max_connection_idle_ms": 1000 * settings.keep_alive_s,
        **ages,
        "server_handshake_timeout_ms": round(1000 * settings.receive_timeout_s),
        "keepalive_time_ms": PING_EVERY_MS,
        "keepalive_timeout_ms": round(1000 * settings.send_timeout_s),
        "keepalive_permit_without_calls": 1,
        "http2.min_ping_interval_without_data_ms": CLIENT_PINGS_EVERY_MS,
        # What is buffered of a message that nobody wants yet does not grow with the connection's speed.
        "http2.bdp_probe": 0,
    }
    return [(f"grpc.{name}", value) for name, value in options.items()]
