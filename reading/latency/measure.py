"""Latencies, measured in turns."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Run = Callable[[], object]
Against = Literal["batch", "length"]


@dataclass(frozen=True, slots=True)
class Latency:
    """The latency of one subject at one batch size or label length."""

    subject: str
    against: Against
    value: int
    """Crops of the batch, or characters of the label."""
    ms: float
    """Median of a run."""
    crops_per_s: float


class Subject(Protocol):
    """Something whose latency can be measured."""

    name: str
    about: dict[str, object]
    """Versions and settings, for the report."""
    max_label_length: int

    def of_batch(self, size: int) -> Run:
        """A run of `size` drawn words."""

    def of_length(self, length: int) -> Run:
        """A run of one crop with a label of `length` characters."""


def measure(
    subjects: Sequence[Subject],
    batches: Sequence[int],
    lengths: Sequence[int],
    repeats: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> list[Latency]:
    """Median latencies of interleaved runs.

    Args:
        subjects: What to measure.
        batches: Batch sizes.
        lengths: Label lengths in characters; a subject skips those that it cannot read.
        repeats: Runs of each, after one that warms up.
        clock: Monotonic clock in seconds.
        progress: Called with the number of runs done and of all runs.
    """
    runs: dict[tuple[str, Against, int], Run] = {}
    for subject in subjects:
        runs |= {(subject.name, "batch", size): subject.of_batch(size) for size in batches}
        usable = [length for length in lengths if length <= subject.max_label_length]
        runs |= {(subject.name, "length", length): subject.of_length(length) for length in usable}
    seconds: dict[tuple[str, Against, int], list[float]] = {key: [] for key in runs}
    order, shuffle = list(runs), random.Random(0).shuffle
    total = (repeats + 1) * len(order)
    for number in range(repeats + 1):
        shuffle(order)
        for done, key in enumerate(order, start=1):
            started = clock()
            runs[key]()
            if number:
                seconds[key].append(clock() - started)
            progress(number * len(order) + done, total)
    found = []
    for key, values in seconds.items():
        median = statistics.median(values)
        found.append(Latency(*key, 1e3 * median, (key[2] if key[1] == "batch" else 1) / median))
    return found
