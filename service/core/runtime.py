"""What lives as long as the app: the served models, the decode pool, the metrics, and whether the server is ready."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Final

from service.config import Settings
from service.core.metrics import Metrics
from service.core.models import ModelEntry, Models, ModelSource
from service.core.served_model import ServedModel
from service.core.watchdog import Watchdog
from service.engine.types import Item
from service.errors import StartupError
from service.images.pool import DecodePool, decode_threads_for
from service.process.cpu import cpu_budget
from service.sessions.artifact import LoadedArtifact, load_artifact
from service.sessions.topology import Topology
from service.tracing.tracing import Tracing

logger = logging.getLogger(__name__)

MIN_ENGINE_STOP_S: Final = 1.0
"""How long engines may take to stop even when the drain has used up its time."""


@dataclass(slots=True)
class _Place:
    """The place of one model among those served; a reload puts a new model into it."""

    source: ModelSource
    model: ServedModel
    watch: asyncio.Task[None] | None = None

    def present(self) -> ServedModel:
        return self.model


class Runtime:
    """The lifecycle of the server: warm-up, drain, stop, reload, readiness. No request passes through it.

    Args:
        settings: Of the service.
        served: The model, or several, of which the first is the default.
        on_failure: Called when a warm-up fails, with one line; the server cannot become ready after it.
        on_unhealthy: Called once, when only a new process will help, with one line; the server is not alive after it.
        load: Opens the artifact of the settings for a reload, when `served` is a single model without a source.
        find: Finds the models to serve, for a reload. Default: those that are served at the beginning.
        budget: Cores this process may use. Default: as many as the system lets it.
        tracing: Ends with it; `None`: no request is traced.
        deliver: Takes items as they settle, from any thread, where they are not this process's requests'.

    Raises:
        StartupError: Two models have the same name, or the default one is not there.
    """

    def __init__(
        self,
        settings: Settings,
        served: LoadedArtifact | Sequence[ModelEntry],
        on_failure: Callable[[str], None] = logger.critical,
        on_unhealthy: Callable[[str], None] = logger.critical,
        load: Callable[[Settings, Topology | None, int], LoadedArtifact] = load_artifact,
        find: Callable[[], Sequence[ModelSource]] | None = None,
        budget: int | None = None,
        tracing: Tracing | None = None,
        deliver: Callable[[Sequence[Item]], None] | None = None,
    ) -> None:
        self.settings = settings
        self.changed: Callable[[], None] = _nobody
        """Called when what is served has changed, or whether it is; from any thread, also amid a signal."""
        self.others_ready: Callable[[], Awaitable[object]] | None = None
        """Waits for other processes without which nothing is served; it is ready after them."""
        self.metrics = Metrics()
        self.tracing = tracing
        if tracing is not None:
            tracing.count = self.metrics.spans_ended
        self._on_failure = on_failure
        self._on_unhealthy = on_unhealthy
        self._warm = False
        self._sick = False
        self._drain_started_s: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._warm_up: asyncio.Task[None] | None = None
        self._reload: asyncio.Task[None] | None = None
        self._reload_again = False
        self._budget = budget or cpu_budget()
        self._n_decode_threads = settings.decode_threads or decode_threads_for(self._budget)
        self._decode_pool = DecodePool(self._n_decode_threads)
        self._deliver = deliver or self._settle_on_loop
        if isinstance(served, LoadedArtifact):
            served = [ModelEntry(served, ModelSource(partial(load, settings)))]
        self._places = [_Place(entry.source, self._serve(entry.source, entry.artifact)) for entry in served]
        self._find = find or [entry.source for entry in served].copy
        self.models: Models[ServedModel] = Models([place.model for place in self._places])
        if settings.default_model and self.models.get(settings.default_model) is not self.models.default:
            names = self.models.spoken_names()
            raise StartupError(f"PARSEQ_DEFAULT_MODEL={settings.default_model} is none of the models, which are {names}")
        self.metrics.watch_engines(lambda: [model.engine for model in self.models])
        self.metrics.watch_decoding(self._decode_pool.waiting)
        self.metrics.ready.set_function(lambda: float(self.ready))
        self.metrics.show_models(model.labels() for model in self.models)

    @property
    def ready(self) -> bool:
        """Whether requests are accepted: all models warmed up, not draining, and healthy."""
        return self._warm and self._drain_started_s is None and self.alive

    @property
    def alive(self) -> bool:
        """Whether the process can still do its work, now or after warm-up."""
        return not self._sick and all(model.engine.alive for model in self.models)

    def start(self) -> None:
        """Begin the warm-up; ready when it is over. On the event loop."""
        self._loop = asyncio.get_running_loop()
        self._warm_up = self._begin(self._become_ready())

    async def stop(self) -> None:
        """Turn readiness off, run what was admitted, and end the threads."""
        drain_started_s = self.drain()
        logger.info("stopping; %d crops wait", sum(model.engine.depth for model in self.models))
        await self.warmed_up()
        if self._reload is not None:
            await asyncio.wait((self._reload,))
        # The server has waited for its connections since the drain began; what is left of the time is the engines'.
        left_s = max(MIN_ENGINE_STOP_S, drain_started_s + self.settings.drain_timeout_s - time.monotonic())
        stopped = await asyncio.gather(*(asyncio.to_thread(model.engine.stop, left_s) for model in self.models))
        drained = all(stopped)
        for task in self._tasks:
            task.cancel()
        self._decode_pool.stop(wait=drained)
        if not drained:
            logger.error("inference did not end within PARSEQ_DRAIN_TIMEOUT_S")
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.stop, drain_started_s + self.settings.drain_timeout_s - time.monotonic())
        logger.info("stopped")

    async def warmed_up(self) -> None:
        """Wait until the warm-up is over, successful or not."""
        if self._warm_up is not None:
            await asyncio.wait((self._warm_up,))

    def drain(self) -> float:
        """Turn readiness off; requests in flight go on. Returns when that began, on the monotonic clock."""
        if self._drain_started_s is None:
            self._drain_started_s = time.monotonic()
            self.changed()
        return self._drain_started_s

    def ask_to_reload(self) -> None:
        """Reload soon. For signal handlers: they run amid some request, so the reload gets a context of its own."""
        if self._loop is None:
            self._reload_again = True
            return
        with contextlib.suppress(RuntimeError):  # the event loop is closed: the server has stopped
            self._loop.call_soon_threadsafe(self.reload, context=Context())

    def reload(self) -> None:
        """Begin to serve the artifact files as they are now. Each model serves until its successor is warm, or on if it fails.

        To be called on the event loop. If a warm-up or reload is under way, another reload follows it, since the files may have
        changed after they were read. A server that is stopping does nothing.
        """
        if not self._warm and self._drain_started_s is None:
            self._reload_again = True
        elif not self.ready:
            logger.warning("not reloading: the server is not ready")
        elif self._reload is not None and not self._reload.done():
            self._reload_again = True
        else:
            self._reload = self._begin(self._replace_models())

    def describe(self, models: Iterable[ServedModel] | None = None) -> str:
        """The models, or some of them, and how they are run, in one line."""
        described = "; ".join(model.describe() for model in models or self.models)
        return f"{described}, {self._n_decode_threads} decode threads"

    async def scrape(self, openmetrics: bool) -> bytes:
        """The metrics, in the text format or as OpenMetrics."""
        return self.metrics.render_openmetrics() if openmetrics else self.metrics.render()

    def _show_models(self) -> None:
        self.metrics.show_models(model.labels() for model in self.models)
        self.changed()

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, context=Context())  # log lines name no request
        self._tasks.add(task)  # the loop alone would not keep it
        task.add_done_callback(self._tasks.discard)
        return task

    def _serve(self, source: ModelSource, artifact: LoadedArtifact) -> ServedModel:
        settings, pool, metrics = self.settings, self._decode_pool, self.metrics
        return ServedModel(settings, artifact, pool, metrics, self._deliver, source.name, source.aliases)

    async def _become_ready(self) -> None:
        started_s = time.monotonic()
        for model in self.models:
            try:
                await asyncio.to_thread(model.warm_up)
            except Exception as error:
                which = f"model {model.name}: " if len(self.models) > 1 else ""
                self._on_failure(f"{which}the artifact failed its warm-up: {type(error).__name__}: {str(error)[:300]}")
                return
        self.metrics.show_models(model.labels() for model in self.models)  # now with the largest batch worth running
        if self.others_ready is not None:
            await self.others_ready()
        self._decode_pool.start()
        for model in self.models:
            model.engine.start()
        self._warm = True
        self.changed()
        logger.info("ready after %.1f s of warm-up: %s", time.monotonic() - started_s, self.describe())
        for place in self._places:
            self._watch(place)
        if self._reload_again:
            self.reload()

    def _watch(self, place: _Place) -> None:
        settings = self.settings
        dog = Watchdog(place.present, settings.self_check_interval_s, settings.stuck_after_s, self.metrics, self._give_up)
        place.watch = self._begin(dog.watch())

    async def _replace_models(self) -> None:
        self._reload_again = True
        while self._reload_again and self.ready:
            self._reload_again = False
            try:
                sources = await asyncio.to_thread(self._find)
            except Exception as error:
                self._reload_failed(error, "the models stay as they are")
                continue
            # One after the other, so that no more than one model is in memory twice.
            renewed = [await self._renew(source) for source in sources]
            if all(renewed):  # else a model that is to go may be needed in place of one that failed
                await self._keep([source.key for source in sources])

    async def _renew(self, source: ModelSource) -> bool:
        """Serve a model as its file is now, in place of the version served so far, if any; returns whether that was done."""
        place = next((place for place in self._places if place.source.key == source.key), None)
        try:
            new = await asyncio.to_thread(self._warm_model, source, place.model if place else self.models.default)
            # Requests are admitted on this event loop, so none comes before the engine runs.
            self.models.serve([*(new if each is place else each.model for each in self._places), *([] if place else [new])])
        except Exception as error:
            which = f"the model of {source.key}: " if source.name else ""
            self._reload_failed(error, f"{which}the artifact was not reloaded, the one before goes on")
            return False
        new.engine.start()
        if place is None:
            place, old = _Place(source, new), None
            self._places.append(place)
            self._watch(place)
        else:
            place.source, place.model, old = source, new, place.model
        self._show_models()
        self.metrics.reloaded(succeeded=True)
        logger.info("reloaded: %s", self.describe([new]))
        if old is not None:
            await self._retire(old)
        return True

    async def _keep(self, keys: Sequence[Hashable]) -> None:
        """Serve only the models of these keys from now on, in this order."""
        by_key = {place.source.key: place for place in self._places}
        gone = [place for place in self._places if place.source.key not in keys]
        self._places = [by_key[key] for key in keys]
        self.models.serve([place.model for place in self._places])
        self._show_models()
        for place in gone:
            logger.info("not served any more: model %s", place.model.name)
            if place.watch is not None:
                place.watch.cancel()
            await self._retire(place.model)

    async def _retire(self, old: ServedModel) -> None:
        """End a model that new requests do not find any more, once its earlier requests have been answered."""
        answer_s = self.settings.batch_timeout_ms / 1000
        await old.until_unused(self.settings.receive_timeout_s + answer_s)
        if not await asyncio.to_thread(old.engine.stop, answer_s):
            logger.error("the model before did not end its work")

    def _reload_failed(self, error: Exception, consequence: str) -> None:
        self.metrics.reloaded(succeeded=False)
        reason = str(error) if isinstance(error, StartupError) else f"{type(error).__name__}: {str(error)[:300]}"
        logger.error("%s: %s", consequence, reason)

    def _warm_model(self, source: ModelSource, like: ServedModel) -> ServedModel:
        model = self._serve(source, source.open(like.artifact.topology, self._budget))
        model.warm_up()
        return model

    def _give_up(self, reason: str) -> None:
        if not self._sick:
            self._sick = True
            self.changed()
            self._on_unhealthy(reason)

    def _settle_on_loop(self, items: Sequence[Item]) -> None:
        """From any thread: tell the event loop which items are settled, one wake-up for all of them."""
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(_settle_all, items)
        except RuntimeError:
            # The loop is closed: the server was forced to stop, and whoever waited is gone.
            logger.warning("%d items were settled after the server stopped", len(items))


def _nobody() -> None:
    """Nobody wants to know."""


def _settle_all(items: Sequence[Item]) -> None:
    for item in items:
        item.on_settled(item)
