"""How the cores or devices are shared out: lanes, threads of a run, and the largest batch. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from service.config import Settings
from service.engine.cost import CostModel
from service.sessions.providers import GPU_PROVIDERS

CPU_MAX_BATCH_SIZE: Final = 32
GPU_MAX_BATCH_SIZE: Final = 64
"""The largest batch that is tried on a GPU, unless a setting says otherwise."""
DEFAULT_CPU_BATCH_SIZE: Final = 8
"""The largest batch on a CPU where nothing is measured."""
MAX_LANES_PER_DEVICE: Final = 2
"""A GPU runs one batch of a session at a time; a second one in flight is copied and decoded meanwhile."""
Origin = Literal["set", "measured", "kept", "usual"]
"""`usual`: it was measured, but beside so much other work that the measurement is not used."""
MIN_CPU_SHARE: Final = 0.8
"""Of the processor time that a sweep wanted; with less it measured the neighbours as well."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Lanes and threads that could be used together."""

    lanes: int
    intra_op_threads: int
    alone_threads: int = 0
    """Threads of a second session, for a run that has the engine to itself; 0: there is no such session."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one candidate was measured to do."""

    candidate: Candidate
    durations_s: dict[int, float]
    """Seconds of a run by batch size, with all lanes at work; at least one size."""
    cpu_share: float | None = None
    """Share of the time of its runs in which its threads had a processor; `None`: it is not known (lanes of several
    threads wait for each other, and so do very short runs)."""

    @property
    def is_crowded(self) -> bool:
        """Whether other work took the processors while this was measured, on a CPU."""
        return self.cpu_share is not None and self.cpu_share < MIN_CPU_SHARE

    def crops_per_s(self, size: int) -> float:
        """Crops a second of all lanes together, in batches of `size`."""
        return self.candidate.lanes * size / self.durations_s[size]

    @property
    def best_crops_per_s(self) -> float:
        """Crops a second at the best of the measured batch sizes."""
        return max(self.crops_per_s(size) for size in self.durations_s)

    @property
    def knee(self) -> int:
        """The largest batch worth running by the engine's cost model, rounded up to a measured size."""
        sizes = sorted(self.durations_s)
        cost = CostModel(sizes[-1])
        cost.seed(self.durations_s)
        return bucket_of(cost.cap, sizes)

    def describe(self) -> str:
        """The rates by batch size, in one line for the log."""
        rates = ", ".join(f"{self.crops_per_s(size):.0f} at {size}" for size in sorted(self.durations_s))
        return f"{self.candidate.lanes} lanes x {self.candidate.intra_op_threads} threads: crops/s {rates}; knee {self.knee}"


@dataclass(frozen=True, slots=True)
class Topology:
    """How the engine runs."""

    lanes: int
    """Runs in flight at once."""
    intra_op_threads: int
    """Threads of each run."""
    max_batch_size: int
    """Crops in a run, at most."""
    alone_threads: int = 0
    """Threads of a session for a crop that is the only one in the engine; 0: it runs as any other."""
    buckets: tuple[int, ...] = ()
    """Sizes that batches are padded to, ascending; none on a CPU."""
    durations_s: Mapping[int, float] = field(default_factory=dict)
    """Seconds of a run by batch size, measured with all lanes at work; empty when that was not measured."""
    origin: Origin = "set"

    @property
    def warm_up_sizes(self) -> tuple[int, ...]:
        """Batch sizes that are run before the first request: all buckets, or 1, 2, 4, ... up to the largest."""
        return self.buckets or sizes_up_to(self.max_batch_size)

    def padded(self, durations_s: Mapping[int, float]) -> Mapping[int, float]:
        """Seconds of a run by batch size, padding considered, from those of the buckets."""
        if not self.buckets:
            return durations_s
        return {n_crops: durations_s[bucket_of(n_crops, self.buckets)] for n_crops in range(1, self.max_batch_size + 1)}


def sizes_up_to(largest: int) -> tuple[int, ...]:
    """Powers of 2 below `largest`, and `largest` itself, ascending."""
    sizes = [1]
    while sizes[-1] < largest:
        sizes.append(min(2 * sizes[-1], largest))
    return tuple(sizes)


def bucket_of(n_crops: int, buckets: Sequence[int]) -> int:
    """The size a batch of `n_crops` is padded to: the smallest of the ascending `buckets` that holds it."""
    return buckets[bisect_left(buckets, n_crops)]


def largest_batch_size(settings: Settings, provider: str) -> int:
    """The largest batch that is tried."""
    return settings.max_batch_size or (GPU_MAX_BATCH_SIZE if provider in GPU_PROVIDERS else CPU_MAX_BATCH_SIZE)


def lane_candidates(settings: Settings, provider: str, budget: int, n_devices: int) -> list[Candidate]:
    """Combinations of lanes and threads worth measuring, the most likely first; only one when the settings leave no choice.

    Args:
        settings: Lanes and threads other than 0 are kept.
        provider: In use.
        budget: Cores this process may use.
        n_devices: GPUs in use.
    """
    if provider in GPU_PROVIDERS:
        lanes = [settings.lanes] if settings.lanes else [n_devices * n for n in range(1, MAX_LANES_PER_DEVICE + 1)]
        return [Candidate(n_lanes, settings.intra_op_threads or 1) for n_lanes in lanes]
    if settings.lanes:
        return [Candidate(settings.lanes, settings.intra_op_threads or max(1, budget // settings.lanes))]
    if settings.intra_op_threads:
        return [Candidate(max(1, budget // settings.intra_op_threads), settings.intra_op_threads)]
    threads = dict.fromkeys((1, 2 if budget >= 4 else 1, budget))
    return [Candidate(budget // n_threads, n_threads) for n_threads in threads]


def wide_candidate(options: Sequence[Candidate], provider: str) -> Candidate | None:
    """The one of several candidates that gives all cores to one run; `None` on a GPU, or if there is no choice."""
    if provider in GPU_PROVIDERS or len(options) == 1:
        return None
    return next(option for option in options if option.lanes == 1)


def plan_topology(
    settings: Settings,
    provider: str,
    budget: int,
    *,
    n_devices: int = 1,
    found: Sweep | None = None,
    origin: Origin = "set",
) -> Topology:
    """The topology that was measured to be best; without a measurement that of the settings, or the usual one.

    On a CPU one single-threaded lane for each core gives more crops per second, and each of them sooner, than one run with
    many threads; a GPU wants one or two runs at a time.

    Args:
        settings: Counts of 0 are settled here.
        provider: In use.
        budget: Cores this process may use.
        n_devices: GPUs in use.
        found: What was measured of the best candidate; default: the most likely one, not measured.
        origin: How it was found.
    """
    best = found.candidate if found else lane_candidates(settings, provider, budget, n_devices)[0]
    on_gpu = provider in GPU_PROVIDERS
    usual = found.knee if found else GPU_MAX_BATCH_SIZE if on_gpu else DEFAULT_CPU_BATCH_SIZE
    cap = settings.max_batch_size or usual
    return Topology(
        lanes=best.lanes,
        intra_op_threads=best.intra_op_threads,
        max_batch_size=cap,
        alone_threads=best.alone_threads,
        buckets=sizes_up_to(cap) if on_gpu else (),
        durations_s=found.durations_s if found else {},
        origin=origin,
    )
