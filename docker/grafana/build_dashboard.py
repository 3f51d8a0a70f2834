"""Writes the dashboard: python docker/grafana/build_dashboard.py [FILE]

`dashboards/parseq-service.json` is what Grafana reads; `panels.py` is what a person reads and changes. A test fails when they
differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from panels import COLLAPSED, ROWS
from parts import WIDTH, Panel

OUTPUT = Path(__file__).parent / "dashboards" / "parseq-service.json"
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def render_panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    """One panel in Grafana's words."""
    table = panel.kind == "table"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": DATA_SOURCE,
            "expr": query,
            "legendFormat": legend,
            **({"exemplar": True} if panel.kind == "timeseries" and "histogram_quantile" in query else {}),
            **({"format": "heatmap"} if panel.kind == "heatmap" else {}),
            **({"format": "table", "instant": True} if table else {}),
        }
        for index, (legend, query) in enumerate(panel.queries.items())
    ]
    custom = {"fillOpacity": 10, **({"stacking": {"mode": "normal"}} if panel.stacked else {})}
    defaults = {"unit": panel.unit, "min": 0, **({"custom": custom} if panel.kind == "timeseries" else {})}
    hidden = dict.fromkeys(("Time", "Value", "__name__", "job"), True)
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATA_SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": panel.options,
        "targets": targets,
        **({"transformations": [{"id": "organize", "options": {"excludeByName": hidden}}]} if table else {}),
    }


def render_panels() -> list[dict[str, Any]]:
    """All rows, each followed by its panels; those of a collapsed row are inside it."""
    panels: list[dict[str, Any]] = []
    number, y = 0, 0
    for title, row in ROWS.items():
        number += 1
        header: dict[str, Any] = {"id": number, "type": "row", "title": title, "collapsed": title in COLLAPSED, "panels": []}
        header["gridPos"] = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        panels.append(header)
        x, y, height = 0, y + 1, 0
        for panel in row:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            number += 1
            (header["panels"] if title in COLLAPSED else panels).append(render_panel(panel, number, x, y))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return panels


def variable(name: str, label: str, query: str) -> dict[str, Any]:
    """A choice at the top of the dashboard: all values of a label, or some."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def render_dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's words."""
    return {
        "uid": "parseq-service",
        "title": "PARSeq service",
        "description": "Word recognition: traffic, errors, latency, saturation. Written by docker/grafana/build_dashboard.py.",
        "tags": ["parseq"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                },
                variable("job", "Job", "label_values(parseq_ready, job)"),
                variable("instance", "Instance", 'label_values(parseq_ready{job=~"$job"}, instance)'),
            ]
        },
        "panels": render_panels(),
    }


if __name__ == "__main__":
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    output.write_text(json.dumps(render_dashboard(), indent=2) + "\n")
