"""Averaged weights of a network with batch norm: statistics that belong to them, and nothing averaged that has no average."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn

from model.checkpoints.loading import load
from model.training.averaging import EMA, NormBefore, copy_tables, keeps_statistics, of_this_step
from model.training.train import parse_args, train
from tests.archives import png, write_lmdb
from tests.toy_relatives import NormedToy, relatives_registered
from tests.training_runs import words

AVERAGES: dict[str, dict[str, Any]] = {
    "ema": {"--average": "ema", "--ema-decay": 0.9},
    "swa": {"--average": "swa", "--average-from": 0.5},
}
STEPS = 12


class Follow(lightning.Callback):
    """The network after each step, what it saw, and what it validated with which logits."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []
        self.images: list[Tensor] = []
        self.validated: list[tuple[Tensor, Tensor]] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        def look(module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
            if module.training:
                self.images.append(inputs[0].clone())
            else:
                self.validated.append((inputs[0].clone(), logits.clone()))

        pl_module.get_submodule("model").register_forward_hook(look)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object) -> None:
        self.states.append(copy.deepcopy(pl_module.get_submodule("model").state_dict()))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with relatives_registered():
        yield


def run(tmp_path: Path, average: str, **more: Any) -> tuple[NormedToy, Follow]:
    """The network that a run leaves in its checkpoint, and what happened on the way."""
    write_lmdb(tmp_path / "crops", [(png(i), ["a", "ba", "abba"][i % 3]) for i in range(12)])
    options = {
        "--model": "normed",
        "--source": tmp_path / "crops",
        "--validation": tmp_path / "crops",
        "--output": tmp_path / average,
        "--batch-size": 6,
        "--steps": STEPS,
        "--warmup-steps": 1,
        "--lr": 1e-3,
        "--validate-every": STEPS,
        "--threads": 1,
        "--trainer.enable_progress_bar": "false",
        **AVERAGES[average],
        **more,
    }
    follow = Follow()
    train(*parse_args(words(options)), [follow])
    network = load(weights=tmp_path / average / "last.ckpt")
    assert isinstance(network, NormedToy)
    return network, follow


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("average", AVERAGES)
class TestRuns:
    def test_statistics_are_averaged_as_the_weights_are_and_nothing_else_is(self, average: str, tmp_path: Path) -> None:
        network, follow = run(tmp_path, average)
        norm = "features.model.1"
        begin = {f"{norm}.running_mean": torch.zeros(4), f"{norm}.running_var": torch.ones(4)}
        rule, last = EMA(0.9), follow.states[-1]
        for name, value in network.state_dict().items():
            seen = [state[name] for state in follow.states]
            if name in ("table", f"{norm}.num_batches_tracked"):
                assert torch.equal(value, seen[-1]), name
                continue
            if name in begin:
                # Of each batch alone: a running one is nine parts of what it was and one of the batch.
                batches = [10 * after - 9 * before for before, after in pairwise([begin[name], *seen])]
                seen = batches if average == "ema" else [*seen[: STEPS // 2], *batches[STEPS // 2 :]]
            counted = seen if average == "ema" else seen[STEPS // 2 - 1 :]
            wanted = counted[0]
            for count, current in enumerate(counted[1:], start=1):
                share = 1 - rule.decay_after(count) if average == "ema" else 1 / (count + 1)
                wanted = wanted + share * (current - wanted)
            torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5, msg=name)
            assert not torch.equal(value, last[name]), name
        assert int(last[f"{norm}.num_batches_tracked"]) == STEPS

    def test_what_is_validated_is_what_is_saved(self, average: str, tmp_path: Path) -> None:
        network, follow = run(tmp_path, average)
        left = load(weights=tmp_path / average / "normed.safetensors")
        assert all(torch.equal(value, left.state_dict()[name]) for name, value in network.state_dict().items())
        last = copy.deepcopy(network)
        last.load_state_dict(follow.states[-1])
        [(images, logits)] = follow.validated
        with torch.inference_mode():
            torch.testing.assert_close(logits, network(images))
            assert (logits - last(images)).abs().max() > 1e-3

    def test_a_finished_run_that_is_resumed_leaves_the_average_again(self, average: str, tmp_path: Path) -> None:
        network, _ = run(tmp_path, average)
        (weights := tmp_path / average / "normed.safetensors").unlink()
        shutil.rmtree(tmp_path / "crops")
        run(tmp_path, average, **{"--resume": True})
        left = load(weights=weights).state_dict()
        assert all(torch.equal(value, left[name]) for name, value in network.state_dict().items())

    def test_the_statistics_belong_to_the_averaged_weights(self, average: str, tmp_path: Path) -> None:
        # The same crops in every step, so that the weights alone make a difference.
        steps = {"--steps": 80, "--validate-every": 80, "--batch-size": 12, "--augment": "none", "--lr": 1e-3}
        network, follow = run(tmp_path, average, **steps)
        norm = network.features["model"][1]
        anew = copy.deepcopy(network)
        fresh = anew.features["model"][1]
        fresh.reset_running_stats()
        fresh.momentum = None  # the mean over all batches
        anew.train()
        with torch.no_grad():
            for images in follow.images[-30:]:
                anew(images)
        spread = fresh.running_var.sqrt()
        assert ((norm.running_mean - fresh.running_mean) / spread).abs().max() < 0.1
        torch.testing.assert_close(norm.running_var, fresh.running_var, rtol=0.05, atol=0)
        # Those that training goes on with are of other weights.
        running = follow.states[-1]["features.model.1.running_mean"]
        assert ((running - fresh.running_mean) / spread).abs().max() > (
            (norm.running_mean - fresh.running_mean) / spread
        ).abs().max()


def test_batches_since_a_norm_was_looked_at() -> None:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(3)
    norm(torch.randn(4, 3, 5, 5) + 7)
    assert keeps_statistics(norm)
    looked = NormBefore(norm)
    # None: as they are.
    assert all(torch.equal(value, norm.get_buffer(name)) for name, value in looked.since().items())
    first, second = torch.randn(2, 4, 3, 5, 5)
    norm(first)
    torch.testing.assert_close(looked.since()["running_mean"], first.mean((0, 2, 3)), rtol=0, atol=1e-5)
    torch.testing.assert_close(looked.since()["running_var"], first.transpose(0, 1).flatten(1).var(1), rtol=0, atol=1e-5)
    norm(second)
    mean = (0.9 * first.mean((0, 2, 3)) + second.mean((0, 2, 3))) / 1.9
    torch.testing.assert_close(looked.since()["running_mean"], mean, rtol=0, atol=1e-5)
    kept = norm.get_buffer("running_mean").clone()
    with of_this_step([looked]):
        torch.testing.assert_close(norm.running_mean, mean, rtol=0, atol=1e-5)
    assert torch.equal(norm.get_buffer("running_mean"), kept)
    norm.eval()
    looked.look()
    norm(first)
    assert torch.equal(looked.since()["running_mean"], kept)
    assert not keeps_statistics(nn.BatchNorm2d(3, track_running_stats=False))
    assert not keeps_statistics(nn.LayerNorm(3))


def test_tables_do_not_drift() -> None:
    averaged, current = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    for module, value in ((averaged, 0.1), (current, 0.3)):
        module.register_buffer("table", torch.full((3,), value))
        assert module.running_mean is not None
        module.running_mean.fill_(value)
    assert current.num_batches_tracked is not None
    current.num_batches_tracked.fill_(7)
    copy_tables(current, averaged)
    assert averaged.num_batches_tracked is not None
    assert int(averaged.num_batches_tracked) == 7
    assert averaged.get_buffer("table").tolist() == current.get_buffer("table").tolist()
    assert averaged.running_mean is not None
    assert averaged.running_mean.tolist() == pytest.approx([0.1, 0.1])
