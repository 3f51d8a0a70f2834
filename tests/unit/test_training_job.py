"""The training job with its options, on tiny networks: repeatable, resumable, averaged, and stopped where it must stop."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor

from model.augmentation.batches import jitter_colours, warp
from model.checkpoints.loading import load
from model.data.sources import AugmentedSource, JoinedSource, RenderedCrops
from model.distributed import Shard
from model.recognisers.registry import named_config
from model.training.averaging import EMA
from model.training.curve import read_logs
from model.training.data import build_data
from model.training.train import main, parse_args, train
from tests.forked_training import ForkedTraining
from tests.training_runs import (
    WITH_NORMS,
    StopAt,
    run_options,
    whole_and_resumed,
    words,
    write_archive,
    write_config,
    write_shards,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {**run_options(tmp_path), "--checkpoint-every": 2}


class Poison(lightning.Callback):
    """A weight, or a gradient, that is no number, from a step on."""

    def __init__(self, step: int, what: str) -> None:
        self.step, self.what = step, what

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object) -> None:
        if self.what == "loss" and trainer.global_step == self.step:
            pl_module.get_parameter("model.head.bias").data.fill_(float("nan"))

    def on_after_backward(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        gradient = pl_module.get_parameter("model.head.bias").grad
        if self.what == "gradient" and trainer.global_step == self.step and gradient is not None:
            gradient[0] = float("inf")


def state(run: Path, name: str = "last.ckpt") -> dict[str, Tensor]:
    return load(weights=run / name).state_dict()


def saved_step(run: Path, name: str) -> int:
    return int(torch.load(run / name, weights_only=True)["global_step"])


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


VARIANTS: dict[str, dict[str, Any]] = {
    "ema": {
        "--average": "ema",
        "--ema-decay": 0.9,
        "--augment": "reference",
        "--workers": 2,
        "--schedule": "onecycle",
    },
    "swa": {
        "--average": "swa",
        "--average-from": 0.5,
        "--trainer.accumulate_grad_batches": 2,
        "--trainer.precision": "bf16-mixed",
        "--lazy": True,
        "--workers": 0,
        "--augment-real": "reference",
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_is_resumed_exactly(options: dict[str, Any], variant: str, tmp_path: Path) -> None:
    options |= VARIANTS[variant]
    write_config(tmp_path / "tiny.json", **WITH_NORMS)
    whole, parts = whole_and_resumed(options, tmp_path / "run", 4)
    assert equal(state(whole), state(parts))
    assert equal(state(whole), state(parts, "tiny.safetensors"))


def test_a_run_without_validation_saves_its_last_step(options: dict[str, Any], tmp_path: Path) -> None:
    # Rendered crops alone: none of them are held out.
    alone = {name: value for name, value in options.items() if name != "--validation"} | {"--source": tmp_path / "rendered"}
    assert main(words({**alone, "--output": tmp_path / "run", "--steps": 3})) == 0
    assert saved_step(tmp_path / "run", "last.ckpt") == 3


def test_another_seed_is_another_run(options: dict[str, Any], tmp_path: Path) -> None:
    for seed in (0, 1):
        assert main(words({**options, "--output": tmp_path / str(seed), "--seed": seed})) == 0
    assert not equal(state(tmp_path / "0"), state(tmp_path / "1"))


@pytest.mark.draws
def test_what_a_run_leaves(options: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "run"
    # No multiple of the steps between checkpoints.
    assert main(words({**options, "--output": output, "--steps": 5})) == 0
    names = {path.name for path in output.iterdir()}
    assert {"last.ckpt", "best.ckpt", "curve.png", "log-0", "tiny.safetensors"} == names
    assert equal(state(output), state(output, "tiny.safetensors"))
    # Validated after step 3 and after the last; the first of equals is the best.
    assert read_logs(output)["accuracy_validation"] == [(3, 0.0), (5, 0.0)]
    assert saved_step(output, "best.ckpt") == 3
    assert list((output / "log-0").glob("events.out.tfevents.*"))
    assert "accuracy" in (output / "log-0" / "metrics.csv").read_text()


def test_a_run_shorter_than_the_steps_between_validations_is_validated(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {**options, "--output": tmp_path / "run", "--steps": 2, "--validate-every": 500, "--resume": True}
    assert main(words(run)) == 0
    assert (tmp_path / "run" / "best.ckpt").is_file()
    told = capsys.readouterr().err
    assert "holds no run yet" in told
    assert "step 2: exact matches 0.00 % (validation 0.00 %)" in told
    assert read_logs(tmp_path / "run")["accuracy_validation"] == [(2, 0.0)]
    assert main(words({**run, "--steps": 4})) == 0
    assert "goes on from step 2" in capsys.readouterr().err


def test_weights_can_be_read_by_whoever_reads_the_checkpoint(options: dict[str, Any], tmp_path: Path) -> None:
    assert main(words({**options, "--output": tmp_path / "run", "--steps": 1})) == 0
    made = {path.suffix: path.stat().st_mode for path in (tmp_path / "run").iterdir()}
    assert made[".safetensors"] == made[".ckpt"]


@pytest.mark.parametrize(
    ("how", "step", "code", "told"),
    [
        (signal.SIGTERM, 3, 143, "the same command with --resume goes on from step 4"),
        (signal.SIGINT, 4, 130, "the same command with --resume goes on from step 4"),
    ],
)
def test_a_run_that_is_ended_tells_how_to_go_on(
    forked_training: ForkedTraining,
    options: dict[str, Any],
    how: signal.Signals,
    step: int,
    code: int,
    told: str,
    tmp_path: Path,
) -> None:
    ends = {"class_path": "tests.training_runs.KillAfter", "init_args": {"step": step, "how": int(how)}}
    run = words({**options, "--output": tmp_path / "run", "--trainer.callbacks": json.dumps(ends)})
    ended = forked_training.run(run, tmp_path)
    assert told in ended.stderr
    assert ended.returncode == code


@pytest.mark.parametrize("ends", [KeyboardInterrupt(), SystemExit(7)])
def test_a_run_that_is_ended_before_it_trains(
    options: dict[str, Any],
    ends: BaseException,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def end(*_: object) -> None:
        raise ends

    monkeypatch.setattr("model.training.train.build_data", end)
    run = words({**options, "--output": tmp_path / "run"})
    if isinstance(ends, KeyboardInterrupt):
        assert main(run) == 130
        assert "nothing is left" in capsys.readouterr().err
    else:
        with pytest.raises(SystemExit, match="7"):
            main(run)


class Scores(lightning.Callback):
    """Accuracies as they are told, by step, instead of what was read."""

    def __init__(self, percent: dict[int, int]) -> None:
        self.percent = percent

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        hits = self.percent[trainer.global_step]
        pl_module._validated = [(crop < hits, 0.0) for crop in range(100)]


@pytest.mark.parametrize("killed", [False, True])
def test_the_best_checkpoint_outlives_a_resume(options: dict[str, Any], killed: bool, tmp_path: Path) -> None:
    run = {**options, "--output": tmp_path / "run", "--validate-every": 2, "--checkpoint-every": 3}
    scores = Scores({2: 10, 4: 90, 5: 20, 6: 50, 7: 30, 8: 95})
    if killed:
        # After the best validation and before the next checkpoint: `last.ckpt` was saved before it and knows nothing of it.
        with pytest.raises(RuntimeError, match="the power went out"):
            train(*parse_args(words({**run, "--steps": 8})), [scores, StopAt(4)])
        assert saved_step(tmp_path / "run", "last.ckpt") == 4
        scores.percent[4] = 15
    else:
        train(*parse_args(words({**run, "--steps": 5})), [scores])
    assert saved_step(tmp_path / "run", "best.ckpt") == 4
    train(*parse_args(words({**run, "--steps": 7, "--resume": True})), [scores])
    assert saved_step(tmp_path / "run", "best.ckpt") == 4
    train(*parse_args(words({**run, "--steps": 8, "--resume": True})), [scores])
    assert saved_step(tmp_path / "run", "best.ckpt") == 8


def test_a_run_that_is_stopped_in_its_last_validation_validates_when_it_is_resumed(
    options: dict[str, Any], tmp_path: Path
) -> None:
    class StopInValidation(lightning.Callback):
        def on_validation_start(self, trainer: lightning.Trainer, *_: object) -> None:
            raise RuntimeError("the power went out")

    # The last step is one with a checkpoint, too.
    run = {**options, "--output": tmp_path / "run", "--steps": 4, "--validate-every": 100}
    with pytest.raises(RuntimeError, match="the power went out"):
        train(*parse_args(words(run)), [StopInValidation()])
    assert main(words({**run, "--resume": True})) == 0
    assert saved_step(tmp_path / "run", "best.ckpt") == 4


def test_no_picture_ends_a_run(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model.training.curve.draw_curve", draw)
    assert main(words({**options, "--output": tmp_path / "run", "--steps": 2})) == 0
    assert {"best.ckpt", "last.ckpt", "tiny.safetensors"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert "could not be drawn: [Errno 28] No space left on device" in capsys.readouterr().err


def test_a_loss_that_there_is_not_is_not_shown(options: dict[str, Any], tmp_path: Path) -> None:
    shown = {}
    for name, source in (("real", tmp_path / "real"), ("rendered", tmp_path / "rendered")):
        run = {**options, "--source": source, "--output": tmp_path / name, "--steps": 2, "--trainer.log_every_n_steps": 1}
        assert main(words(run)) == 0
        shown[name] = read_logs(tmp_path / name)
    assert "glyph_loss" not in shown["real"]
    assert [step for step, _ in shown["rendered"]["glyph_loss"]] == [step for step, _ in shown["real"]["loss"]] == [1, 2]


def test_crops_behind_links_are_found_once(options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "linked"
    folder.mkdir()
    for name in ("rendered", "real"):
        (folder / name).symlink_to(tmp_path / name, target_is_directory=True)
    (tmp_path / "real" / "loop").symlink_to(folder, target_is_directory=True)
    run = {**options, "--source": folder, "--output": tmp_path / "run", "--steps": 1}
    assert main(words(run)) == 0
    told = capsys.readouterr().err
    assert told.count("24 rendered crops") == 2  # validated on, too
    assert told.count("12 crops, 0 left out") == 1


class WatchBar(lightning.Callback):
    """The progress bar before each step, and when all are done."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def look(self, trainer: lightning.Trainer) -> None:
        bar = trainer.progress_bar_callback
        assert isinstance(bar, TQDMProgressBar)
        self.seen.append((bar.train_progress_bar.n, bar.train_progress_bar.total))

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        self.look(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.look(trainer)


def test_the_bar_counts_steps_those_before_a_resume_included(options: dict[str, Any], tmp_path: Path) -> None:
    run = {
        **options,
        "--output": tmp_path / "run",
        "--trainer.enable_progress_bar": "true",
        "--trainer.accumulate_grad_batches": 2,
    }
    for steps, first in ((2, 0), (4, 2)):
        watch = WatchBar()
        train(*parse_args(words({**run, "--steps": steps, "--resume": True})), [watch])
        batches = [step for step in range(first, steps) for _ in range(2)]
        assert watch.seen == [(step, steps) for step in [*batches, steps]]


def test_a_bar_of_ones_own_takes_the_place_of_the_bar(options: dict[str, Any], tmp_path: Path) -> None:
    bar = {"class_path": "lightning.pytorch.callbacks.TQDMProgressBar", "init_args": {"refresh_rate": 0}}
    run = {**options, "--output": tmp_path / "run", "--steps": 1, "--trainer.callbacks": json.dumps(bar)}
    assert main(words({**run, "--trainer.enable_progress_bar": "true"})) == 0


class Follow(lightning.Callback):
    """The network's weights after each step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object) -> None:
        self.seen.append(pl_module.get_parameter("model.head.bias").detach().clone())


@pytest.mark.parametrize("variant", ["ema", "swa"])
def test_the_average_is_what_is_left(options: dict[str, Any], variant: str, tmp_path: Path) -> None:
    output, follow = tmp_path / "run", Follow()
    averages = {"ema": {"--ema-decay": 0.9}, "swa": {"--average-from": 0.5}}
    train(*parse_args(words({**options, "--average": variant, **averages[variant], "--output": output})), [follow])
    if variant == "swa":
        # Half of six steps are over: what follows counts in equal parts, from the state then.
        expected = torch.stack(follow.seen[2:]).mean(0)
    else:
        expected, rule = follow.seen[0], EMA(0.9)
        for count, current in enumerate(follow.seen[1:], start=1):
            expected = torch.lerp(expected, current, 1 - rule.decay_after(count))
    for name in ("last.ckpt", "tiny.safetensors"):
        torch.testing.assert_close(state(output, name)["head.bias"], expected)
    assert not torch.equal(expected, follow.seen[-1])


def test_before_averaging_begins_the_weights_are_the_runs_own(options: dict[str, Any], tmp_path: Path) -> None:
    output, follow = tmp_path / "run", Follow()
    late = {"--average": "swa", "--average-from": 1.0}
    train(*parse_args(words({**options, **late, "--output": output})), [follow])
    assert torch.equal(state(output)["head.bias"], follow.seen[-1])


def test_a_run_that_averages_is_not_resumed_without(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {**options, "--output": tmp_path / "run"}
    assert main(words({**run, "--average": "ema"})) == 0
    assert main(words({**run, "--resume": True})) == 2
    assert "averages its weights: resume it with the same --average" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_run_that_leaves_the_numbers_is_stopped(
    options: dict[str, Any], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def poisoned(args: Any, trainer_options: dict[str, Any]) -> Path:
        return train(args, trainer_options, [Poison(4, what)])

    monkeypatch.setattr("model.training.train.train", poisoned)
    assert main(words({**options, "--output": tmp_path / "run"})) == 3
    assert f"the {what} of step 5 is not a number (learning rate" in capsys.readouterr().err
    assert all(value.isfinite().all() for value in state(tmp_path / "run").values())


def test_epochs_are_passes_over_the_crops(options: dict[str, Any], tmp_path: Path) -> None:
    # 24 rendered crops and 12 real ones, six a step.
    del options["--steps"]
    assert main(words({**options, "--output": tmp_path / "run", "--epochs": 0.5})) == 0
    assert saved_step(tmp_path / "run", "last.ckpt") == 3


def test_data_that_cannot_be_used(options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "fonts").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "shard-00000.npz").write_bytes(b"no shard")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"--source": tmp_path / "empty"}, "holds no crops: no LMDB archive"),
        ({"--source": tmp_path / "damaged"}, "shard-00000.npz is not a shard of crops"),
        ({"--real": tmp_path / "real"}, "not both"),
        ({"--source": [], "--train-dir": "real"}, "give that too"),
        ({"--source": [], "--render": True, "--render-fonts": tmp_path / "fonts"}, "no usable font face"),
        ({"--source": []}, "nothing to train on"),
        ({"--weights": tmp_path / "none.pt"}, "there is no weights file"),
    ]
    for index, (changes, message) in enumerate(cases):
        assert main(words({**options, "--output": tmp_path / f"run{index}", **changes})) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "ours"),
    [
        (["--synthetic", "rendered", "--real", "real"], [False, True]),
        (["--real", "real"], [True]),
        (["--source", "real", "--source", "rendered"], [True, False]),
    ],
)
def test_rand_augment_can_be_for_real_crops_alone(
    options: list[str], ours: list[bool], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_archive(tmp_path / "real", 20)
    write_shards(tmp_path / "rendered")
    words = [word if word.startswith("--") else str(tmp_path / word) for word in options]
    args, _ = parse_args([*words, "--augment-real", "reference", "--output", str(tmp_path / "run")])
    data = build_data(args, named_config("parseq-nano"), 0)
    assert [isinstance(part.source, AugmentedSource) for part in data.training] == ours
    told = capsys.readouterr().err
    assert "real: 20 crops, 0 left out" in told
    assert ("rendered: 24 rendered crops" in told) == any(word.endswith("rendered") for word in words)
    # Those that are kept for validation are read as they are.
    assert not any(isinstance(source, AugmentedSource) for source in data.validation.values())


def test_rand_augment_leaves_rendered_crops_alone_in_a_folder_with_both(tmp_path: Path) -> None:
    # What is rendered is told by what is stored, not by what it is called.
    write_shards(tmp_path / "both" / "drawn")
    write_archive(tmp_path / "both" / "rendered", 20)
    args, _ = parse_args(["--source", str(tmp_path / "both"), "--augment-real", "reference", "--output", str(tmp_path / "run")])
    data = build_data(args, named_config("parseq-nano"), 0)
    (mixed,) = (part.source for part in data.training)
    assert isinstance(mixed, JoinedSource)
    drawn, real = mixed.parts
    assert isinstance(drawn, RenderedCrops)
    assert isinstance(real, AugmentedSource)
    assert [len(drawn), len(real), len(data.validation["real"])] == [24, 18, 2]
    assert data.workers > 0
    assert data.broken() == {}


def test_the_references_folders(options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    for place in ("train/real/A/one", "train/real/B", "train/synth/C", "val/D"):
        write_archive(root / place)
    del options["--source"], options["--validation"]
    run = {**options, "--data-root": root, "--train-dir": "real", "--output": tmp_path / "run", "--steps": 1}
    assert main(words({**run, "--validate-every": 1})) == 0
    told = capsys.readouterr().err
    assert [name for name in ("one", "B", "C", "D") if f"{name}: 12 crops, 0 left out" in told] == ["one", "B", "D"]
    assert "accuracy_validation" in (tmp_path / "run" / "log-0" / "metrics.csv").read_text()


def test_augmentation_of_batches_works_on_any_device() -> None:
    images = torch.empty(4, 3, 32, 128, device="meta")
    warped, centers = warp(jitter_colours(images), torch.empty(4, 25, 2, device="meta"))
    assert (warped.device.type, centers.device.type) == ("meta", "meta")


def test_each_process_alters_its_part_of_the_batch_as_one_would() -> None:
    images, centers = torch.rand(6, 3, 32, 128), torch.rand(6, 25, 2)
    torch.manual_seed(1)
    whole = warp(jitter_colours(images), centers)
    for rank in range(2):
        shard = Shard(rank, 2)
        torch.manual_seed(1)
        part = warp(jitter_colours(images[rank::2], shard), centers[rank::2], shard)
        torch.testing.assert_close(part, (whole[0][rank::2], whole[1][rank::2]))
