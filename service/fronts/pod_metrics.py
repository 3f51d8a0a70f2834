"""The metrics of several processes as those of one: counters and histograms are added up, gauges by a rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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


class Fallen:
    """The counts of processes that have ended: what was counted stays counted. Gauges end with their process."""

    def __init__(self) -> None:
        self.families: list[Family] = []

    def add(self, families: Iterable[Family]) -> None:
        """Keep the counts of one more."""
        counts = [family for family in families if family[2] in SUMMED_TYPES]
        merged: dict[str, _Merged] = {}
        for family in [*self.families, *counts]:
            merged.setdefault(family[0], _Merged(family)).add(family)
        self.families = [each.family() for each in merged.values()]


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
            metric.samples.append(Sample(name, _labels(labels), value, None, None if exemplar is None else Exemplar(*exemplar)))
        return metric

    def _in_order(self) -> list[tuple[tuple[str, tuple[tuple[str, str], ...]], tuple[float, Any]]]:
        """Samples of the same series of labels beside each other, as OpenMetrics wants them."""
        groups: dict[tuple[tuple[str, str], ...], list[Any]] = {}
        for key, value in self._samples.items():
            groups.setdefault(tuple(label for label in key[1] if label[0] != "le"), []).append((key, value))
        return [each for group in groups.values() for each in group]


def _labels(labels: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return dict(labels)
