"""The metrics of several processes as those of one: counters and histograms are added up, gauges by a rule."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import Exemplar
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Sample

from service.core.metrics import AS_THEY_ARE

SUMMED_GAUGES: Final = frozenset(
    {
        "parseq_requests_in_flight",
        "parseq_connections",
        "parseq_body_bytes",
        "parseq_decode_waiting_images",
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
        "process_open_fds",
    }
)
"""Gauges of which each process has a part. Of any other the engine's process knows the whole."""
SUMMED_TYPES: Final = frozenset({"counter", "histogram"})
GATHER_S: Final = 1.0
"""How long processes have to tell what they have counted."""

Family = Sequence[Any]
"""Name, documentation, type, and samples: each a name, labels, a value and an exemplar (labels, value, time) or `None`."""


def snapshot(registry: CollectorRegistry) -> list[Family]:
    """What a front's registry has, ready for JSON: only what is added up."""
    return [_family(metric) for metric in registry.collect() if _is_summed(metric.name, metric.type)]


def _is_summed(name: str, type_: str) -> bool:
    return type_ in SUMMED_TYPES or name in SUMMED_GAUGES


def _family(metric: Metric) -> Family:
    samples = [
        [
            sample.name,
            dict(sample.labels),
            sample.value,
            None if sample.exemplar is None else [*sample.exemplar],
        ]
        for sample in metric.samples
    ]
    return [metric.name, metric.documentation, metric.type, samples]


@dataclass(slots=True, eq=False)
class Count:
    """What one process told last."""

    families: Sequence[Family] = ()


class Gathering:
    """The counts of all processes of a pod. On the event loop.

    Args:
        own: The registry of this process.
    """

    def __init__(self, own: CollectorRegistry) -> None:
        self._own = own
        self._fallen: list[Family] = []
        """Of processes that have ended: what was counted stays counted. Gauges end with their process."""
        self._numbers = itertools.count(1)
        self._waits: dict[int, tuple[set[Count], asyncio.Event]] = {}

    async def gather(self, ask: Callable[[int], Iterable[Count]]) -> None:
        """Wait for what others tell, but not for long: of one that tells nothing, what it told last counts.

        Args:
            ask: Asks others to tell what they have counted, with a number; returns theirs.
        """
        number, complete = next(self._numbers), asyncio.Event()
        if not (waits := set(ask(number))):
            return
        self._waits[number] = waits, complete
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(complete.wait(), GATHER_S)
        del self._waits[number]

    def told(self, count: Count, families: Sequence[Family], number: int) -> None:
        """A process tells what it has counted, as it was asked with this number."""
        count.families = families
        if number in self._waits:
            waits, complete = self._waits[number]
            waits.discard(count)
            if not waits:
                complete.set()

    def fallen(self, count: Count) -> None:
        """A process has ended."""
        counts = [family for family in count.families if family[2] in SUMMED_TYPES]
        merged: dict[str, _Merged] = {}
        for family in [*self._fallen, *counts]:
            merged.setdefault(family[0], _Merged(family)).add(family)
        self._fallen = [each.family() for each in merged.values()]
        for number in list(self._waits):
            self.told(count, count.families, number)

    def render(self, others: Iterable[Count], openmetrics: bool) -> bytes:
        """The exposition of this process, those that have ended, and these others."""
        return PodMetrics(self._own, [self._fallen, *(each.families for each in others)]).render(openmetrics)


class PodMetrics:
    """A registry, as far as expositions want one, of the engine's process and all others.

    Args:
        own: The registry of the engine's process.
        others: Of each other process its families.
    """

    def __init__(self, own: CollectorRegistry, others: Iterable[Sequence[Family]]) -> None:
        self._own = own
        self._others = others

    def collect(self) -> Iterator[Metric]:
        """The families, each once."""
        merged: dict[str, _Merged] = {}
        own = {metric.name: metric for metric in self._own.collect()}
        for families in self._others:
            for family in families:
                merged.setdefault(family[0], _Merged(family)).add(family)
        for name, metric in own.items():
            if name in merged:
                merged[name].add(_family(metric))
            else:
                yield metric
        for each in merged.values():
            yield each.metric()

    def render(self, as_openmetrics: bool) -> bytes:
        """The exposition."""
        if as_openmetrics:
            text: bytes = openmetrics.generate_latest(self, **AS_THEY_ARE)  # type: ignore[no-untyped-call]
            return text
        return generate_latest(self)


class _Merged:
    """One family of several processes."""

    def __init__(self, family: Family) -> None:
        self.name, self.documentation, self.type_, _ = family
        self._samples: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, Any]] = {}

    def add(self, family: Family) -> None:
        for name, labels, value, exemplar in family[3]:
            key = name, tuple(labels.items())
            known, known_exemplar = self._samples.get(key, (0.0, None))
            self._samples[key] = known + value, exemplar or known_exemplar

    def family(self) -> Family:
        samples = [[name, dict(labels), value, exemplar] for (name, labels), (value, exemplar) in self._samples.items()]
        return [self.name, self.documentation, self.type_, samples]

    def metric(self) -> Metric:
        metric = Metric(self.name, self.documentation, self.type_)
        for (name, labels), (value, exemplar) in self._in_order():
            metric.samples.append(Sample(name, dict(labels), value, None, None if exemplar is None else Exemplar(*exemplar)))
        return metric

    def _in_order(self) -> list[tuple[tuple[str, tuple[tuple[str, str], ...]], tuple[float, Any]]]:
        """Samples of the same series of labels beside each other, as OpenMetrics wants them."""
        groups: dict[tuple[tuple[str, str], ...], list[Any]] = {}
        for key, value in self._samples.items():
            groups.setdefault(tuple(label for label in key[1] if label[0] != "le"), []).append((key, value))
        return [each for group in groups.values() for each in group]
