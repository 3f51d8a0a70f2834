"""Names of metrics in expressions, and those that the service really has."""

from __future__ import annotations

import functools
import re

from service.core.metrics import Metrics

SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "info": ("_info",),
}


def metric_names(expression: str) -> set[str]:
    """The service's own metrics that an expression mentions."""
    without_strings = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    return set(re.findall(r"(?<![\w:])parseq_\w+", without_strings))


def unknown_metrics(expression: str) -> set[str]:
    """Those among them that `service/core/metrics.py` does not have."""
    return metric_names(expression) - known_metrics()


@functools.cache
def known_metrics() -> frozenset[str]:
    """Names of all samples, also of those that have none yet."""
    return frozenset(
        metric.name + suffix for metric in Metrics().registry.collect() for suffix in SUFFIXES.get(metric.type, ("",))
    )
