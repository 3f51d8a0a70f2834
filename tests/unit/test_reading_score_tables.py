"""Scores in the docs are those that were measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from reading.evaluate import main as evaluate
from reading.scores.tables import main
from tests.integration.server import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "docs" / "model_card.md"]
PLACE = "before\n<!-- scores: {file} {charset} {rows} -->\n<!-- end of scores -->\nafter\n"


@pytest.fixture
def results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """What an evaluation of three crops wrote; what it printed is beside it."""
    file = tmp_path / "results.json"
    data = tmp_path / "signs"
    shutil.copytree(ROOT / "docs" / "samples", data)
    (data / "labels.tsv").write_text("harbour.png\tHARBOUR\nbakery.png\tnot this\nprice.png\t$4.99\n")
    assert evaluate(["--data", str(data), "--charset", "36", "94", "--by-kind", "--json", str(file)]) == 0
    file.with_suffix(".txt").write_text(capsys.readouterr().out)
    return file


def document(folder: Path, rows: str = "datasets", charset: str = "36", file: str = "results.json") -> Path:
    path = folder / "page.md"
    path.write_text(PLACE.format(file=file, charset=charset, rows=rows))
    return path


@pytest.mark.parametrize("rows", ["datasets", "kinds", "lengths"])
def test_a_table_is_what_evaluate_printed(results: Path, rows: str) -> None:
    printed = results.with_suffix(".txt").read_text().partition("Test charset: 94")[0].splitlines()
    page = document(results.parent, rows)
    assert main([str(page)]) == 0
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    table = [line for line in lines if line.startswith("|")]
    assert len(table) > 2
    squeezed = {line.replace(" ", "") for line in printed}
    assert {line.replace(" ", "") for line in table[2:]} <= squeezed


def test_tables_of_thresholds_empty_readings_and_calibration(results: Path) -> None:
    content = json.loads(results.read_text())
    scored = content["charsets"][0]
    scored["thresholds"] = [
        {"threshold": 0.5, "crops": 3, "coverage": 1.0, "accuracy": 0.5, "suggested": False},
        {"threshold": 0.91, "crops": 1, "coverage": 1 / 3, "accuracy": 1.0, "suggested": True},
    ]
    scored["datasets"][0] |= {"without_text": 2, "without_text_read_empty": 1, "with_text_read_empty": 1, "ece": 1.234}
    results.write_text(json.dumps(content))
    found = {}
    for rows in ("thresholds", "empty", "calibration"):
        page = document(results.parent, rows)
        assert main([str(page)]) == 0
        found[rows] = [line for line in page.read_text().splitlines() if line.startswith("|")][2:]
    assert found["thresholds"] == ["| 0.50 | 3 | 100.0 % | 50.0 % |", "| **0.91** | **1** | **33.3 %** | **100.0 %** |"]
    assert found["empty"] == ["| signs | 1 | 1 | 2 | 1 (50.0 %) |"]
    assert len(found["calibration"]) == 2
    assert found["calibration"][0].endswith(" 1.23 |")


def test_a_second_time_changes_nothing_and_a_typed_score_is_found(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = document(results.parent)
    assert main(["--check", str(page)]) == 1
    assert main([str(page)]) == 0
    assert main(["--check", str(page)]) == 0
    text = page.read_text()
    page.write_text(text.replace("33.33", "93.33", 1))
    capsys.readouterr()
    assert main(["--check", str(page)]) == 1
    assert "out of date" in capsys.readouterr().out
    assert main([str(page)]) == 0
    assert page.read_text() == text


@pytest.mark.parametrize("wrong", [{"file": "missing.json"}, {"charset": "62"}, {"rows": "colours"}])
def test_results_that_are_not_there_are_named(results: Path, wrong: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(document(results.parent, **wrong))]) == 2
    assert str(results.parent) in capsys.readouterr().err


def test_a_page_without_a_place_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing")
    assert main([str(page)]) == 2
    assert "no place for a table" in capsys.readouterr().err


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_the_scores_in_the_docs_are_the_measured_ones(page: Path) -> None:
    assert main(["--check", str(page)]) == 0
