"""The training job in the small: losses, augmentation, schedule, resuming."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.augmentation.batches import jitter_colours, warp
from model.checkpoints.loading import load
from model.data.crops import Batch, CropArrays
from model.recognisers.parseq.network import PARSeq
from model.recognisers.parseq.permutations import draw_permutations
from model.recognisers.parseq.training import PARSeqTraining
from model.training.curve import read_logs
from model.training.data import VALIDATION_BATCH, validation_loader
from model.training.system import RecognitionSystem
from model.training.train import main
from tests.archives import png, write_lmdb
from tests.training_runs import TINY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "synthetic"
    folder.mkdir()
    rng = np.random.default_rng(1)
    labels = ["one", "Two", "3", "four!", "#5", "six"] * 4
    centers = np.full((24, 25, 2), np.nan, np.float16)
    for row, label in zip(centers, labels, strict=True):
        row[: len(label)] = rng.random((len(label), 2))
    images = rng.integers(0, 255, (24, 32, 128, 3), np.uint8)
    np.savez(folder / "shard-00000.npz", images=images, labels=np.array(labels), glyph_centers=centers)
    return folder


def arguments(tmp_path: Path, shards: Path, output: str, steps: int) -> list[str]:
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps(TINY))
    real = tmp_path / "real"
    if not real.exists():
        write_lmdb(real, [(png(i), f"w{i}") for i in range(12)])
    values = {
        "--config": config,
        "--synthetic": shards,
        "--synthetic-validation": shards,
        "--real": real,
        "--output": tmp_path / output,
        "--steps": steps,
        "--batch-size": 6,
        "--validate-every": 2,
        "--checkpoint-every": 2,
        "--warmup-steps": 2,
        "--threads": 1,
    }
    return [str(word) for pair in values.items() for word in pair]


@pytest.mark.draws
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Nothing of the decay may fall into the first part, whose length the schedule would otherwise tell apart.
    whole = [*arguments(tmp_path, shards, "whole", 8), "--decay-fraction", "0.1"]
    assert main(whole) == 0
    first = [*arguments(tmp_path, shards, "parts", 4), "--decay-fraction", "0.1"]
    assert main(first) == 0
    assert main(first) == 2
    assert "already holds a run: add --resume" in capsys.readouterr().err
    assert main([*arguments(tmp_path, shards, "parts", 8), "--decay-fraction", "0.1", "--resume"]) == 0
    expected = load(weights=tmp_path / "whole" / "last.ckpt").state_dict()
    resumed = load(weights=tmp_path / "parts" / "last.ckpt").state_dict()
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)
    exported = load(
        config=load(weights=tmp_path / "whole" / "last.ckpt").config, weights=tmp_path / "whole" / "tiny.safetensors"
    )
    assert all(torch.equal(expected[key], value) for key, value in exported.state_dict().items())
    logs = read_logs(tmp_path / "parts")
    assert {"accuracy_synthetic", "accuracy_real"} <= logs.keys()
    assert (tmp_path / "parts" / "curve.png").stat().st_size > 1000


def test_training_begins_with_given_weights(tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(7)
    start = PARSeq(objective().config)
    torch.save(start.state_dict(), tmp_path / "start.pt")
    options = [*arguments(tmp_path, shards, "run", 1), "--weights", str(tmp_path / "start.pt"), "--lr", "0"]
    assert main(options) == 0
    weights = load(config=start.config, weights=tmp_path / "run" / "tiny.safetensors")
    assert all(torch.equal(value, weights.get_parameter(name)) for name, value in start.named_parameters())
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    assert main([*arguments(tmp_path, shards, "other", 1), "--weights", str(tmp_path / "bad.pt")]) == 2
    assert "bad.pt" in capsys.readouterr().err


def test_validation_reads_every_crop_once_in_order() -> None:
    count = VALIDATION_BATCH + 7
    images = np.zeros((count, 32, 128, 3), np.uint8)
    crops = CropArrays(images, [str(i) for i in range(count)], np.zeros((count, 25, 2), np.float16))
    batches = list(validation_loader(crops))
    assert [label for batch in batches for label in batch.labels] == crops.labels
    assert [len(batch.images) for batch in batches] == [VALIDATION_BATCH, 7]


def test_validation_on_real_crops_alone_is_called_real(tmp_path: Path, shards: Path) -> None:
    options = arguments(tmp_path, shards, "run", 2)
    at = options.index("--synthetic-validation")
    assert main(options[:at] + options[at + 2 :]) == 0
    logs = read_logs(tmp_path / "run")
    assert "accuracy_real" in logs
    assert "accuracy_synthetic" not in logs


def test_nothing_to_train_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output", str(tmp_path / "run")]) == 2
    assert "nothing to train on" in capsys.readouterr().err


def system(**options: Any) -> RecognitionSystem:
    torch.manual_seed(0)
    return RecognitionSystem(TINY, **options)


def objective(**options: Any) -> PARSeqTraining:
    found = system(**options).objective
    assert isinstance(found, PARSeqTraining)
    return found


def test_training_learns_one_batch() -> None:
    torch.manual_seed(0)
    model = PARSeq(objective().config).train()
    targets = model.tokenizer.encode(["ab", "Cd3"])
    orders = torch.tensor([[0, 1, 2, 3, 4], [0, 4, 3, 2, 1]])
    images = torch.randn(2, 3, 32, 128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = model.permutation_loss(model.encode(images), targets, orders)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
    model.eval()
    # Batch norm has seen but this batch, and its running mean lags: read with the statistics of the batch.
    model.encoder.train()
    texts, _ = model.tokenizer.decode(model(images, decode_ar=True, refine_iters=1).softmax(-1))
    assert texts == ["ab", "Cd3"]


@pytest.mark.parametrize("dec_depth", [1, 2])
def test_the_loss_of_crops_without_text(dec_depth: int) -> None:
    torch.manual_seed(0)
    model = PARSeq(replace(objective().config, dec_depth=dec_depth)).eval()
    memory = model.encode(torch.randn(2, 3, 32, 128))
    # All of them empty: one order, in which the end token alone is predicted.
    targets = model.tokenizer.encode(["", ""])
    orders = draw_permutations(0, np.random.default_rng(0))
    assert targets.tolist() == [[model.tokenizer.bos_id, model.tokenizer.eos_id]] * 2
    assert orders.tolist() == [[0, 1]]
    loss = model.permutation_loss(memory, targets, orders)
    content = model.embed_tokens(targets[:, :1])
    logits = model.head(model.decoder(model.pos_queries[:, :1], content, model.decoder.project_memory(memory)))
    torch.testing.assert_close(loss, -logits.log_softmax(-1)[:, 0, model.tokenizer.eos_id].mean())
    # Beside others: the sum is that of the parts, and a longer neighbour changes nothing of an empty one's share.
    for length in (1, 2, 3, 5):
        targets = model.tokenizer.encode(["", "abcde"[:length]])
        orders = draw_permutations(length, np.random.default_rng(0))
        one = torch.tensor(1)
        parts = [model.permutation_loss(memory[i : i + 1], targets[i : i + 1], orders, one) for i in (0, 1)]
        torch.testing.assert_close(model.permutation_loss(memory, targets, orders, one), sum(parts))
        ends = -logits[:1].log_softmax(-1)[0, 0, model.tokenizer.eos_id]
        torch.testing.assert_close(parts[0], ends * min(2, len(orders)))


@pytest.mark.parametrize("lazy", ["--lazy", "--no-lazy"])
@pytest.mark.parametrize("labels", [[""], ["", "one", "Two", "!é"]])
def test_training_on_crops_without_text(
    tmp_path: Path, lazy: str, labels: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    write_lmdb(tmp_path / "real", [(png(i), labels[i % len(labels)]) for i in range(12)])
    real = str(tmp_path / "real")
    options = ["--config", str(tmp_path / "tiny.json"), "--source", real, "--validation", real, "--charset", "62", lazy]
    options += ["--batch-size", "4", "--steps", "3", "--validate-every", "2", "--threads", "1", "--workers", "0"]
    assert main([*options, "--output", str(tmp_path / "run"), "--keep-empty"]) == 0
    assert "real: 12 crops, 0 left out" in capsys.readouterr().err
    assert main([*options, "--output", str(tmp_path / "without")]) == (2 if labels == [""] else 0)
    assert ("no usable crop" if labels == [""] else "real: 9 crops, 3 left out") in capsys.readouterr().err


class TestCtcLoss:
    @staticmethod
    def told(module: PARSeqTraining, ids: list[int]) -> torch.Tensor:
        """Memory whose columns name these ids, surely."""
        rows, columns = module.config.grid
        assert module.ctc_head is not None
        torch.nn.init.zeros_(module.ctc_head.weight)
        torch.nn.init.zeros_(module.ctc_head.bias)
        memory = torch.zeros(1, rows, columns, 16)
        for kind in set(ids):
            module.ctc_head.weight.data[kind, kind % 16] = 50.0
            memory[0, :, [column for column, named in enumerate(ids) if named == kind], kind % 16] = 1.0
        return memory.flatten(1, 2)

    def test_a_text_spread_over_the_columns(self) -> None:
        module = objective(ctc_weight=1.0)
        # The blank (0) between the two stands for the end of a letter that comes again.
        memory = self.told(module, [1, 1, 0, 1, 2] + [0] * (module.config.grid[1] - 5))
        encode = module.network.tokenizer.encode
        assert module.ctc_loss(memory, encode(["001"])).item() < 1e-6
        assert module.ctc_loss(memory, encode(["01"])).item() > 1
        # What pads the shorter text is no part of it.
        alone = [module.ctc_loss(memory, encode([text])).item() for text in ("001", "1")]
        together = module.ctc_loss(memory.repeat(2, 1, 1), encode(["001", "1"])).item()
        assert together == pytest.approx(sum(alone) / 2, rel=1e-5)

    def test_no_text(self) -> None:
        module = objective(ctc_weight=1.0)
        memory = self.told(module, [0] * module.config.grid[1])
        assert module.ctc_loss(memory, module.network.tokenizer.encode([""])).item() < 1e-6

    def test_a_text_longer_than_the_columns_counts_nothing(self) -> None:
        module = objective(ctc_weight=1.0)
        memory = self.told(module, [0] * module.config.grid[1])
        assert module.ctc_loss(memory, module.network.tokenizer.encode(["a" * 60])).item() == 0

    def test_without_it_there_is_no_head(self) -> None:
        assert objective().ctc_head is None


def test_glyph_loss_looks_at_the_token_under_the_glyph() -> None:
    module = objective()
    rows, columns = module.config.grid
    memory = torch.zeros(1, rows * columns, 16)
    # The glyph is at 60 % of the width and 30 % of the height.
    memory[0, int(0.3 * rows) * columns + int(0.6 * columns), 0] = 1.0
    targets = module.network.tokenizer.encode(["7"])
    torch.nn.init.zeros_(module.glyph_head.weight)
    torch.nn.init.zeros_(module.glyph_head.bias)
    module.glyph_head.weight.data[7, 0] = 50.0
    hit = module.glyph_loss(memory, targets, torch.tensor([[[0.6, 0.3]]]))
    miss = module.glyph_loss(memory, targets, torch.tensor([[[0.1, 0.9]]]))
    outside = module.glyph_loss(memory, targets, torch.tensor([[[1.2, 0.3]]]))
    unknown = module.glyph_loss(memory, targets, torch.full((1, 1, 2), torch.nan))
    assert hit.item() < 1e-6
    assert miss.item() == pytest.approx(np.log(94), abs=1e-3)
    assert outside.item() == unknown.item() == 0


def test_warp_moves_centres_with_the_pixels() -> None:
    torch.manual_seed(0)
    count, x, y = 32, 80, 12
    images = torch.full((count, 3, 32, 128), -1.0)
    images[:, :, y - 1 : y + 2, x - 1 : x + 2] = 1.0
    centers = torch.tensor([(x + 0.5) / 128, (y + 0.5) / 32]).expand(count, 1, 2)
    warped, moved = warp(images, centers)
    weight = (warped[:, 0] + 1) / 2
    total = weight.sum((1, 2))
    seen_x = (weight.sum(1) * (torch.arange(128) + 0.5)).sum(1) / total / 128
    seen_y = (weight.sum(2) * (torch.arange(32) + 0.5)).sum(1) / total / 32
    assert (moved - centers).abs().max() > 0.01
    torch.testing.assert_close(moved[:, 0], torch.stack([seen_x, seen_y], 1), atol=0.01, rtol=0)


def test_unknown_centres_stay_unknown() -> None:
    _, moved = warp(torch.zeros(2, 3, 32, 128), torch.full((2, 5, 2), torch.nan))
    assert moved.isnan().all()


def test_jitter_keeps_range_and_shape() -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 3, 32, 128) * 2 - 1
    jittered = jitter_colours(images)
    assert jittered.shape == images.shape
    assert jittered.abs().max() <= 1
    assert not torch.equal(jittered, images)


def test_learning_rate_warms_up_stays_and_falls() -> None:
    module = system()
    module.warmup_steps, module.decay_fraction = 4, 0.25

    class Trainer:
        max_steps = 100

    module._trainer = Trainer()  # type: ignore[assignment]
    factors = [module.learning_rate_factor(step) for step in range(101)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert set(factors[4:75]) == {1.0}
    assert factors[75:] == sorted(factors[75:], reverse=True)
    assert factors[-1] == 0


def test_a_batch_is_a_tuple_that_lightning_can_move() -> None:
    assert Batch(torch.zeros(1), ["a"], torch.zeros(1))._fields == ("images", "labels", "centers")
