"""Two training processes do what one does with twice the batch.

Beside the other tests of processes that train: one process imports for all that come one after the other.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model.charsets import PRINTABLE
from model.training.train import main
from tests.forked_training import ForkedTraining
from tests.small_abinet import SIZES
from tests.training_runs import TINY, WITH_NORMS, run_module, words, write_archive, write_shards

# Without dropout: each process draws masks of its own.
NETWORKS: dict[str, dict[str, Any]] = {
    "parseq": {**TINY, **WITH_NORMS, "dropout": 0.0},
    # Its parts apart for two of four steps.
    "abinet": {"recogniser": "abinet", **SIZES, "charset_train": PRINTABLE},
    # The mean over tokens, of which the processes have different numbers.
    "trba": {"recogniser": "trba", "hidden_size": 8, "output_channel": 16, "num_fiducial": 4, "max_label_length": 6},
}


def losses(output: Path) -> list[list[float]]:
    """Of each step; some recognisers have several."""
    with (output / "log-0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["loss"]]
    names = sorted(name for name in rows[0] if name == "loss" or name.endswith("_loss"))
    return [[float(row[name]) for name in names] for row in rows]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", NETWORKS)
def test_two_processes_equal_one_with_twice_the_batch(name: str, forked_training: ForkedTraining, tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(NETWORKS[name]))
    options = {
        "--config": tmp_path / "tiny.json",
        "--source": [f"{write_shards(tmp_path / 'rendered')}=2", f"{write_archive(tmp_path / 'real')}=1"],
        "--validation": tmp_path / "rendered",
        "--steps": 4,
        "--validate-every": 2,
        "--warmup-steps": 1,
        "--lr": 3e-4 if name == "trba" else 1e-4,
        "--average": "ema",
        "--ema-decay": 0.5,
        "--threads": 1,
        "--trainer.accelerator": "cpu",
        "--trainer.log_every_n_steps": 1,
        "--trainer.enable_progress_bar": "false",
    }
    # Lightning starts the second process with the command of the first; once is enough, both import for seconds.
    several = {"--batch-size": 6, "--output": "two", "--trainer.devices": 2, "--trainer.strategy": "ddp"}
    assert main(words({**options, "--batch-size": 12, "--output": tmp_path / "one"})) == 0
    command = words({**options, **several})
    if name == "parseq":
        done = run_module("model.training.train", command, tmp_path)
    else:
        done = forked_training.run(command, tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    expected, found = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(found) == 4
    # The same sums in another order: float32 rounds them differently.
    assert found == [pytest.approx(pair, rel=1e-4) for pair in expected]
    assert expected[0] != pytest.approx(expected[1], rel=1e-4)
    if name == "trba":
        return  # of its weights norms and Adam make different ones of mere rounding, and the losses are the same
    # The average, statistics of norms included, and what training goes on with.
    for kept in ("state_dict", "current_model_state"):
        one, two = (torch.load(tmp_path / run / "last.ckpt", weights_only=True)[kept] for run in ("one", "two"))
        assert any(key.endswith("running_var") for key in one)
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-2, atol=1e-3)
