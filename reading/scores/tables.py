"""`python -m reading.scores.tables`: put results of `parseq-evaluate --json` into Markdown files, so that nobody types a score.

A table stands between two comments. The first names the results, relative to the Markdown file, the test charset, and the rows:
`datasets`, `kinds`, `lengths`, `thresholds` (how many readings are right from which confidence on), `empty` (crops that were
read as empty) or `calibration` (whether confidences can be believed).

    <!-- scores: docs/scores/real.json 36 datasets -->
    <!-- end of scores -->
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from model.errors import DataError
from reading.scores.metrics import Score, table

TITLES: Final = {"datasets": "Dataset", "kinds": "Kind", "lengths": "Length"}
PLACE: Final = "<!-- scores: FILE CHARSET datasets|kinds|lengths|thresholds|empty|calibration --> <!-- end of scores -->"
_PLACE: Final = re.compile(r"(<!-- scores: (\S+) (\S+) (\S+) -->\n).*?(<!-- end of scores -->)", re.DOTALL)


def with_tables(text: str, folder: Path) -> str:
    """The Markdown `text` with each of its tables made anew; `folder` is what their files are relative to.

    Raises:
        DataError: A file is missing or holds no such results, or the text has no place for a table.
    """

    def fill(place: re.Match[str]) -> str:
        opening, file, charset, rows, closing = place.groups()
        return f"{opening}\n{_table(folder / file, charset, rows)}\n\n{closing}"

    filled, places = _PLACE.subn(fill, text)
    if not places:
        raise DataError(f"there is no place for a table: {PLACE}")
    return filled


def _table(file: Path, charset: str, rows: str) -> str:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        scored = next(entry for entry in content["charsets"] if entry["charset"] == charset)
        if rows == "thresholds":
            return _thresholds(scored[rows])
        if rows == "empty":
            return _empty(scored["datasets"])
        if rows == "calibration":
            return _calibration([*scored["datasets"], scored["combined"]])
        return table([_score(row) for row in scored[rows]], TITLES[rows])
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise DataError(
            f"{file} holds no {rows} for charset {charset} as parseq-evaluate --json writes them ({error!r})"
        ) from error


def _markdown(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose first column is to the left and whose others are to the right."""
    rule = "|".join([":---", *["---:"] * (len(headings) - 1)])
    return "\n".join([f"| {' | '.join(headings)} |", f"|{rule}|", *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def _thresholds(rows: list[dict[str, Any]]) -> str:
    def cells(row: dict[str, Any]) -> list[str]:
        told = [
            f"{row['threshold']:.2f}",
            str(row["crops"]),
            f"{100 * row['coverage']:.1f} %",
            f"{100 * row['accuracy']:.1f} %",
        ]
        return [f"**{cell}**" for cell in told] if row["suggested"] else told

    return _markdown(["Confidence from", "# samples", "Share of all", "Right"], map(cells, rows))


def _calibration(rows: list[dict[str, Any]]) -> str:
    def cells(row: dict[str, Any]) -> list[object]:
        return [row["dataset"], row["crops"], *(f"{row[name]:.2f}" for name in ("accuracy", "confidence", "ece"))]

    return _markdown(["Dataset", "# samples", "Accuracy", "Confidence", "Calibration error"], map(cells, rows))


def _empty(rows: list[dict[str, Any]]) -> str:
    def cells(row: dict[str, Any]) -> list[object]:
        without, read = row["without_text"], row["without_text_read_empty"]
        share = f"{read} ({100 * read / without:.1f} %)" if without else ""
        return [row["dataset"], row["crops"] - without, row["with_text_read_empty"], without or "", share]

    return _markdown(["Dataset", "With a text", "read as empty", "Without a text", "read as empty"], map(cells, rows))


def _score(row: dict[str, Any]) -> Score:
    # Results from before altered labels were counted have no such number.
    return Score(
        **{field.name: row[field.name] for field in fields(Score) if field.name != "altered"}, altered=row.get("altered")
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point: 0; 1 with `--check` when a file is out of date; 2 for a wrong call or results that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m reading.scores.tables", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.md")
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a file is out of date")
    args = parser.parse_args(argv)
    outdated = []
    try:
        for file in args.files:
            text = file.read_text(encoding="utf-8")
            filled = with_tables(text, file.parent)
            if filled != text:
                outdated.append(file)
            if not args.check:
                file.write_text(filled, encoding="utf-8")
    except (DataError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    for file in outdated:
        print(f"{file}: {'out of date' if args.check else 'updated'}")
    return 1 if args.check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
