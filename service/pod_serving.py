"""`parseq-serve` with several processes: this one has the models, and front processes (`service.front`) serve HTTP."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Sequence
from functools import partial
from types import FrameType
from typing import Final

import uvloop

from service.config import Settings
from service.core.catalogue import OpenArtifact, model_sources
from service.core.models import ModelEntry
from service.core.runtime import Runtime
from service.ending import Reasons, handle_signals, log_address
from service.engine.types import Item
from service.errors import StartupError
from service.fronts.pod import Pod, bytes_of_crop
from service.fronts.slots import slot_bytes_for
from service.http.gates.api_keys import ApiKeys
from service.process.request import outside_requests
from service.serving import listen
from service.sessions.artifact import LoadedArtifact
from service.sessions.providers import GPU_PROVIDERS
from service.sessions.topology import Topology

MAX_CHOSEN: Final = 4

logger = logging.getLogger(__package__)


def front_processes(settings: Settings, provider: str, budget: int) -> int:
    """How many processes serve HTTP; 1: the one that has the models.

    Args:
        settings: Of the service.
        provider: In use.
        budget: Cores the service may use.

    Raises:
        StartupError: There can be but one here.
    """
    linux = sys.platform == "linux"
    if settings.http_workers > 1 and not linux:
        raise StartupError(f"PARSEQ_HTTP_WORKERS={settings.http_workers} needs Linux: set it to 1")
    if settings.http_workers:
        return settings.http_workers
    # On a CPU the lanes want all cores; there, processes in front only add to what a request costs.
    return max(1, min(MAX_CHOSEN, budget // 2)) if provider in GPU_PROVIDERS and linux and not settings.grpc_port else 1


def serve_pod(settings: Settings, entries: Sequence[ModelEntry], n_fronts: int, load: OpenArtifact) -> int:
    """Serve with front processes; the exit code, as that of one process.

    Args:
        settings: Of the service.
        entries: The models.
        n_fronts: Processes that serve HTTP.
        load: Opens an artifact, for a reload.

    Raises:
        StartupError: The service could not start.
    """
    if settings.api_keys_file:
        ApiKeys(settings.api_keys_file)  # what would end the fronts is told at once, in one line
    slot_bytes = slot_bytes_for(max(bytes_of_crop(entry.artifact.metadata) for entry in entries))
    find = partial(model_sources, settings, partial(_load_fitting, load, slot_bytes))
    server = _PodServer()
    reasons = Reasons(server.ask_to_end)
    deliver = server.deliver
    runtime = Runtime(settings, entries, reasons.failed, reasons.ill, find=find, deliver=deliver)
    listeners = _listen_shared(settings, n_fronts)
    server.pod = Pod(settings, runtime, listeners, reasons.ill)
    log_address(listeners[0])
    handle_signals(server.told, runtime)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(runtime))
    return reasons.exit_code(settings, server.forced.is_set())


def _load_fitting(
    load: OpenArtifact, slot_bytes: int, settings: Settings, like: Topology | None, budget: int
) -> LoadedArtifact:
    artifact = load(settings, like, budget)
    if bytes_of_crop(artifact.metadata) > slot_bytes:
        raise StartupError(f"{settings.artifact}: its crops are larger than when the service started: restart it")
    return artifact


def _listen_shared(settings: Settings, n_sockets: int) -> list[socket.socket]:
    """Sockets at one port, among which the system divides new connections.

    Raises:
        StartupError: The address cannot be bound, or another service listens there.
    """
    listen(settings.host, settings.port).close()  # with a shared port, nobody would tell that it is in use
    first = listen(settings.host, settings.port, shared=True)
    port = first.getsockname()[1]
    return [first, *(listen(settings.host, port, shared=True) for _ in range(n_sockets - 1))]


class _PodServer:
    """The event loop of the engine's process."""

    def __init__(self) -> None:
        self.pod: Pod | None = None
        self.forced = asyncio.Event()
        self._told_to_end = asyncio.Event()
        self._runtime: Runtime | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def deliver(self, items: Sequence[Item]) -> None:
        """Hand settled items to the fronts."""
        if self.pod is not None:
            self.pod.deliver(items)

    def ask_to_end(self) -> None:
        """End soon. From any thread, also amid a signal."""
        if self._loop is None:
            self._told_to_end.set()
        else:
            self._loop.call_soon_threadsafe(self._told_to_end.set)

    def told(self, _signal: int, _frame: FrameType | None) -> None:
        """A signal asks to end; a second one, at once."""
        if self._runtime is not None:
            self._runtime.drain()
        if self._told_to_end.is_set() and self._loop is not None:
            outside_requests(logger.warning, "told to stop a second time: requests in flight are dropped")
            self._loop.call_soon_threadsafe(self.forced.set)
        self.ask_to_end()

    async def serve(self, runtime: Runtime) -> None:
        """Serve until told to end; then until all requests are answered, or their time is over."""
        if self.pod is None:
            raise RuntimeError("nothing to serve")
        self._loop, self._runtime = asyncio.get_running_loop(), runtime
        runtime.start()
        self.pod.start()
        await self._told_to_end.wait()
        runtime.drain()
        self.pod.end(forced=False)
        await self.pod.ended(self.forced)
        if not self.forced.is_set():
            await runtime.stop()
