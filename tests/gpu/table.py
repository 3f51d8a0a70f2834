"""What the verification found: rows, one table of them, and the exit code that they give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["ok", "measured", "skipped", "FAILED"]
COLUMNS = ("check", "of", "result", "found")


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was checked or measured."""

    check: str
    """The stage: `texts` and so on."""
    of: str
    """What was looked at."""
    outcome: Outcome
    """`ok` and `FAILED` are of checks; `measured` and `skipped` decide nothing."""
    found: str
    """What came out, or why nothing did."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """The same for programs; in the JSON only."""


class RowFile:
    """Rows in a file, one JSON object a line: what was found before a stage was stopped is not lost.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, row: Row) -> None:
        """Append it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    def read(self) -> list[Row]:
        """All whole rows."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        return [Row(**json.loads(line)) for line in lines]


def exit_code(rows: Sequence[Row]) -> int:
    """1 if a check failed, else 0."""
    return int(any(row.outcome == "FAILED" for row in rows))


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table with aligned columns."""
    cells = [COLUMNS, *((row.check, row.of, row.outcome, _one_line(row.found)) for row in rows)]
    # The last column is not padded: its longest text would make every line as long.
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS) - 1)]
    lines = [
        "| " + " | ".join([*(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=True)), line[-1]]) + " |"
        for line in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in [*widths, 3]) + " |")
    return "\n".join(lines)


def write(rows: Sequence[Row], heading: str, folder: Path) -> str:
    """Write `verify-gpu.md` and `verify-gpu.json` into `folder`; what the first one says."""
    text = f"{heading}\n\n{markdown(rows)}\n"
    (folder / "verify-gpu.md").write_text(text, encoding="utf-8")
    found = {"heading": heading, "exit_code": exit_code(rows), "rows": [asdict(row) for row in rows]}
    (folder / "verify-gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")
