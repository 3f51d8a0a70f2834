from __future__ import annotations

import re
from pathlib import Path

from service.core.metrics import Metrics
from service.errors import KINDS
from tests.fakes import toy_runtime

DOCS = Path(__file__).parents[2] / "docs"


def exposed() -> dict[str, tuple[str, frozenset[str], str]]:
    """Name, type, labels and help of each metric of an app in use."""
    metrics = toy_runtime().metrics
    metrics.request_duration.labels("200").observe(0.1)
    found = {}
    for family in metrics.registry.collect():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        if family.name.startswith("parseq_"):
            type_ = "gauge" if family.type == "info" else family.type
            found[family.name + suffix] = (type_, labels, family.documentation)
        else:
            assert family.name.startswith(("process_", "python_"))
    return found


def test_exactly_the_metrics_exposed_are_documented() -> None:
    rows = re.findall(r"^\| `(parseq_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", (DOCS / "metrics.md").read_text(), re.M)
    documented = {name: (type_, frozenset(re.findall(r"`(\w+)`", labels)), text) for name, type_, labels, text in rows}
    assert documented == exposed()
    assert len(rows) == len(documented)


def test_each_app_has_its_own_registry() -> None:
    one, other = Metrics(), Metrics()
    one.observer("toy").admitted(3)
    other.observer("toy")
    assert b'parseq_crops_admitted_total{model="toy"} 3.0' in one.render()
    assert b'parseq_crops_admitted_total{model="toy"} 0.0' in other.render()


def test_every_problem_has_its_series_from_the_start() -> None:
    """A series that begins at 1 has no rate: an alert would miss the first failures."""
    text = Metrics().render().decode()
    for kind in KINDS:
        assert f'parseq_problems_total{{problem="{kind.slug}"}} 0.0' in text


def test_exactly_the_problems_that_exist_are_documented() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (\d+) \| ([^|]*) \|$", (DOCS / "api.md").read_text(), re.M)
    assert rows == [(kind.slug, str(kind.status), kind.title) for kind in KINDS]
    assert len({kind.slug for kind in KINDS}) == len(KINDS)
