"""Two training processes do what one does with twice the batch."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from model.training.train import main
from tests.training_runs import run_module, words, write_archive, write_config, write_shards


def losses(output: Path) -> list[tuple[float, float]]:
    with (output / "log-0" / "metrics.csv").open() as file:
        return [(float(row["loss"]), float(row["glyph_loss"])) for row in csv.DictReader(file) if row["loss"]]


def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path) -> None:
    options = {
        # Without dropout: each process draws masks of its own.
        "--config": write_config(tmp_path / "tiny.json", dropout=0.0),
        "--source": [f"{write_shards(tmp_path / 'rendered')}=2", f"{write_archive(tmp_path / 'real')}=1"],
        "--validation": tmp_path / "rendered",
        "--steps": 4,
        "--validate-every": 2,
        "--warmup-steps": 1,
        "--lr": 1e-4,
        "--average": "ema",
        "--ema-decay": 0.5,
        "--threads": 1,
        "--trainer.accelerator": "cpu",
        "--trainer.log_every_n_steps": 1,
        "--trainer.enable_progress_bar": "false",
    }
    # Lightning starts the second process with the command of the first.
    several = {"--batch-size": 6, "--output": "two", "--trainer.devices": 2, "--trainer.strategy": "ddp"}
    assert main(words({**options, "--batch-size": 12, "--output": tmp_path / "one"})) == 0
    done = run_module("model.training.train", words({**options, **several}), tmp_path)
    assert done.returncode == 0, done.stderr
    expected, found = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(found) == 4
    # The same sums in another order: float32 rounds them differently.
    assert found == [pytest.approx(pair, rel=1e-4) for pair in expected]
    assert expected[0] != pytest.approx(expected[1], rel=1e-4)
    # The average, statistics of norms included, and what training goes on with.
    for key in ("state_dict", "current_model_state"):
        one, two = (torch.load(tmp_path / run / "last.ckpt", weights_only=True)[key] for run in ("one", "two"))
        assert [name for name in one if name.endswith("running_var")]
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-2, atol=1e-3)
