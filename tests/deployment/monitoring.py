"""The PromQL of rules and dashboard, and what can be asked of it without evaluating it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
RULES = PROMETHEUS / "rules.yml"
GRAFANA = ROOT / "docker" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "parseq-service.json"
RUNBOOK = ROOT / "docs" / "runbook.md"

TARGET_LABELS = frozenset({"job", "instance"})
"""What Prometheus adds to every series that it scrapes."""
OPTIONAL = "DCGM_"
"""Metrics of NVIDIA's exporter, which a machine without a GPU has not."""

Series = dict[str, list[dict[str, str]]]
"""Name of a metric to the labels of each of its series."""


@dataclass(frozen=True)
class Query:
    """An expression, and where it stands."""

    place: str
    text: str

    @property
    def optional(self) -> bool:
        return OPTIONAL in self.text


def scrape_jobs() -> set[str | None]:
    return {job["job_name"] for job in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def rule_queries() -> list[Query]:
    return [Query(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]


def panels() -> list[dict[str, Any]]:
    """All panels but the rows themselves."""
    top = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for row in top for panel in (row, *row.get("panels", ())) if panel["type"] != "row"]


def dashboard_queries(rate_interval: str = "1m") -> list[Query]:
    """With the variables as they are when everything is chosen."""
    return [
        Query(f"panel {panel['title']!r}", substitute(target["expr"], rate_interval))
        for panel in panels()
        for target in panel["targets"]
    ]


def substitute(text: str, rate_interval: str) -> str:
    for variable, value in {"$__rate_interval": rate_interval, "$job": ".*", "$instance": ".*"}.items():
        text = text.replace(variable, value)
    assert "$" not in text, f"an unknown variable in {text}"
    return text


def series_of(exposition: str) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def complaints(query: Query, series: Series, recordings: set[str]) -> list[str]:
    """What an expression asks for that no scrape has."""
    found = []
    for node in _nodes(promql.parse(query.text)):
        if isinstance(node, promql.VectorSelector):
            found += _unknown(node, series, recordings)
        if isinstance(node, promql.AggregateExpr | promql.BinaryExpr):
            # A label to group or to match by must be on something below: else the sum is one, or nothing matches.
            missing = _grouping_labels(node) - _labels_below(node, series)
            found += [f"no series in it has the label {label}" for label in sorted(missing)]
    return [f"{query.place}: {complaint}" for complaint in found]


def output_labels(query: Query, series: Series) -> set[str]:
    """The labels that the result of an expression may have."""
    return _output_labels(promql.parse(query.text), series)


def _output_labels(node: Any, series: Series) -> set[str]:
    if isinstance(node, promql.AggregateExpr):
        return _grouping_labels(node)
    if isinstance(node, promql.BinaryExpr):
        return _output_labels(node.lhs, series) | _output_labels(node.rhs, series)
    if isinstance(node, promql.VectorSelector):
        return _labels_below(node, series)
    below = [getattr(node, name, None) for name in ("expr", "vector_selector", "vs")] + list(getattr(node, "args", None) or ())
    return set().union(*(_output_labels(child, series) for child in below if isinstance(child, promql.Expr)))


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for name in ("expr", "lhs", "rhs", "param", "vector_selector", "vs"):
        child = getattr(node, name, None)
        if isinstance(child, promql.Expr):
            yield from _nodes(child)
    for argument in getattr(node, "args", None) or ():
        yield from _nodes(argument)


def _unknown(selector: Any, series: Series, recordings: set[str]) -> list[str]:
    name, matchers = selector.name, selector.matchers.matchers
    jobs = scrape_jobs()
    found = [f"there is no job {matcher.value}" for matcher in matchers if matcher.name == "job" and not _in(matcher, jobs)]
    if name == "up" or name in recordings or name.startswith(OPTIONAL):
        return found + [f"{name} has no label {matcher.name}" for matcher in matchers if matcher.name not in TARGET_LABELS]
    if name not in series:
        return [*found, f"the service has no metric {name}"]
    own = [matcher for matcher in matchers if matcher.name not in TARGET_LABELS]
    if not any(all(_in(matcher, {labels.get(matcher.name)}) for matcher in own) for labels in series[name]):
        found.append(f"no series is like {selector}")
    return found


def _in(matcher: Any, values: Set[str | None]) -> bool:
    assert matcher.op in (promql.MatchOp.Equal, promql.MatchOp.Re), f"{matcher.op} is not understood by this check"
    pattern = matcher.value if matcher.op == promql.MatchOp.Re else re.escape(matcher.value)
    return any(value is not None and re.fullmatch(pattern, value) for value in values)


def _grouping_labels(node: Any) -> set[str]:
    modifier = node.modifier
    matching = modifier if isinstance(node, promql.AggregateExpr) else getattr(modifier, "matching", None)
    return set(matching.labels) if matching is not None else set()


def _labels_below(node: Any, series: Series) -> set[str]:
    names = {below.name for below in _nodes(node) if isinstance(below, promql.VectorSelector)}
    return TARGET_LABELS.union(*(labels for name in names for labels in series.get(name, ())))
