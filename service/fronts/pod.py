"""The engine's process of a pod: starts front processes, replaces those that die, and gathers what they count."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from prometheus_client import Counter, Gauge

from artifact.metadata import ArtifactMetadata
from service.config import Settings
from service.core.runtime import Runtime
from service.core.served_model import ServedModel
from service.engine.types import Item
from service.fronts import wire
from service.fronts.board import BOARD_BYTES, HEARTBEAT_S, MAX_MODELS, Board
from service.fronts.desk import Desk, FrontItem
from service.fronts.fork_server import Child, ForkServer
from service.fronts.pod_metrics import Count, Gathering
from service.fronts.slots import N_SLOTS, Slots, new_memory, slot_bytes_for
from service.fronts.wire import Wire

MAX_SILENT_BEATS: Final = 15
"""A front whose event loop shows no life during so many of the engine's heartbeats is replaced. Not a time: if all processes
were stopped for a while, none has failed."""
STARTS_BEATS: Final = 45
"""So many more while it starts."""
MAX_FAILED_STARTS: Final = 5
"""Fronts in a row that end before they serve: then a restart of the pod is all that may help."""
FORCED_S: Final = 3.0
"""How long fronts have to end when they are told not to wait for requests in flight."""
SPARE_S: Final = 5.0
"""How much longer than the drain a front may take to end."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Front:
    """A front process and what belongs to it."""

    child: Child | None
    """`None`: it has not come to life."""
    desk: Desk
    count: Count = field(default_factory=Count)
    beaten_s: float = 0.0
    """When it last showed that its event loop goes on; 0: not yet."""
    silent_beats: int = 0
    """Heartbeats of this process since it did."""

    def __str__(self) -> str:
        """For log lines."""
        return f"front process {0 if self.child is None else self.child.pid}"

    def kill(self) -> None:
        """End it at once."""
        if self.child is not None:
            self.child.kill()


