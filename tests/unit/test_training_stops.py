"""A run that is told to stop saves the step in hand, whatever it is doing, and goes on from there as if nothing had been."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from model.training.curve import read_logs
from model.training.train import main
from model.training.trainer import LAST
from tests.forked_training import ForkedTraining
from tests.training_runs import WITH_NORMS, run_options, words, write_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return run_options(tmp_path)


def run_in_a_group(training: ForkedTraining, options: dict[str, Any], tmp_path: Path, **ends: Any) -> Any:
    """Run the job, with signals to its process group."""
    callback = {"class_path": "tests.training_runs.SignalGroup", "init_args": ends}
    run = words({**options, "--output": tmp_path / "run", "--trainer.callbacks": json.dumps(callback)})
    return training.run(run, tmp_path)


def weights_at(path: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return found


@pytest.mark.parametrize(
    ("how", "step", "changes"),
    [
        (signal.SIGTERM, 0, {"--workers": 2}),
        (signal.SIGINT, 3, {"--workers": 2, "--augment": "reference"}),
        (signal.SIGHUP, 1, {"--workers": 0}),
        (signal.SIGTERM, 3, {"--workers": 1, "--trainer.accumulate_grad_batches": 2, "--average": "ema"}),
    ],
)
def test_a_stop_saves_before_the_first_checkpoint_is_due(
    forked_training: ForkedTraining,
    options: dict[str, Any],
    how: signal.Signals,
    step: int,
    changes: dict[str, Any],
    tmp_path: Path,
) -> None:
    options |= changes
    if "--average" in changes:
        write_config(tmp_path / "tiny.json", **WITH_NORMS)
    stopped = run_in_a_group(forked_training, options, tmp_path, step=step, how=int(how))
    assert stopped.returncode == 128 + how, stopped.stderr
    assert f"stopped; the same command with --resume goes on from step {step + 1}" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "exited unexpectedly" not in stopped.stderr
    assert int(torch.load(tmp_path / "run" / LAST, weights_only=True)["global_step"]) == step + 1
    # What follows is what would have been.
    assert main(words({**options, "--output": tmp_path / "run", "--resume": True})) == 0
    assert main(words({**options, "--output": tmp_path / "whole"})) == 0
    whole, resumed = (weights_at(tmp_path / run / LAST) for run in ("whole", "run"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.parametrize(("step", "saved", "validated"), [(3, 3, [6]), (6, 5, [3, 6])])
def test_a_stop_in_a_validation(
    forked_training: ForkedTraining, options: dict[str, Any], step: int, saved: int, validated: list[int], tmp_path: Path
) -> None:
    options |= {"--workers": 1, "--lazy": True, "--average": "ema"}
    stopped = run_in_a_group(forked_training, options, tmp_path, step=step, how=int(signal.SIGTERM), in_validation=True)
    assert stopped.returncode == 143, stopped.stderr
    assert f"goes on from step {saved}" in stopped.stderr
    assert main(words({**options, "--output": tmp_path / "run", "--resume": True})) == 0
    assert main(words({**options, "--output": tmp_path / "whole"})) == 0
    whole, resumed = (weights_at(tmp_path / run / LAST) for run in ("whole", "run"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    # The last validation is made up for, one in between is not.
    assert [at for at, _ in read_logs(tmp_path / "run")["accuracy"]] == validated


def test_a_signal_that_comes_twice_at_once_is_one(
    forked_training: ForkedTraining, options: dict[str, Any], tmp_path: Path
) -> None:
    stopped = run_in_a_group(forked_training, options, tmp_path, step=1, how=int(signal.SIGINT), times=2)
    assert (stopped.returncode, "from step 2" in stopped.stderr) == (130, True), stopped.stderr


def test_impatience_ends_a_run_at_once(forked_training: ForkedTraining, options: dict[str, Any], tmp_path: Path) -> None:
    options |= {"--checkpoint-every": 1}
    stopped = run_in_a_group(forked_training, options, tmp_path, step=1, how=int(signal.SIGINT), times=6)
    assert (stopped.returncode, "from step 1" in stopped.stderr) == (130, True), stopped.stderr
    assert "Traceback" not in stopped.stderr


def test_a_run_that_fails_does_not_wait_for_its_loaders(
    forked_training: ForkedTraining, options: dict[str, Any], tmp_path: Path
) -> None:
    callback = {"class_path": "tests.training_runs.StopAt", "init_args": {"step": 1}}
    options |= {"--workers": 2, "--output": tmp_path / "run", "--trainer.callbacks": json.dumps(callback)}
    failed = forked_training.run(words(options), tmp_path)
    assert "the power went out" in failed.stderr
    assert failed.returncode == 1
