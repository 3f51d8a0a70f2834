"""The table that is printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.serving.steps import Row

COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("model", lambda row: row.model),
    ("step", lambda row: row.step),
    ("crops/s", lambda row: _number(row.crops_per_s, 1)),
    ("ratio", lambda row: _number(row.ratio, 2)),
    ("best", lambda row: _number(row.ratio_best, 2)),
    ("CPU ratio", lambda row: _number(row.cpu_ratio, 2)),
    ("p50 ms", lambda row: _number(row.p50_ms, 1)),
    ("p99 ms", lambda row: _number(row.p99_ms, 1)),
    ("CPU ms", lambda row: _number(row.cpu_ms_per_request, 2)),
    ("refused", lambda row: _number(row.refused, 0)),
    ("failed", lambda row: _number(row.failed, 0)),
    ("client CPU", lambda row: _per_cent(row.client_cpu)),
    ("other CPU", lambda row: _per_cent(row.foreign_cpu)),
    ("", lambda row: _remarks(row)),
)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table with aligned columns."""
    cells = [[title for title, _ in COLUMNS], *([show(row) for _, show in COLUMNS] for row in rows)]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(COLUMNS))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _per_cent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _remarks(row: Row) -> str:
    remarks = []
    if row.step == "overload4x":
        remarks = [
            f"goodput {_number(row.goodput, 2)}",
            f"refusals' p99 {_number(row.refused_p99_ms, 0)} ms",
            f"recovers in {_number(row.recovery_s, 2)} s",
        ]
    if row.slowdown is not None:
        remarks = [f"p99 = {_number(row.slowdown, 1)} x unloaded p50"]
    return ", ".join(remarks)
