"""The learning-rate search: its trials are runs of the training job; with Ray where that is installed."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from model.training import tune
from model.training.tune import TrialResult, TuneOptions, first_rates, main, run_trial
from tests.training_runs import words, write_config, write_shards


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    shards = write_shards(tmp_path / "rendered")
    return {
        "--config": write_config(tmp_path / "tiny.json"),
        "--synthetic": shards,
        "--synthetic-validation": shards,
        "--batch-size": 6,
        "--steps": 4,
        "--validate-every": 2,
        "--checkpoint-every": 2,
        "--threads": 1,
        "--trials": 2,
        "--output": tmp_path / "search",
    }


def rates(path: Path) -> list[float]:
    with path.open() as file:
        return [float(row["lr"]) for row in csv.DictReader(file)]


def test_first_rates_cover_the_range() -> None:
    assert first_rates(1e-4, 1e-2, 10) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert first_rates(1e-4, 1e-2, 2) == pytest.approx([1e-4, 1e-2])
    assert first_rates(1e-4, 1e-2, 1) == pytest.approx([1e-3])
    assert first_rates(1e-4, 2e-3, 9) == pytest.approx([1e-4, 1e-4 * 20**0.5, 2e-3])


@pytest.mark.usefixtures("no_pictures")
def test_a_trial_is_a_run_that_can_be_resumed(options: dict[str, Any], tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    run_trial(words(options), 3e-4, tmp_path / "trial", seen.append)
    assert [report["steps"] for report in seen] == [2, 4]
    assert all(0 <= report["one_minus_ned"] <= 1 and report["accuracy"] == 0 for report in seen)
    assert "0.0003" in (tmp_path / "trial" / "log-0" / "hparams.yaml").read_text()
    run_trial(words({**options, "--steps": 6}), 3e-4, tmp_path / "trial", seen.append)
    assert [report["steps"] for report in seen] == [2, 4, 6]


def test_results_are_ranked_and_written(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def searched(args: TuneOptions, given: list[str]) -> list[TrialResult]:
        assert given == words(options)
        args.output.mkdir()
        return [TrialResult("a", 1e-4, 4, 0.2, 0.1), TrialResult("b", 1e-2, 2, 0.5, 0.05)]

    monkeypatch.setattr(tune, "search_with_ray", searched)
    assert main(words(options)) == 0
    assert capsys.readouterr().out.splitlines()[0] == "lr 0.01: 1 - NED 0.5000, accuracy 0.0500, 2 steps"
    assert rates(options["--output"] / "trials.csv") == [1e-2, 1e-4]


def test_wrong_searches_are_one_line(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words({**options, "--lr-min": 1, "--lr-max": 0.1})) == 2
    assert "--lr-min must be positive and less than --lr-max" in capsys.readouterr().err
    (options["--output"] / "search").mkdir(parents=True)
    assert main(words(options)) == 2
    assert "already holds a search: add --resume" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(words({**options, "--resume": True})) == 2
    assert "Ray is not installed: it is the extra `tune`" in capsys.readouterr().err

    def nothing(*_: object) -> list[TrialResult]:
        return []

    monkeypatch.setattr(tune, "search_with_ray", nothing)
    assert main(words(options)) == 2
    assert "no trial was validated" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `tune` is not part of `make dev`")
@pytest.mark.filterwarnings("ignore")
def test_two_trials_with_ray(options: dict[str, Any]) -> None:
    assert main(words(options)) == 0
    assert sorted(rates(options["--output"] / "trials.csv")) == pytest.approx([1e-4, 1e-2])
    assert len(list((options["--output"] / "trials").glob("*/last.ckpt"))) == 2
