"""Why the queue is as it is: the service's own scheduler, cost model and admission, played through on a simulated clock.

python -m benchmarks.queue_simulation [--singles N]

Requests come at random (Poisson) or as soon as the last one is answered, runs take what a curve T(n) says and up to a tenth
more or less, and nothing else takes time: no HTTP, no decoding. The curves:

    nano    parseq-nano on two cores, two lanes: measured 411, 386 and 323 crops/s at batches of 1, 8 and 32
    tiny    parseq-tiny likewise: 92, 106 and 103 crops/s
    steep   no machine that was measured: one lane, 8 ms a run and 0.25 ms a crop, as where large batches pay

The policies: `late` is the service's. `window` collects: once a lane is free and a crop is there, it waits 5 or 10 ms, or until
the batch is full, at 8 crops or the cap if that is larger. `fifo` lets everybody in and gives every crop the same deadline, so
that they go in order of arrival. `whole` is `late` with runs of bulk as long as they like beside single crops. `open` is `late`
without admission.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np

from service.config import Settings
from service.engine.admission import Budgets
from service.engine.cost import CostModel
from service.engine.scheduler import BULK_STRETCH, UNBOUNDED, EngineLimits, Scheduler
from service.engine.types import Item, Outcome, QueueFullError

CROP: Final = np.zeros((1, 1, 3), np.uint8)
JITTER: Final = 0.1
MIN_WINDOW_BATCH: Final = 8
BULK_CROPS: Final = 32
OVERLOAD_S: Final = 6.0
DEFAULTS: Final = Settings.model_construct()
BUDGETS: Final = Budgets(DEFAULTS.max_queue_wait_ms / 1000, DEFAULTS.max_batch_queue_wait_ms / 1000)


@dataclass(frozen=True, slots=True)
class Machine:
    """Lanes, and seconds of a run by batch size while all of them run."""

    lanes: int
    curve_s: Mapping[int, float]

    @classmethod
    def from_rates(cls, lanes: int, crops_per_s: Mapping[int, float]) -> Machine:
        """From the throughput of all lanes together at some batch sizes."""
        return cls(lanes, {size: lanes * size / rate for size, rate in crops_per_s.items()})

    def cost(self) -> CostModel:
        """A cost model that knows the curve, for batches of up to 64."""
        model = CostModel(64)
        model.seed(self.curve_s)
        return model

    @property
    def saturation_per_s(self) -> float:
        """Crops per second when every lane runs batches at the cap."""
        model = self.cost()
        return self.lanes * model.cap / model.duration_s(model.cap)


MACHINES: Final = {
    "nano": Machine.from_rates(2, {1: 411, 8: 386, 32: 323}),
    "tiny": Machine.from_rates(2, {1: 92, 8: 106, 32: 103}),
    "steep": Machine(1, {size: 0.008 + 0.00025 * size for size in (1, 64)}),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What is compared."""

    window_s: float = 0.0
    fifo: bool = False
    bulk_stretch: float = BULK_STRETCH
    budgets: Budgets = BUDGETS


POLICIES: Final = {
    "late": Policy(),
    "window 5 ms": Policy(window_s=0.005),
    "window 10 ms": Policy(window_s=0.01),
    "fifo": Policy(fifo=True, budgets=UNBOUNDED),
    "whole": Policy(bulk_stretch=math.inf),
    "open": Policy(budgets=UNBOUNDED),
}


@dataclass
class Tally:
    """What became of the requests of one kind."""

    latencies_s: list[float] = field(default_factory=list)
    refused: int = 0
    expired: int = 0

    def percentile_s(self, percent: int) -> float:
        """Of the latencies of the requests that were answered."""
        return statistics.quantiles(self.latencies_s, n=100, method="inclusive")[percent - 1]


