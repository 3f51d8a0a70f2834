"""What panels and their queries are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

WIDTH = 24
WHERE = 'job=~"$job", instance=~"$instance"'


@dataclass(frozen=True)
class Panel:
    """One panel.

    Args:
        title: Of the panel.
        description: What it shows, and what to read from it.
        unit: Of Grafana: `s`, `reqps`, `percentunit`, `short`, ...
        queries: Legend to PromQL.
        kind: Of Grafana: `timeseries`, `stat`, `heatmap` or `table`.
        width: Of 24.
        options: Anything else that the kind takes.
    """

    title: str
    description: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    options: dict[str, Any] = field(default_factory=dict)
    stacked: bool = False


def rate(metric: str, *matchers: str) -> str:
    """Per second, of each series."""
    return f"rate({metric}{{{', '.join((WHERE, *matchers))}}}[$__rate_interval])"


def total(metric: str, *matchers: str, by: str = "") -> str:
    """Per second, summed over the replicas."""
    return f"sum{f' by ({by})' if by else ''} ({rate(metric, *matchers)})"


def quantile(q: float, histogram: str) -> str:
    """A quantile over all replicas: of the sum of their buckets, not a mean of theirs."""
    return f"histogram_quantile({q}, {total(f'{histogram}_bucket', by='le')})"


def mean(histogram: str) -> str:
    """The mean of what a histogram saw."""
    return f"{total(f'{histogram}_sum')} / {total(f'{histogram}_count')}"


def gauge(metric: str, aggregate: str = "") -> str:
    """A value as it is, or one over all replicas."""
    return f"{aggregate}({metric}{{{WHERE}}})" if aggregate else f"{metric}{{{WHERE}}}"


def heatmap(title: str, description: str, unit: str, histogram: str) -> Panel:
    """A histogram over time."""
    increase = f"sum by (le) (increase({histogram}_bucket{{{WHERE}}}[$__rate_interval]))"
    options = {"calculate": False, "yAxis": {"unit": unit}, "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64}}
    return Panel(title, description, unit, {"{{le}}": increase}, "heatmap", options=options)


def stat(title: str, description: str, unit: str, query: str) -> Panel:
    """One number."""
    options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area", "colorMode": "none"}
    return Panel(title, description, unit, {title: query}, "stat", 4, 4, options)
