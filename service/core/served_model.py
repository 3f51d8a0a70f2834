"""One artifact being served: its sessions, its engine, and what it must read on a known crop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from service.config import Settings
from service.core.metrics import Metrics
from service.core.models import Model
from service.core.recognizer import Recognizer
from service.engine.admission import Budgets
from service.engine.cost import CostModel
from service.engine.engine import Engine
from service.engine.scheduler import EngineLimits
from service.engine.types import Item, Session
from service.images.limits import ImageLimits
from service.images.pool import DecodePool
from service.sessions.artifact import LoadedArtifact
from service.sessions.devices import SpreadSession
from service.sessions.self_check import KnownAnswer, learned_answer
from service.sessions.session import warm_up
from service.sessions.topology import Origin

DESCRIPTION: Final = (
    "model {name} ({decode_mode}, {refine_iters} refinements, {precision}), provider {provider}, "
    "{lanes} lanes x {intra_op_threads} threads{alone}, batches of up to {max_batch_size} ({origin})"
)
ORIGINS: Final[Mapping[Origin, str]] = {
    "set": "set",
    "measured": "measured; a restart measures again",
    "kept": "kept; a restart measures again",
    "usual": "the usual ones, as the machine was busy; a restart measures again",
}
"""How lanes, threads and batches were found, for the log."""
LANE_NICENESS: Final = 10
"""When lanes compute on all cores they give way to the event loop; else all answers would wait for a core."""


class ServedModel(Model):
    """An artifact and the engine that runs it. A reload makes a new one; the old one still runs the crops it has admitted.

    Args:
        settings: Of the service.
        artifact: The model.
        decode_pool: Where images are decoded.
        metrics: Told what happens.
        deliver: Takes items as they settle, from any thread.
        name: What the model is called; `None`: as its artifact says.
        aliases: Other names that it answers to.
    """

    def __init__(
        self,
        settings: Settings,
        artifact: LoadedArtifact,
        decode_pool: DecodePool,
        metrics: Metrics,
        deliver: Callable[[Sequence[Item]], None],
        name: str | None = None,
        aliases: tuple[str, ...] = (),
    ) -> None:
        metadata = artifact.metadata
        super().__init__(name or metadata.model_name, aliases, artifact.version, metadata, artifact.sha256, artifact.provider)
        self.artifact = artifact
        topology = artifact.topology
        self.observer = metrics.observer(self.name, topology.buckets)
        tuned = bool(topology.durations_s) and not settings.max_batch_size
        self.cost = CostModel(topology.max_batch_size, capped_at_knee=tuned)
        limits = EngineLimits(
            lanes=topology.lanes,
            max_queue_items=settings.max_queue_items,
            max_queue_delay_s=settings.max_queue_delay_ms / 1000,
            budgets=Budgets(settings.max_queue_wait_ms / 1000, settings.max_batch_queue_wait_ms / 1000),
        )
        self.engine: Engine = Engine(
            artifact.session,
            self.cost,
            limits,
            deliver=deliver,
            observer=self.observer,
            decoding=decode_pool,
            lane_niceness=self._lane_niceness(),
            alone=artifact.alone,
        )
        self.recognizer = Recognizer(
            self.engine,
            artifact.metadata,
            decode_pool,
            image_limits=ImageLimits.of(settings),
            metrics=metrics,
            model=self.name,
            max_wait_s=limits.budgets.single_s,
            orientation=settings.orientation,
            min_confidence=settings.min_confidence,
        )
        self._known_answer: KnownAnswer | None = None

    def warm_up(self) -> None:
        """Run every session at every size, seed the cost model, and read the known crop. Before `engine.start`.

        Raises:
            WrongAnswerError: The model does not read what its exporter saw it read.
            Exception: Whatever a session raises.
        """
        metadata, topology = self.artifact.metadata, self.artifact.topology
        shape = (metadata.image_height, metadata.image_width)
        if self.artifact.alone is not None:
            warm_up([self.artifact.alone], *shape, (1,))
        self.cost.seed(self._run_times(warm_up(self._slots(), *shape, topology.warm_up_sizes)))
        self._known_answer = self.artifact.known_answer or learned_answer(metadata, self.artifact.session)
        for session in (*self._slots(), self.artifact.alone):
            if session is not None:
                self._known_answer.check(session)

    def check(self) -> None:
        """Read the known crop once more on every session, beside whatever runs.

        Raises:
            WrongAnswerError: It reads as another text.
            Exception: Whatever a session raises.
        """
        if self._known_answer is None:
            raise RuntimeError("the model has not been warmed up")
        # The lanes' session takes the slot that has been free for longest, so each slot has its turn.
        for _ in self._slots():
            self._known_answer.check(self.artifact.session)
        if self.artifact.alone is not None:
            self._known_answer.check(self.artifact.alone)

    def labels(self) -> dict[str, str]:
        """What the model is and how it is run, as the labels of the metric `parseq_model_info`."""
        metadata, topology = self.artifact.metadata, self.artifact.topology
        return {
            "name": self.name,
            "decode_mode": metadata.decode_mode,
            "refine_iters": str(metadata.refine_iters),
            "precision": metadata.precision,
            "weights_sha256": metadata.weights_sha256,
            "provider": self.artifact.provider,
            "lanes": str(topology.lanes),
            "intra_op_threads": str(topology.intra_op_threads),
            "alone_threads": str(topology.alone_threads),
            "max_batch_size": str(self.cost.cap),
        }

    def describe(self) -> str:
        """What the model is and how it is run, in one line for the log."""
        topology = self.artifact.topology
        alone = f" ({topology.alone_threads} for a crop that is alone)" if topology.alone_threads else ""
        return DESCRIPTION.format_map({**self.labels(), "alone": alone, "origin": ORIGINS[topology.origin]})

    def _slots(self) -> Sequence[Session]:
        session = self.artifact.session
        return session.slots if isinstance(session, SpreadSession) else (session,)

    def _run_times(self, warm_up_s: dict[int, float]) -> Mapping[int, float]:
        """Seconds of a run by batch size: from the sweep, which measured with all lanes at work, or else from the warm-up."""
        topology = self.artifact.topology
        known = topology.durations_s or warm_up_s
        if topology.buckets:
            known = {**warm_up_s, **known}  # a sweep that ended early has not seen all buckets
        return topology.padded(known)

    def _lane_niceness(self) -> int:
        # The threads that a session adds to a lane keep their priority, and a run waits for its slowest thread.
        return LANE_NICENESS if self.artifact.provider == "cpu" and self.artifact.topology.intra_op_threads == 1 else 0
