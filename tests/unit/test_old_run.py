"""A run that an earlier version began goes on as that version would have gone on.

`tests/old_run/last.ckpt` was written after two steps by a version that knew PARSeq alone; `next.safetensors` is what the same
version left after a third.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoints.loading import load, read_weights
from model.training.train import main
from tests.training_runs import words, write_shards

OLD = Path(__file__).parents[1] / "old_run"
CONFIG = {
    "embed_dim": 4,
    "enc_num_heads": 1,
    "dec_num_heads": 1,
    "enc_depth": 1,
    "dec_mlp_ratio": 1,
    "enc_mlp_ratio": 1,
    "patch_size": [16, 16],
    "dropout": 0.1,
    "max_label_length": 6,
}


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # as of any run that is moved
@pytest.mark.usefixtures("no_pictures")
def test_its_next_step_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(CONFIG))
    rendered = write_shards(tmp_path / "rendered")
    (tmp_path / "run").mkdir()
    shutil.copy(OLD / "last.ckpt", tmp_path / "run" / "last.ckpt")
    run = {
        "--config": tmp_path / "tiny.json",
        "--synthetic": rendered,
        "--synthetic-validation": rendered,
        "--output": tmp_path / "run",
        "--steps": 3,
        "--batch-size": 6,
        "--warmup-steps": 2,
        "--decay-fraction": 0,
        "--ctc-weight": 0.5,
        "--threads": 1,
        "--validate-every": 100,
        "--trainer.enable_progress_bar": "false",
        "--resume": True,
    }
    assert main(words(run)) == 0
    before, _ = read_weights(OLD / "last.ckpt")
    wanted = load_file(OLD / "next.safetensors")
    found = load_file(tmp_path / "run" / "tiny.safetensors")
    assert wanted.keys() == found.keys()
    assert share_near(found, wanted) > 0.99
    assert share_near(before, wanted) < 0.5
    old, new = (torch.load(path / "last.ckpt", weights_only=True) for path in (OLD, tmp_path / "run"))
    assert list(old["state_dict"]) == list(new["state_dict"])
    # Earlier versions can read what this one writes, too.
    assert old["hyper_parameters"].items() <= new["hyper_parameters"].items()
    assert load(weights=OLD / "last.ckpt").config == load(weights=OLD / "next.safetensors").config


def share_near(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The share of numbers that are equal but for rounding. Where a gradient is nearly none, Adam makes a step of its sign."""
    near = [((one[name] - other[name]).abs() < 1e-5).flatten() for name in one]
    return float(torch.cat(near).float().mean())
