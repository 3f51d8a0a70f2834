"""Tiny data and networks to run the training job on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from model.training.train import main, parse_args, train
from model.training.trainer import LAST
from tests.archives import picture, write_lmdb

ROOT = Path(__file__).parents[1]
TINY: dict[str, Any] = {
    "patch_size": [8, 16],
    "embed_dim": 16,
    "enc_num_heads": 2,
    "dec_num_heads": 2,
    "enc_depth": 1,
    "dropout": 0.1,
    "max_label_length": 6,
}
WITH_NORMS: dict[str, Any] = {"stem": "residual", "patch_size": [8, 4]}
"""Changes of it, for what happens to statistics of batch norms: its convolutions take as long as all the rest of a run."""


def write_shards(folder: Path, count: int = 24) -> Path:
    """Rendered crops, of noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    labels = (["one", "Two", "3", "four!", "#5", "six"] * count)[:count]
    centers = np.full((count, 25, 2), np.nan, np.float16)
    for row, label in zip(centers, labels, strict=True):
        row[: len(label)] = rng.random((len(label), 2))
    images = rng.integers(0, 255, (count, 32, 128, 3), np.uint8)
    np.savez(folder / "shard-00000.npz", images=images, labels=np.array(labels), glyph_centers=centers)
    return folder


def write_archive(folder: Path, count: int = 12) -> Path:
    """An LMDB archive of noise."""
    return write_lmdb(folder, [(picture(i), f"w{i}") for i in range(count)])


def write_config(path: Path, **changes: Any) -> Path:
    """The tiny network."""
    path.write_text(json.dumps({**TINY, **changes}))
    return path


def run_options(folder: Path) -> dict[str, Any]:
    """Of a run of six steps on rendered and real crops in `folder`."""
    return {
        "--config": write_config(folder / "tiny.json"),
        "--source": [f"{write_shards(folder / 'rendered')}=2", f"{write_archive(folder / 'real')}=1"],
        "--validation": folder / "rendered",
        "--batch-size": 6,
        "--steps": 6,
        "--validate-every": 3,
        "--warmup-steps": 2,
        "--threads": 1,
        "--trainer.enable_progress_bar": "false",
    }


def words(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line: `True` is a flag, a list repeats."""
    found: list[str] = []
    for name, value in options.items():
        if value is True:
            found.append(name)
        else:
            values: Sequence[Any] = value if isinstance(value, list) else [value]
            found += [word for item in values for word in (name, str(item))]
    return found


def run_module(module: str, arguments: Sequence[str], folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a job in a process of its own, as its command does."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, **options)


def environment() -> dict[str, str]:
    """Of a job: this project first on the path, and no colours or bars for a terminal."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "dumb"}


class StopAt(lightning.Callback):
    """The power goes out before a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("the power went out")


class CopyBefore(lightning.Callback):
    """Keeps what a power cut before some steps would leave of a run."""

    def __init__(self, output: Path, steps: Sequence[int]) -> None:
        self.output, self.steps = output, steps

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        kept = self.path(trainer.global_step)
        if trainer.global_step in self.steps and not kept.exists():
            shutil.copytree(self.output, kept)

    def path(self, step: int) -> Path:
        """The folder that is kept of the run before a step."""
        return self.output.with_name(f"{self.output.name}-before-{step}")


def whole_and_resumed(options: Mapping[str, Any], output: Path, *stops: int) -> list[Path]:
    """Run the job, and again the rest of it after a power cut before each of some steps.

    Args:
        options: Of the job, without its output; they must make it save a checkpoint before each of these steps.
        output: Where it runs; afterwards nothing is there.
        stops: The steps.

    Returns:
        What the whole run left, and each of those that were resumed.
    """
    command, copies = words({**options, "--output": output}), CopyBefore(output, stops)
    train(*parse_args(command), [copies])
    left = [output.rename(output.with_name(f"{output.name}-whole"))]
    for stop in stops:
        # A checkpoint knows where it was written.
        copies.path(stop).rename(output)
        assert torch.load(output / LAST, weights_only=True)["global_step"] == stop
        assert main([*command, "--resume"]) == 0
        left.append(output.rename(output.with_name(f"{output.name}-resumed-at-{stop}")))
    return left


class KillAfter(lightning.Callback):
    """Ends the process as a power cut would, or by another signal, once a step is done. Given by `--trainer.callbacks`."""

    def __init__(self, step: int, how: int = signal.SIGKILL) -> None:
        self.step, self.how = step, how

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Checkpoints are saved after this is called: the step after next tells."""
        if trainer.global_step == self.step + 1:
            if self.how == signal.SIGINT:
                # Shells let what runs in the background ignore it.
                signal.signal(signal.SIGINT, signal.default_int_handler)
            os.kill(os.getpid(), self.how)


class SignalGroup(lightning.Callback):
    """A signal to all processes of the run's group, those that load data included, in a step or in its validation."""

    def __init__(self, step: int, how: int, in_validation: bool = False, times: int = 1) -> None:
        self.step, self.how, self.in_validation, self.times = step, how, in_validation, times

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """In the step after `step` others."""
        if trainer.global_step == self.step and not self.in_validation:
            self.send()

    def on_validation_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """In the validation after `step` steps."""
        if trainer.global_step == self.step and self.in_validation:
            self.send()

    def send(self) -> None:
        """As Ctrl-C or a service manager does."""
        for _ in range(self.times):
            os.killpg(0, self.how)
            # Those that load data have it by then.
            time.sleep(0.3)


def fonts_at_hand() -> Path:
    """A folder of fonts that every development environment has."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"