class Pod:
    """The fronts of one runtime. All on its event loop, but for `deliver`.

    Args:
        settings: Of the service.
        runtime: Told to hand settled items to `deliver`.
        listeners: One for each front; they stay open here, so that who connects while a front is replaced need not try again.
        on_unhealthy: Called when only a new pod will help, with one line.
    """

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        listeners: Sequence[socket.socket],
        on_unhealthy: Callable[[str], None] = logger.critical,
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._listeners = listeners
        self._fronts: dict[int, _Front] = {}
        self._fork_server = ForkServer()
        self._board_memory = new_memory("parseq-board", BOARD_BYTES)
        self._board = Board(self._board_memory)
        self._numbers: dict[ServedModel, int] = {}
        """Of all models that a front may still use."""
        self._places: dict[int, int] = {}
        self._by_number: dict[int, ServedModel] = {}
        self._n_models = 0
        self._told: list[int] = []
        """The numbers of the models that fronts were told of last."""
        self._slot_bytes = slot_bytes_for(max(bytes_of_crop(model.metadata) for model in runtime.models))
        self._gathering = Gathering(runtime.metrics.registry)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed_starts = 0
        self._ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._all_serve = asyncio.Event()
        """Set when all fronts serve for the first time, or the pod ends before."""
        self._on_unhealthy = on_unhealthy
        metrics = runtime.metrics
        self._restarts = Counter(
            "parseq_front_restarts_total", "Front processes that ended and were replaced.", registry=metrics.registry
        )
        Gauge("parseq_front_processes", "Front processes that serve.", registry=metrics.registry).set_function(
            lambda: float(sum(front.desk.serving for front in self._fronts.values()))
        )

    # -- The life of the pod ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all fronts. On the event loop, after the runtime has started."""
        self._loop = asyncio.get_running_loop()
        self._runtime.changed = self._changed_somewhere
        self._runtime.others_ready = self._all_serve.wait
        self._update()
        for index in range(len(self._listeners)):
            self._keep(self._start_front(index))
        self._beat()

    def end(self, forced: bool) -> None:
        """Have the fronts answer what they have begun, or not even that, and end. On the event loop."""
        self._ending = True
        self._all_serve.set()
        self._update()
        for listener in self._listeners:
            listener.close()
        for front in self._fronts.values():
            front.desk.end.send(wire.control(end="forced" if forced else "drained"))
        if not self._fronts:
            self._ended.set()

    async def ended(self, forced: asyncio.Event) -> None:
        """Wait until all fronts have ended, after `end`; those that do not are killed."""
        waits = [asyncio.ensure_future(self._ended.wait()), asyncio.ensure_future(forced.wait())]
        try:
            patience_s = self._settings.drain_timeout_s + SPARE_S
            await asyncio.wait(waits, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if not self._ended.is_set() and forced.is_set():
                self.end(forced=True)
                await asyncio.wait(waits[:1], timeout=FORCED_S)
        finally:
            for wait in waits:
                wait.cancel()
        self.kill()

    def kill(self) -> None:
        """End all fronts at once."""
        self._ending = True
        for front in self._fronts.values():
            front.kill()
        self._fork_server.close()

    async def _start_front(self, index: int) -> None:
        ours, theirs = socket.socketpair()
        memory = new_memory(f"parseq-slots-{index}", N_SLOTS * self._slot_bytes)
        told = {
            "index": index,
            "fronts": len(self._listeners),
            "slot_bytes": self._slot_bytes,
            "settings": self._settings.model_dump(mode="json"),
        }
        with theirs:
            descriptors = [theirs.fileno(), memory, self._board_memory, self._listeners[index].fileno()]
            child = await self._fork_server.fork(told, descriptors)
        desk = Desk(index, Wire(ours), Slots(memory, self._slot_bytes), self)
        os.close(memory)
        self._fronts[index] = front = _Front(child, desk)
        desk.start()
        self._tell_models(desk)
        if child is None:
            self.front_gone(desk)
        elif self._ending:
            front.desk.end.send(wire.control(end="drained"))

    def front_gone(self, desk: Desk) -> None:
        """A front has ended, or is about to."""
        front = self._fronts.pop(desk.index, None)
        if front is None or front.desk is not desk:
            return
        desk.close()
        self._gathering.fallen(front.count)
        self._keep(self._replace(front))

    async def _replace(self, front: _Front) -> None:
        if front.child is not None:
            front.child.kill()  # it may hang without its connection
            await front.child.ended()
        self._board.clear_cell(front.desk.index)
        self._update()  # models that it was the last to use
        if self._ending:
            if not self._fronts:
                self._ended.set()
            return
        self._failed_starts = 0 if front.desk.serving else self._failed_starts + 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            self._on_unhealthy("front processes end as soon as they start")
            return
        logger.error("%s ended and is replaced", front)
        self._restarts.inc()
        await self._start_front(front.desk.index)

    # -- Models and readiness ---------------------------------------------------------------------------------------------

    def _changed_somewhere(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._update)

    def _update(self) -> None:
        """Tell the fronts what is served now."""
        served = list(self._runtime.models)
        for model in served:
            if model not in self._numbers:
                self._n_models += 1
                self._numbers[model] = self._n_models
                self._by_number[self._n_models] = model
                model.engine.changed = partial(self.touched, (self._n_models,))
                free = set(range(MAX_MODELS)) - set(self._places.values())
                self._places[self._n_models] = min(free, default=MAX_MODELS)
        for model, number in list(self._numbers.items()):
            if model not in served and not model.n_requests:
                del self._numbers[model], self._by_number[number], self._places[number]
        self.touched(self._by_number)
        self._tell_flags()
        told = [self._numbers[model] for model in served]
        if told != self._told:
            self._told = told
            for front in self._fronts.values():
                self._tell_models(front.desk)

    def _tell_models(self, desk: Desk) -> None:
        models = {self._numbers[model]: model for model in self._runtime.models}
        desk.knows(models)
        told = [
            {
                "number": number,
                "place": self._places[number],
                "name": model.name,
                "aliases": model.aliases,
                "version": model.version,
                "metadata": model.metadata.to_map(),
                "sha256": model.sha256,
                "provider": model.provider,
                "lanes": model.artifact.topology.lanes,
            }
            for number, model in models.items()
        ]
        desk.end.send(wire.control(models=told))

    def _tell_flags(self) -> None:
        self._board.tell_flags(self._runtime.ready, self._runtime.alive)

    def touched(self, models: Iterable[int]) -> None:
        """Publish what admission decides by, of these models."""
        for number in models:
            model, place = self._by_number.get(number), self._places.get(number, MAX_MODELS)
            if model is not None and place < MAX_MODELS:
                self._board.tell_state(place, model.engine.admission_state)

    def deliver(self, items: Sequence[Item]) -> None:
        """Send settled items to their fronts, from any thread."""
        desks: dict[Desk, list[FrontItem]] = {}
        for item in items:
            if isinstance(item, FrontItem):
                desks.setdefault(item.desk, []).append(item)
        if not self._runtime.alive:
            self._tell_flags()  # before anybody is answered
        # Also before: whoever asks again at once shall find the lane free.
        self.touched({item.model for of_desk in desks.values() for item in of_desk})
        for desk, of_desk in desks.items():
            desk.deliver(of_desk)

    def _beat(self) -> None:
        """Show that the event loop goes on, publish what time changes, and look after the fronts."""
        self._tell_flags()
        self.touched(self._by_number)
        for index, front in self._fronts.items():
            beaten_s = self._board.beaten_s(index)
            front.silent_beats = front.silent_beats + 1 if beaten_s == front.beaten_s else 0
            front.beaten_s = beaten_s
            if front.silent_beats > MAX_SILENT_BEATS + STARTS_BEATS * (not front.desk.serving):
                logger.error("%s has shown no life for %d s", front, front.silent_beats * HEARTBEAT_S)
                front.kill()
        asyncio.get_running_loop().call_later(HEARTBEAT_S, self._beat)

    # -- What fronts say --------------------------------------------------------------------------------------------------

    def front_says(self, desk: Desk, what: Mapping[str, Any]) -> None:
        """A rare matter."""
        front = self._fronts.get(desk.index)
        if front is None or front.desk is not desk:
            return
        if "serving" in what:
            desk.serving = True
            if sum(front.desk.serving for front in self._fronts.values()) == len(self._listeners):
                self._all_serve.set()
        elif "unused" in what:
            desk.forget(what["unused"])
            self._update()
        elif "last" in what:
            front.count.families = what["last"]
        elif "scrape" in what:
            front.count.families = what["families"]
            self._keep(self._scrape(front, what["scrape"], what["openmetrics"]))
        elif "snapshot" in what:
            self._gathering.told(front.count, what["families"], what["snapshot"])

    async def _scrape(self, asking: _Front, number: int, openmetrics: bool) -> None:
        """Answer the front that was asked for metrics with those of all."""

        def ask(gather: int) -> list[Count]:
            others = [front for front in self._fronts.values() if front is not asking and front.desk.serving]
            for front in others:
                front.desk.end.send(wire.control(snapshot=gather))
            return [front.count for front in others]

        await self._gathering.gather(ask)
        text = self._gathering.render([front.count for front in self._fronts.values()], openmetrics)
        asking.desk.end.send(wire.control(scraped=number, text=text.decode()))

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def bytes_of_crop(metadata: ArtifactMetadata) -> int:
    """What a crop of a model takes of a slot."""
    return 3 * metadata.image_height * metadata.image_width + len(metadata.vocabulary)
