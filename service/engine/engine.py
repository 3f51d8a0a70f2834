"""Lanes: threads that take batches from the queue and run them.

A free lane runs at once what waits; while all lanes are busy, items accumulate. A batch is formed only when a lane
is free to run it (late binding), so the same code serves one big device and several cores.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence

from service.engine.admission import AdmissionState
from service.engine.cost import CostModel
from service.engine.runs import run_checked, run_with_checked, wanted_by
from service.engine.scheduler import EngineLimits, Scheduler
from service.engine.types import (
    Confidences,
    Crop,
    Decoding,
    EngineDownError,
    InferenceError,
    Item,
    Observer,
    Outcome,
    QueueFullError,
    Session,
    TokenIds,
)
from service.process.cpu import lower_priority

logger = logging.getLogger(__name__)


class Engine:
    """The engine of one session: `admit` reserves, `submit` queues a decoded crop, `deliver` hands out settled items.

    Args:
        session: Run from all lanes at once.
        cost: How long its runs take; every run corrects it.
        limits: Lanes, the bounds of the queue, and the budgets of admission.
        deliver: Takes items as they settle, from any thread; it must not block.
        observer: Told what happens, for metrics.
        decoding: Tells how long new requests wait to be decoded; `None`: not at all.
        alone: Session for an item that is the only one in the engine; `None`: `session` runs it too.
        clock: Monotonic clock in seconds.
        lane_niceness: By how much lanes give way to other threads when all want a core, as `nice` counts it.
    """

    def __init__(
        self,
        session: Session,
        cost: CostModel,
        limits: EngineLimits,
        *,
        deliver: Callable[[Sequence[Item]], None],
        observer: Observer,
        decoding: Decoding | None = None,
        alone: Session | None = None,
        clock: Callable[[], float] = time.monotonic,
        lane_niceness: int = 0,
    ) -> None:
        self._session = session
        self._alone = alone
        self._scheduler = Scheduler(cost, limits, decoding)
        self._deliver = deliver
        self._observer = observer
        self._clock = clock
        self._lane_niceness = lane_niceness
        self.changed: Callable[[], None] | None = None
        """Called by lanes when `admission_state` has changed and nothing is delivered."""
        self._condition = threading.Condition(threading.Lock())
        self._accepting = False
        self._running = False
        self._stopping = False
        self._idle_lanes = 0
        self._dead_lanes = 0
        self._run_started_s: dict[int, float] = {}
        """By lane: when its present run began."""
        self._threads = [
            threading.Thread(target=self._lane, name=f"lane-{index}", daemon=True) for index in range(limits.lanes)
        ]

    # -- What callers see -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the lanes and accept items."""
        self._accepting = self._running = True
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Refuse new items, run those admitted, end the lanes; whatever is left after `timeout_s` fails.

        Returns:
            Whether everything was drained in time.
        """
        with self._condition:
            self._accepting = False
            self._stopping = True
            self._condition.notify_all()
        end_s = self._clock() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, end_s - self._clock()))
        self._shut(EngineDownError("the engine stopped"))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def alive(self) -> bool:
        """Whether every lane that was started still runs."""
        return self._dead_lanes == 0

    @property
    def depth(self) -> int:
        """Items that wait for a lane."""
        return self._scheduler.waiting

    @property
    def in_flight(self) -> int:
        """Items being decoded, waiting or running."""
        return self._scheduler.in_flight

    @property
    def oldest_age_s(self) -> float:
        """Age of the item that has waited longest."""
        with self._condition:
            return self._scheduler.oldest_age_s(self._clock())

    @property
    def longest_run_s(self) -> float:
        """How long the oldest run that has not ended has lasted; 0 when no lane runs."""
        started_s = min(tuple(self._run_started_s.values()), default=None)
        return 0.0 if started_s is None else self._clock() - started_s

    @property
    def predicted_wait_s(self) -> float:
        """How long a request with one crop would wait for a lane if it came now."""
        with self._condition:
            return self._scheduler.predict(1, bulk=False).start_s

    def admission_state(self) -> AdmissionState | None:
        """What `admit` decides by now; `None`: it takes no items."""
        with self._condition:
            return self._scheduler.state() if self._accepting else None

    def admit(self, items: Sequence[Item]) -> None:
        """Let in all items of a request, or none. They have the same deadline and client, and are alike in `bulk`.

        Raises:
            QueueFullError: There is no room for all of them, or they would wait too long.
            EngineDownError: The engine is not running.
        """
        try:
            with self._condition:
                if not self._accepting:
                    raise EngineDownError("the engine takes no items")
                self._scheduler.admit(items, self._clock())
        except QueueFullError as error:
            self._observer.refused(len(items), error.refusal)
            raise
        self._observer.admitted(len(items))

    def refusal_of(self, n_items: int, bulk: bool, timeout_s: float, client: Hashable = None) -> QueueFullError | None:
        """Why `admit` would turn away such a request now; `None` where only `admit` can tell. Nothing is counted.

        Args:
            n_items: Its crops.
            bulk: Whether it has several.
            timeout_s: Seconds from now to its deadline.
            client: Whose request it is.
        """
        with self._condition:
            if not self._accepting:
                return None
            now_s = self._clock()
            return self._scheduler.refusal_of(n_items, bulk, now_s + timeout_s, now_s, client)

    def demote(self, item: Item) -> None:
        """Tell that the image of an admitted single crop will take long to decode, so that others need not wait for it."""
        with self._condition:
            self._scheduler.demote(item)

    def submit(self, item: Item, crop: Crop) -> None:
        """Queue the decoded crop of an admitted item."""
        with self._condition:
            if self._running:
                if self._scheduler.submit(item, crop, self._clock()):
                    # While stopping, the lanes wait for what is still being decoded: all must learn that it has come.
                    self._wake(len(self._threads) if self._stopping else 1)
                return
        self.fail(item, EngineDownError("the engine stopped"))

    def follow(self, leader: Item, followers: Sequence[Item]) -> None:
        """Queue further reads of an admitted item, with their crops, without admission: it would refuse a crop half-way.

        Newcomers wait for them, and the client's turns pay for them. Where the item has ended badly, they end as it did.
        """
        with self._condition:
            if self._running and leader.outcome in (None, Outcome.DONE):
                self._scheduler.follow(leader, followers, self._clock())
                self._wake(len(followers))
                return
        self._finish(followers, Outcome.FAILED, EngineDownError("the engine stopped, or the crop has ended"))

    def fail(self, item: Item, error: Exception) -> None:
        """End an admitted item that will never be submitted, because its image cannot be decoded."""
        self._finish([item], Outcome.FAILED, error)

    def abandon(self, items: Sequence[Item], outcome: Outcome) -> None:
        """End those of `items` that have not ended, and their followers, since nobody waits for them.

        Their slots are free, and none is delivered.
        """
        ended = self._settle(items, outcome)
        for item in items:
            if item.followers:
                self._settle(item.followers, outcome)
        if ended:
            self._observer.settled(outcome, len(ended))

    # -- What lanes do ----------------------------------------------------------------------------------------------

    def _lane(self) -> None:
        batch: list[Item] = []
        try:
            lower_priority(self._lane_niceness)
            while (work := self._next_batch()) is not None:
                batch, session = work
                self._run(batch, session)
        except BaseException:
            # Only a bug gets here. The lane is lost: turn liveness off before anyone is answered, and let nobody wait for it.
            with self._condition:
                self._dead_lanes += 1
                all_dead = self._dead_lanes == len(self._threads)
            logger.critical("an inference lane died", exc_info=True)
            if all_dead:
                self._shut(EngineDownError("all inference lanes are dead"))
            self._finish(batch, Outcome.FAILED, EngineDownError("the inference lane died"))

    def _next_batch(self) -> tuple[list[Item], Session] | None:
        """Wait for work and take it, with the session to run it; `None` when the engine stops and nothing waits."""
        while True:
            with self._condition:
                batch, expired, stop = self._take()
                alone = self._alone if self._alone is not None and self._scheduler.alone else None
            if expired:
                self._hand_out(expired, Outcome.EXPIRED)
            if batch:
                if self.changed is not None:
                    self.changed()
                return batch, self._session if alone is None else alone
            if stop:
                return None

    def _take(self) -> tuple[list[Item], list[Item], bool]:
        """One attempt at a batch, under the lock: the batch, what expired, whether to stop."""
        self._idle_lanes += 1
        try:
            while True:
                now_s = self._clock()
                hold_s = self._scheduler.hold_s(now_s, 0.0 if self._stopping else None)
                if hold_s == 0.0:
                    batch, expired = self._scheduler.take(now_s, self._idle_lanes)
                    if self._scheduler.waiting:
                        self._wake()  # an idle lane may not have heard of the rest
                    return batch, expired, False
                if hold_s is None and self._stopping and self._scheduler.decoding == 0:
                    return [], [], True
                self._condition.wait(hold_s)
        finally:
            self._idle_lanes -= 1

    def _wake(self, lanes: int = 1) -> None:
        if self._idle_lanes:
            self._condition.notify(lanes)

    def _run(self, batch: list[Item], session: Session) -> None:
        """Run a batch; when it fails, run its items one by one on the lanes' session, so that one poisoned crop fails alone."""
        try:
            self._attempt(batch, session)
        except Exception as error:
            if len(batch) == 1 and session is self._session:
                logger.exception("inference failed on a crop")
                self._finish(batch, Outcome.FAILED, InferenceError(type(error).__name__))
                return
            logger.warning("a batch of %d failed (%s), running its crops one by one", len(batch), error)
            for item in batch:
                if item.outcome is None:
                    with self._condition:
                        self._scheduler.began(1)
                    self._run([item], self._session)

    def _attempt(self, batch: list[Item], session: Session) -> None:
        started_s = self._clock()
        self._run_started_s[threading.get_ident()] = started_s
        usual = True
        for item in batch:
            item.queue_s, item.batch_size = started_s - item.enqueued_s, len(batch)
            if item.wants_top or item.allowed is not None:
                usual = False
        try:
            crops = [item.pixels for item in batch]
            if usual:
                token_ids, confidences = run_checked(session, crops)
            else:
                token_ids, confidences = self._run_with(batch, session, crops)
        except BaseException:
            with self._condition:
                self._scheduler.ran(len(batch))
            self._observer.batch_ran(len(batch), self._clock() - started_s, None)
            raise
        finally:
            del self._run_started_s[threading.get_ident()]
        duration_s = self._clock() - started_s
        for row, item in enumerate(batch):
            item.token_ids, item.confidences, item.inference_s = token_ids[row], confidences[row], duration_s
        with self._condition:
            # Before anyone is answered, so that a client that asks again at once finds the lane free. A run that had all cores
            # tells nothing about runs beside each other.
            self._scheduler.ran(len(batch), duration_s if session is self._session else None)
            settled = [item for item in batch if self._scheduler.settle(item, Outcome.DONE)]
        self._hand_out(settled, Outcome.DONE)
        if not settled and self.changed is not None:
            self.changed()
        exemplar = None
        for item in batch:
            exemplar = exemplar or item.exemplar
            self._observer.queue_waited(item.queue_s, item.exemplar)
        self._observer.batch_ran(len(batch), duration_s, exemplar)

    def _run_with(self, batch: list[Item], session: Session, crops: list[Crop]) -> tuple[TokenIds, Confidences]:
        """Run a batch in which an item wants more than the usual, and note the candidates of those that want them."""
        outputs = run_with_checked(session, crops, wanted_by(batch))
        for row, item in enumerate(batch):
            if item.wants_top and outputs.top_ids is not None and outputs.top_confidences is not None:
                item.top_ids, item.top_confidences = outputs.top_ids[row], outputs.top_confidences[row]
        return outputs.token_ids, outputs.confidences

    # -- Settling: once for each item, under the lock; handing out and counting outside it ----------------------------

    def _settle(self, items: Sequence[Item], outcome: Outcome, error: Exception | None = None) -> list[Item]:
        with self._condition:
            settled = [item for item in items if self._scheduler.settle(item, outcome, error)]
            if self._stopping:
                self._condition.notify_all()  # these may be the last ones the lanes were kept for
        return settled

    def _finish(self, items: Sequence[Item], outcome: Outcome, error: Exception | None = None) -> None:
        self._hand_out(self._settle(items, outcome, error), outcome)

    def _shut(self, error: Exception) -> None:
        """Accept nothing from now on, and fail all items that wait."""
        with self._condition:
            self._accepting = self._running = False
            waiting = self._scheduler.clear()
        self._finish(waiting, Outcome.FAILED, error)

    def _hand_out(self, items: Sequence[Item], outcome: Outcome) -> None:
        if items:
            n_crops = len(items)
            for item in items:
                n_crops -= item.is_follower
            if n_crops:
                self._observer.settled(outcome, n_crops)
            self._deliver(items)