class Simulation:
    """One engine on a simulated clock: events in order of time, each a call."""

    def __init__(self, machine: Machine, policy: Policy, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.now_s = 0.0
        self.singles, self.bulk = Tally(), Tally()
        self._policy = policy
        self._truth = machine.cost()
        max_queue_items = 1_000_000 if policy.budgets is UNBOUNDED else DEFAULTS.max_queue_items
        limits = EngineLimits(machine.lanes, max_queue_items, budgets=policy.budgets, bulk_stretch=policy.bulk_stretch)
        cost = machine.cost()
        if policy.window_s:
            cost.cap = max(MIN_WINDOW_BATCH, cost.cap)
        self._scheduler = Scheduler(cost, limits)
        self._window_ends_s = math.inf
        self._idle_lanes = machine.lanes
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._n_events = 0

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        """Let something happen later."""
        self._n_events += 1
        heapq.heappush(self._events, (self.now_s + delay_s, self._n_events, event))

    def run(self, until_s: float = math.inf) -> None:
        """Play events through, those later than `until_s` not yet."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, event = heapq.heappop(self._events)
            event()

    def post(self, n_crops: int, answered: Callable[[bool], None] = lambda _let_in: None) -> None:
        """A request comes, and is decoded at once; `answered` hears later whether it was let in."""
        bulk = n_crops > 1
        tally, posted_s, left = (self.bulk if bulk else self.singles), self.now_s, n_crops

        def settled(item: Item) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                if item.outcome is Outcome.DONE:
                    tally.latencies_s.append(self.now_s - posted_s)
                else:
                    tally.expired += 1
                answered(True)

        items = [Item(self.now_s + self._timeout_s(bulk), settled, bulk and not self._policy.fifo) for _ in range(n_crops)]
        try:
            self._scheduler.admit(items, self.now_s)
        except QueueFullError as error:
            tally.refused += 1
            self.after(error.retry_after_s, lambda: answered(False))
            return
        for item in items:
            self._scheduler.submit(item, CROP, self.now_s)
        self._dispatch()

    def _timeout_s(self, bulk: bool) -> float:
        if self._policy.fifo or not bulk:
            return DEFAULTS.request_timeout_ms / 1000
        return DEFAULTS.batch_timeout_ms / 1000

    def singles_at(self, rate_per_s: float, n_singles: float, until_s: float = math.inf) -> None:
        """So many single crops at random moments."""
        if n_singles > 0 and self.now_s < until_s:
            self.post(1)
            gap_s = self.random.expovariate(rate_per_s)
            self.after(gap_s, lambda: self.singles_at(rate_per_s, n_singles - 1, until_s))

    def bulk_until(self, stop: Callable[[], bool]) -> None:
        """One client that posts the next request of 32 crops when the last one is answered."""
        if not stop():
            self.post(BULK_CROPS, lambda _let_in: self.bulk_until(stop))

    def _dispatch(self) -> None:
        while self._idle_lanes and self._scheduler.waiting and not self._collecting():
            batch, expired = self._scheduler.take(self.now_s, self._idle_lanes)
            for item in expired:
                item.on_settled(item)
            if batch:
                self._idle_lanes -= 1
                duration_s = self._truth.duration_s(len(batch)) * self.random.uniform(1 - JITTER, 1 + JITTER)
                self.after(duration_s, partial(self._end, batch, duration_s))

    def _collecting(self) -> bool:
        """Whether the policy holds a batch back for company."""
        if not self._policy.window_s:
            return False
        if self._window_ends_s == math.inf:
            self._window_ends_s = self.now_s + self._policy.window_s
            self.after(self._policy.window_s, self._dispatch)
        if self.now_s < self._window_ends_s and self._scheduler.waiting < self._scheduler.cost.cap:
            return True
        self._window_ends_s = math.inf
        return False

    def _end(self, batch: list[Item], duration_s: float) -> None:
        self._idle_lanes += 1
        self._scheduler.ran(len(batch), duration_s)
        for item in batch:
            if self._scheduler.settle(item, Outcome.DONE):
                item.on_settled(item)
        self._dispatch()


def singles_alone(machine: Machine, policy: Policy, load: float, n_singles: int) -> Simulation:
    """Single crops at a share of what the machine can read."""
    simulation = Simulation(machine, policy)
    simulation.singles_at(load * machine.saturation_per_s, n_singles)
    simulation.run()
    return simulation


def singles_beside_bulk(machine: Machine, policy: Policy, n_singles: int) -> Simulation:
    """Single crops at a tenth of saturation, beside two clients that always have a request of 32 crops in flight."""
    simulation = Simulation(machine, policy)
    simulation.singles_at(0.1 * machine.saturation_per_s, n_singles)
    for _ in range(2):
        simulation.bulk_until(lambda: len(simulation.singles.latencies_s) + simulation.singles.refused >= n_singles)
    simulation.run()
    return simulation


@dataclass(frozen=True, slots=True)
class Overload:
    """Single crops at four times what the machine can read, and afterwards one more."""

    simulation: Simulation
    goodput: float
    """Answers per second over saturation, while it lasts."""
    recovery_s: float
    """After its end, until one that is posted then, and again when refused, is answered."""


def overload(machine: Machine, policy: Policy) -> Overload:
    """Four times what the machine can read, for six seconds."""
    simulation = Simulation(machine, policy)
    simulation.singles_at(4 * machine.saturation_per_s, math.inf, OVERLOAD_S)
    simulation.run(OVERLOAD_S)
    goodput = len(simulation.singles.latencies_s) / OVERLOAD_S / machine.saturation_per_s
    answered_s: list[float] = []

    def probe(let_in: bool = False) -> None:
        if let_in:
            answered_s.append(simulation.now_s)
        else:
            simulation.post(1, probe)

    probe()
    simulation.run()
    return Overload(simulation, goodput, answered_s[0] - OVERLOAD_S)


def table(title: str, header: str, rows: list[str]) -> None:
    """Print one comparison."""
    print(f"\n{title}\n{header}\n{'-' * len(header)}")
    print("\n".join(rows))


def compare_windows(n_singles: int) -> None:
    """p50 and p99 of single crops at three loads."""
    rows = []
    for name, machine in MACHINES.items():
        for policy in ("late", "window 5 ms", "window 10 ms"):
            cells = []
            for load in (0.3, 0.7, 0.9):
                singles = singles_alone(machine, POLICIES[policy], load, n_singles).singles
                cells.append(f"{1000 * singles.percentile_s(50):9.1f} {1000 * singles.percentile_s(99):8.1f}")
            rows.append(f"{name:6} {policy:13}" + "".join(cells))
    table(
        "Single crops, Poisson: p50 and p99 in ms at a load of 0.3, 0.7 and 0.9",
        f"{'':20}{'0.3':>10}{'':8}{'0.7':>10}{'':8}{'0.9':>10}{'':8}",
        rows,
    )


def compare_mixed(n_singles: int) -> None:
    """Single crops beside bulk."""
    rows = []
    for name, machine in MACHINES.items():
        unloaded_s = machine.cost().duration_s(1)
        for policy in ("late", "whole", "fifo"):
            run = singles_beside_bulk(machine, POLICIES[policy], n_singles)
            p50_s, p99_s = run.singles.percentile_s(50), run.singles.percentile_s(99)
            crops_per_s = (BULK_CROPS * len(run.bulk.latencies_s) + len(run.singles.latencies_s)) / run.now_s
            cells = f"{1000 * p50_s:10.1f}{1000 * p99_s:10.1f}{p99_s / unloaded_s:10.1f}{run.singles.refused:9d}"
            throughput = crops_per_s / machine.saturation_per_s
            rows.append(f"{name:6} {policy:13}{cells}{1000 * run.bulk.percentile_s(50):10.0f}{throughput:11.2f}")
    table(
        "Single crops (a tenth of saturation) beside two streams of 32-crop requests",
        f"{'':20}{'p50 ms':>10}{'p99 ms':>10}{'/ alone':>10}{'refused':>9}{'bulk ms':>10}{'crops/sat.':>11}",
        rows,
    )


def compare_overload() -> None:
    """Four times saturation."""
    rows = []
    for name, machine in MACHINES.items():
        for policy in ("late", "open"):
            result = overload(machine, POLICIES[policy])
            singles = result.simulation.singles
            rows.append(
                f"{name:6} {policy:13}{1000 * singles.percentile_s(99):10.0f}{result.goodput:10.2f}{singles.refused:9d}"
                f"{singles.expired:9d}{1000 * result.recovery_s:13.0f}"
            )
    table(
        f"Single crops at 4x saturation for {OVERLOAD_S:.0f} s; the budget is {1000 * BUDGETS.single_s:.0f} ms",
        f"{'':20}{'p99 ms':>10}{'goodput':>10}{'refused':>9}{'expired':>9}{'recovery ms':>13}",
        rows,
    )


def main() -> None:
    """Print the comparisons."""
    parser = argparse.ArgumentParser(description="Play the queue through on a simulated clock.")
    parser.add_argument("--singles", type=int, default=4000, help="single crops in each run")
    n_singles = parser.parse_args().singles
    for name, machine in MACHINES.items():
        print(f"{name}: saturation {machine.saturation_per_s:.0f} crops/s at batches of {machine.cost().cap}")
    compare_windows(n_singles)
    compare_mixed(n_singles // 2)
    compare_overload()


if __name__ == "__main__":
    main()
