"""Results of an evaluation as tables, JSON and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model.data.alterations import Alterations
from reading.scores.calibration import WANTED_ACCURACY, Reliability
from reading.scores.evaluation import Scoring
from reading.scores.metrics import EMPTY_FIELDS, Tally, in_order, table


def tables(scorings: Sequence[Scoring], *, by_kind: bool = False) -> str:
    """All tables as text."""
    blocks = []
    for scoring in scorings:
        reliability = scoring.reliability()
        error = 100 * reliability.expected_calibration_error()
        blocks.append(f"Test charset: {scoring.name} ({len(scoring.charset)} characters)")
        blocks.append(table(scoring.scores(), combined=scoring.combined()))
        blocks.append(f"Expected calibration error: {error:.2f} %")
        blocks.append(_about_threshold(reliability))
        blocks.append(_about_empty(list(scoring.sets.values())) + "\n")
        if by_kind:
            for title, groups in (("Kind", scoring.kinds), ("Length", scoring.lengths)):
                blocks.append(table([groups[name].score(name) for name in in_order(groups)], title) + "\n")
    return "\n".join(blocks).rstrip()


def _about_threshold(reliability: Reliability) -> str:
    suggested = reliability.suggested_threshold()
    if suggested is None:
        return f"There is no confidence from which on {WANTED_ACCURACY:.0%} are right".replace("%", " %")
    left = reliability.from_threshold(suggested)
    return (
        f"From a confidence of {suggested:.2f} on {100 * left.accuracy:.1f} % are right; "
        f"{100 * left.coverage:.1f} % of the crops are read with that"
    )


def _about_empty(tallies: Sequence[Tally]) -> str:
    without = sum(tally.without_text for tally in tallies)
    crops = sum(tally.crops for tally in tallies) - without
    told = f"Read as empty: {sum(tally.with_text_read_empty for tally in tallies)} of {crops} crops with a text"
    return told + (f", {sum(tally.without_text_read_empty for tally in tallies)} of {without} without" if without else "")


def _row(dataset: str, tally: Tally) -> dict[str, Any]:
    return {
        **asdict(tally.score(dataset)),
        "ece": 100 * tally.reliability.expected_calibration_error(),
        **{name: getattr(tally, name) for name in EMPTY_FIELDS},
    }


def _combined(scoring: Scoring) -> dict[str, Any]:
    return {**asdict(scoring.combined()), "ece": 100 * scoring.reliability().expected_calibration_error()}


def _rows(scoring: Scoring) -> list[dict[str, Any]]:
    return [_row(name, tally) for name, tally in scoring.sets.items() if tally.crops]


def write_json(path: Path, scorings: Sequence[Scoring], *, model: str, rotation: float) -> None:
    """Everything as one JSON object; the fields are listed in docs/evaluation.md."""
    content = {
        "model": model,
        "rotation": rotation,
        "charsets": [
            {
                "charset": scoring.name,
                "characters": scoring.charset,
                "datasets": _rows(scoring),
                "combined": _combined(scoring),
                "kinds": [_row(name, scoring.kinds[name]) for name in in_order(scoring.kinds)],
                "lengths": [_row(name, scoring.lengths[name]) for name in in_order(scoring.lengths)],
                "reliability": [asdict(entry) for entry in scoring.reliability().bins()],
                "thresholds": [asdict(entry) for entry in scoring.reliability().thresholds()],
                "left_out": {name: dict(+reasons) for name, reasons in scoring.left_out.items()},
                "lost": {name: dict(found.lost.most_common()) for name, found in scoring.alterations.items()},
                "folded": {name: _folded(found) for name, found in scoring.alterations.items()},
                "mistakes": [
                    {"dataset": dataset, "label": label, "text": text, "confidence": confidence}
                    for confidence, label, text, dataset in scoring.worst.rows()
                ],
            }
            for scoring in scorings
        ],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _folded(found: Alterations) -> list[dict[str, Any]]:
    return [{"from": old, "to": new, "count": count} for (old, new), count in found.folded.most_common()]


def write_csv(path: Path, scorings: Sequence[Scoring]) -> None:
    """The rows of the tables, combined ones last."""
    rows = [{"charset": scoring.name, **row} for scoring in scorings for row in (*_rows(scoring), _combined(scoring))]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
