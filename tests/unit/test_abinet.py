"""ABINet: its configuration, its parts, how it begins and how it learns."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from model.checkpoints.loading import load, read_weights, save_weights
from model.distributed import ALONE, Shard
from model.errors import ConfigError
from model.recognisers.abinet.config import ABINetConfig
from model.recognisers.abinet.language import text_lengths
from model.recognisers.abinet.layers import SineTable
from model.recognisers.abinet.network import ABINet
from model.recognisers.abinet.options import ABINetOptions
from model.recognisers.abinet.training import ABINetTraining
from model.recognisers.interface import Step
from model.recognisers.parts import token_loss as token_loss_module
from model.recognisers.registry import read_config, recogniser_of
from model.training.finetune import begin_with
from tests.small_abinet import KINDS, SIZES, small_abinet

LABELS = ["abc", "x", "1234567"]
CENTRES = torch.full((4, 7, 2), torch.nan)


def at(number: int, of: int = 18, shard: Shard = ALONE, batch: int | None = None) -> Step:
    return Step(number, of, number if batch is None else batch, 3, shard)


def pictures(count: int = len(LABELS)) -> torch.Tensor:
    return torch.randn(count, 3, 32, 128, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"img_size": [64, 128]}, "img_size of an ABINet is 32x128, not 64x128"),
        ({"v_attention_mode": "bilinear"}, "v_attention_mode of an ABINet is 'nearest', not 'bilinear'"),
        ({"v_backbone": "vgg"}, "v_backbone must be 'transformer' or 'resnet', not 'vgg'"),
        ({"v_attention": "both"}, "v_attention must be 'position' or 'attention'"),
        ({"activation": "tanh"}, "activation must be 'relu' or 'gelu'"),
        ({"d_model": 40, "nhead": 2}, "d_model 40 is not a positive multiple of 16"),
        ({"d_model": 0}, "d_model 0 is not a positive multiple"),
        ({"nhead": 7}, "d_model 512 is not a positive multiple of nhead 7"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
        ({"dropout": float("nan")}, "dropout must be at least 0"),
        ({"iter_size": 0}, "iter_size must be at least 1"),
        ({"l_num_layers": 0}, "l_num_layers must be at least 1"),
        ({"max_label_length": 0}, "max_label_length must be at least 1"),
        ({"a_loss_weight": -1.0}, "a_loss_weight must be at least 0"),
        ({"v_loss_weight": float("nan")}, "v_loss_weight must be at least 0"),
        ({"charset_train": "aa"}, "charset_train must hold distinct characters"),
        ({"embed_dim": 96}, "unknown configuration names: embed_dim"),
        ({"l_use_self_attn": 1}, "l_use_self_attn must be of type bool"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ABINetConfig.from_mapping(values)


def test_files_of_the_reference(tmp_path: Path) -> None:
    # YAML takes a rate that is written so for a word.
    of_the_job = {"lr": 3.4e-4, "l_lr": "3e-4", "lm_only": False, "batch_size": 384, "charset_test": "0"}
    (tmp_path / "c.json").write_text(json.dumps({"cls": "ABINet", "system_args": {**of_the_job, "v_num_layers": 2}}))
    assert read_config(tmp_path / "c.json") == ABINetConfig(v_num_layers=2)
    config = ABINetConfig(l_use_self_attn=True)
    assert ABINetConfig.from_mapping(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"language_lr": -1.0}, "--language-lr must be at least 0, not -1"),
        ({"language_lr": float("nan")}, "--language-lr must be at least 0"),
        ({"apart_fraction": 1.5}, "--apart-fraction must be between 0 and 1, not 1.5"),
        ({"apart_fraction": float("nan")}, "--apart-fraction must be between 0 and 1"),
    ],
)
def test_bad_options_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ABINetOptions(**values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sizes_that_are_reckoned_are_there(kind: str) -> None:
    config = ABINetConfig(**{**SIZES, **KINDS[kind]})
    state = ABINet(config).state_dict()
    tensors, numbers = config.least_size()
    assert tensors <= len(state)
    held = sum(values.numel() for values in state.values())
    assert held / 10 < numbers <= held


# What begins how.


@pytest.mark.parametrize("kind", ["position", "additive", "self-attention"])
def test_it_begins_as_the_reference_does(kind: str) -> None:
    torch.manual_seed(0)
    model = ABINet(ABINetConfig(**{**SIZES, **KINDS[kind], "d_model": 64}))
    convolutions = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)}
    norms = {name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d | torch.nn.LayerNorm)}
    seen = set()
    for name, values in model.named_parameters():
        layer, _, last = name.rpartition(".")
        seen.add(last if values.dim() > 1 else "vector")
        if values.dim() == 1:
            assert (values == (1 if layer in norms and last == "weight" else 0)).all(), name
            continue
        if last == "in_proj_weight":
            wanted = math.sqrt(6 / sum(values.shape)) / math.sqrt(3)  # Xavier, uniform
        elif layer in convolutions:
            wanted = math.sqrt(2 / (values.shape[0] * values[0, 0].numel()))  # Kaiming, by the fan out
        else:
            wanted = 0.02
        count = math.sqrt(values.numel())
        assert values.std().item() == pytest.approx(wanted, rel=4 / count), name
        assert abs(values.mean().item()) < 5 * wanted / count, name
    assert seen == {"vector", "weight", "in_proj_weight"}


def test_the_table_of_positions() -> None:
    table = SineTable(26, 512).pe
    assert table.shape == (26, 1, 512)
    for position, place in ((0, 0), (1, 0), (25, 0), (7, 10), (25, 510)):
        angle = position / 10000 ** (place / 512)
        assert table[position, 0, place].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[position, 0, place + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)
    torch.testing.assert_close(SineTable(40, 512).pe[:26], table)


# What the language part sees.


def test_lengths_of_texts() -> None:
    ids = torch.tensor([[3, 2, 0, 1, 0], [0, 0, 0, 0, 0], [1, 2, 3, 1, 2], [1, 2, 3, 1, 0]])
    assert text_lengths(F.one_hot(ids, 4).float()).tolist() == [3, 1, 5, 5]


@pytest.mark.parametrize("own", [False, True])
def test_no_step_is_told_its_own_character_or_what_is_behind_the_end(own: bool) -> None:
    language = small_abinet(l_use_self_attn=own).language
    given = torch.rand(1, 8, 37, generator=torch.Generator().manual_seed(1)).softmax(-1)
    with torch.inference_mode():
        before, _ = language(given, torch.tensor([5]))
        for changed in range(8):
            other = given.clone()
            other[:, changed] = other[:, changed].flip(-1)
            after, _ = language(other, torch.tensor([5]))
            moved = (after != before).any(-1)[0].tolist()
            assert not moved[changed] or own
            if changed >= 5:
                assert not any(moved)
            else:
                assert all(moved[step] for step in range(8) if step != changed)


def test_of_a_text_without_characters_two_steps_are_seen() -> None:
    language = small_abinet().language
    given = torch.rand(3, 8, 37).softmax(-1)
    with torch.inference_mode():
        features, _ = language(given, torch.tensor([1, 2, 8]))
        same, _ = language(given, torch.tensor([2, 2, 8]))
    assert torch.isfinite(features).all()
    assert torch.equal(features, same)


@pytest.mark.parametrize("iterations", [1, 3])
def test_passes_are_what_was_seen_and_each_iteration(iterations: int) -> None:
    model = small_abinet(iter_size=iterations)
    with torch.inference_mode():
        passes = model.passes(pictures())
        features, seen = model.vision(pictures())
        assert torch.equal(passes[0], seen)
        for number, logits in enumerate(passes[1:], start=1):
            assert torch.equal(logits, model.iterate(features, seen, number)[-1][1])
        assert torch.equal(passes[-1], model(pictures()))
        assert torch.equal(model(pictures(), 3), passes[-1][:, :4])
        assert torch.equal(model(pictures(), 99), passes[-1])
    assert len(passes) == 1 + iterations
    names = ["vision", "1 iteration", *(["3 iterations"] if iterations == 3 else [])]
    assert list(model.ways()) == names
    with torch.inference_mode():
        assert torch.equal(list(model.ways().values())[-1](pictures()), passes[-1])
    assert model.reads_by() == {"iterations": iterations}


# How it learns.


def of_steps(*numbers: int, **options: Any) -> list[tuple[ABINet, torch.Tensor, dict[str, torch.Tensor]]]:
    """The network after backward, the loss and what is logged, at these of 18 steps."""
    found = []
    for number in numbers:
        model = small_abinet().train()
        loss, logged = ABINetTraining(model, **options).loss(pictures(), LABELS, CENTRES, at(number))
        loss.backward()
        found.append((model, loss, logged))
    return found


def cross_entropy(model: ABINet, logits: torch.Tensor) -> torch.Tensor:
    targets = F.pad(model.tokenizer.encode(LABELS)[:, 1:], (0, 0), value=model.tokenizer.pad_id)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=model.tokenizer.pad_id)


@pytest.mark.parametrize("lm_only", [False, True])
@pytest.mark.parametrize("kind", ["position", "additive", "self-attention", "resnet-only"])
def test_every_parameter_has_a_gradient_in_every_step(kind: str, lm_only: bool) -> None:
    model = small_abinet(**KINDS[kind]).train()
    for number in (0, 7, 8, 17):
        model.zero_grad()  # to None
        ABINetTraining(model, lm_only=lm_only).loss(pictures(), LABELS, CENTRES, at(number))[0].backward()
        for name, values in model.named_parameters():
            assert values.grad is not None, name
            learns = name.startswith("language.") or not lm_only
            # A bias of scores moves them all together, and batch norm takes out that of its convolution; some ReLU are shut.
            if name.endswith("weight") and values.dim() > 1:
                assert (values.grad.abs().max() > 0) == learns, name


def test_the_parts_are_trained_apart_and_then_together() -> None:
    (apart, loss, logged), (_, _, last_apart), (joint, _, joint_logged) = of_steps(0, 7, 8)
    assert loss.item() == pytest.approx(sum(logged[part].item() for part in PARTS), rel=1e-6)
    assert logged["language_loss"].item() == last_apart["language_loss"].item()
    assert joint_logged["language_loss"].item() != pytest.approx(logged["language_loss"].item(), rel=1e-3)
    assert joint_logged["vision_loss"].item() == pytest.approx(logged["vision_loss"].item(), rel=1e-6)

    # Apart: vision learns from what it saw alone, the language part from the labels alone.
    model = small_abinet().train()
    seen = model.vision(pictures())[1]
    cross_entropy(model, seen).backward()
    ids = F.pad(model.tokenizer.encode(LABELS)[:, 1:], (0, 0))
    certain = F.one_hot(ids.masked_fill(ids == model.tokenizer.pad_id, 0), 37).float()
    cross_entropy(model, model.language(certain, torch.tensor([4, 2, 8]))[1]).backward()
    for name, values in model.named_parameters():
        if not name.startswith("alignment."):
            torch.testing.assert_close(apart.get_parameter(name).grad, values.grad)
    # Together: all losses reach what was seen.
    gradients = [network.get_parameter("vision.cls.weight").grad for network in (apart, joint)]
    torch.testing.assert_close(*gradients)
    gradients = [network.get_parameter("vision.attention.project.weight").grad for network in (apart, joint)]
    assert all(gradient is not None for gradient in gradients)
    assert not torch.allclose(*gradients)  # type: ignore[arg-type]


PARTS = ("vision_loss", "language_loss", "alignment_loss")


def test_all_iterations_count_alike_and_losses_by_their_weights() -> None:
    model = small_abinet(v_loss_weight=2.0, l_loss_weight=0.5, a_loss_weight=3.0).train()
    with torch.no_grad():
        loss, logged = ABINetTraining(model).loss(pictures(), LABELS, CENTRES, at(17))
        iterations = model.iterate(*model.vision(pictures()))
        language = sum(cross_entropy(model, logits).item() for logits, _ in iterations) / 3
        alignment = sum(cross_entropy(model, logits).item() for _, logits in iterations) / 3
    assert logged["language_loss"].item() == pytest.approx(language, rel=1e-4)
    assert logged["alignment_loss"].item() == pytest.approx(alignment, rel=1e-4)
    vision = logged["vision_loss"].item()
    assert loss.item() == pytest.approx(2 * vision + 0.5 * language + 3 * alignment, rel=1e-4)


@pytest.mark.parametrize(("detach", "reaches"), [(True, False), (False, True)])
def test_whether_spelling_teaches_what_was_read(detach: bool, reaches: bool) -> None:
    model = small_abinet(l_detach=detach, v_loss_weight=0.0, a_loss_weight=0.0).train()
    ABINetTraining(model).loss(pictures(), LABELS, CENTRES, at(17))[0].backward()
    gradient = model.vision.cls.weight.grad
    assert gradient is not None
    assert bool(gradient.abs().max() > 0) == reaches


@pytest.mark.parametrize(
    ("fraction", "steps", "apart"), [(8 / 18, 18, 8), (8 / 18, 9, 4), (8 / 18, 10, 5), (0, 10, 0), (1, 10, 10), (0.3, 10, 3)]
)
def test_how_many_steps_are_apart(fraction: float, steps: int, apart: int) -> None:
    assert ABINetTraining(small_abinet(), apart_fraction=fraction).steps_apart(steps) == apart


def trained(steps: int = 2) -> tuple[ABINet, torch.optim.AdamW]:
    """A network some steps after its beginning, and its optimiser."""
    model = small_abinet().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for number in range(steps):
        ABINetTraining(model).loss(pictures(), LABELS, CENTRES, at(number))[0].backward()
        optimizer.step()
    return model, optimizer


def test_the_alignment_begins_anew_once_and_alike() -> None:
    found = []
    for rank in range(2):
        model, optimizer = trained()
        before = {name: values.clone() for name, values in model.state_dict().items()}
        training = ABINetTraining(model)
        for number in (7, 9, 17):
            training.prepare(at(number), optimizer)
            assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
        shard = Shard(rank, 2)
        # Two batches of one step: what one begins, the other begins likewise.
        for batch in (16, 17):
            step = at(8, shard=shard, batch=batch)
            step.seed_alike()
            wanted = torch.rand(3)
            step.seed_alike()
            training.prepare(step, optimizer)
            assert torch.equal(torch.rand(3), wanted), "what the batch draws is as it was"
            found.append({name: values.clone() for name, values in model.state_dict().items()})
        for name, values in model.state_dict().items():
            assert torch.equal(values, before[name]) != name.startswith("alignment."), name
            assert torch.equal(values, found[0][name]), name
        weight = model.alignment.w_att.weight
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not model.alignment.cls.bias.any()
        forgotten = [name for name, values in model.named_parameters() if values not in optimizer.state]
        assert forgotten == [name for name, _ in model.named_parameters() if name.startswith("alignment.")]


@pytest.mark.parametrize("options", [{"apart_fraction": 0.0}, {"lm_only": True}])
def test_the_alignment_stays_where_there_are_no_phases(options: dict[str, Any]) -> None:
    model, optimizer = trained()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    for number in (0, 8):
        ABINetTraining(model, **options).prepare(at(number), optimizer)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert len(optimizer.state) == len(list(model.parameters()))


def test_two_processes_learn_what_one_does_with_both_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = ["abcdefg", "0", "x9", "zz"]
    training = ABINetTraining(small_abinet())  # in evaluation: the norms of the two would not be those of the joined batch
    tokens = sum(len(label) + 1 for label in labels)
    own = [sum(len(label) + 1 for label in labels[rank::2]) for rank in range(2)]
    for number in (0, 17):
        whole = training.loss(pictures(4), labels, CENTRES, at(number))[1]
        parts = []
        for rank in range(2):
            # The alignment and the language part have three iterations' tokens.
            total = partial(lambda mine, count: count // mine * tokens, own[rank])
            monkeypatch.setattr(token_loss_module, "total", total)
            parts.append(training.loss(pictures(4)[rank::2], labels[rank::2], CENTRES, at(number, shard=Shard(rank, 2)))[1])
        for name, value in whole.items():
            assert sum(part[name].item() for part in parts) / 2 == pytest.approx(value.item(), rel=1e-4), name
        assert parts[0]["loss"].item() != pytest.approx(parts[1]["loss"].item(), rel=1e-3)


def test_rates_and_decay() -> None:
    model = small_abinet()
    named = dict(model.named_parameters())
    name_of = {id(values): name for name, values in named.items()}
    groups = ABINetTraining(model, language_lr=3e-4).groups(3.4e-4, 0.05)
    rates, decays = {}, {}
    for group in groups:
        for values in group["params"]:
            rates[name_of[id(values)]] = group.get("lr", 3.4e-4)
            decays[name_of[id(values)]] = group["weight_decay"]
    assert rates.keys() == named.keys()
    assert {name: 3e-4 if name.startswith("language.") else 3.4e-4 for name in named} == rates
    exempt = {name for name, values in named.items() if values.dim() < 2} | {"language.proj.weight"}
    assert {name: 0 if name in exempt else 0.05 for name in named} == decays
    assert {group.get("lr") for group in ABINetTraining(model).groups(1e-3, 0.0)} == {None, 1e-3}
    alone = ABINetTraining(model, language_lr=3e-4, lm_only=True).groups(1e-3, 0.0)
    found = {name_of[id(values)] for group in alone for values in group["params"]}
    assert found == {name for name in named if name.startswith("language.")}
    assert all("lr" not in group for group in alone)


def test_the_language_part_alone() -> None:
    torch.manual_seed(0)
    model = ABINet(ABINetConfig(**SIZES)).train()
    training, words = ABINetTraining(model, lm_only=True), ["abcdefg", "1234", "xyz"]
    (decayed, plain) = training.groups(3e-3, 0.0)
    optimizer = torch.optim.AdamW([decayed, plain], lr=3e-3)
    assert training.validated(pictures(), words) != words
    for number in range(60):
        optimizer.zero_grad()
        loss, logged = training.loss(pictures(), words, CENTRES, at(number, 60))
        loss.backward()
        optimizer.step()
    assert logged.keys() == {"loss"}
    # Of these words each has a character that no other has, so that all the rest follow.
    assert training.validated(pictures(), words) == words
    assert ABINetTraining(model.eval()).validated(pictures(), words) == model.decode(model(pictures()))[0]


# Weights.


@pytest.mark.parametrize("kind", ["position", "additive"])
@pytest.mark.parametrize("length", [4, 7, 12])
def test_it_begins_with_weights_of_another_charset_and_length(kind: str, length: int) -> None:
    old = small_abinet(**KINDS[kind])
    torch.manual_seed(1)
    charset = "ä" + old.config.charset_train + "öü"
    new = ABINet(replace(old.config, charset_train=charset, max_label_length=length)).eval()
    fresh = {name: values.clone() for name, values in new.state_dict().items()}
    kept = begin_with(new, old.state_dict(), old.config, "old.pt")
    assert "36 characters keep their rows of the embedding and the head; 3 new ones begin at random: 'äöü'" in str(kept)
    known = [0, *range(2, 38)]
    for name in ("vision.cls.weight", "language.cls.bias", "alignment.cls.weight"):
        assert torch.equal(new.state_dict()[name][known], old.state_dict()[name])
        assert torch.equal(new.state_dict()[name][[1, 38, 39]], fresh[name][[1, 38, 39]])
    assert torch.equal(new.language.proj.weight[:, known], old.language.proj.weight)
    assert torch.equal(new.language.pos_encoder.pe, fresh["language.pos_encoder.pe"])
    both = min(length, 7) + 1
    if kind == "additive":
        state = new.state_dict()
        for name, axis in (("f0_embedding.weight", 0), ("w0.weight", 1), ("we.weight", 0), ("we.bias", 0)):
            had = old.state_dict()[f"vision.attention.{name}"].narrow(axis, 0, both)
            assert torch.equal(state[f"vision.attention.{name}"].narrow(axis, 0, both), had)
    if length == 7:
        with torch.inference_mode():
            before, after = old.vision(pictures())[1], new.vision(pictures())[1]
        torch.testing.assert_close(after[..., known], before)


@pytest.mark.parametrize("prefix", ["model.", ""])
@pytest.mark.parametrize(
    "told",
    [{"_target_": "strhub.models.abinet.system.ABINet", "name": "mine"}, {"name": "abinet"}, {"_target_": "their.own.Class"}],
)
def test_checkpoints_of_the_reference(told: dict[str, Any], prefix: str, tmp_path: Path) -> None:
    model = small_abinet(l_use_self_attn=True)
    path = tmp_path / "parseq" / "last.ckpt"
    path.parent.mkdir()
    state = {f"{prefix}{name}": values for name, values in model.state_dict().items()}
    job = {"l_lr": "3e-4", "lm_only": False, "lr": 3.4e-4, **told}
    torch.save({"state_dict": state, "hyper_parameters": {**model.config.to_dict(), **job}}, path)
    read = load(weights=path)
    assert isinstance(read, ABINet)
    assert read.config == model.config
    with torch.inference_mode():
        assert torch.equal(read(pictures()), model(pictures()))


def test_files_that_tell_it(tmp_path: Path) -> None:
    model = small_abinet()
    save_weights(model, tmp_path / "w.safetensors")
    state, told = read_weights(tmp_path / "w.safetensors")
    assert told == model.config
    assert recogniser_of(told).name == "abinet"
    assert state.keys() == model.state_dict().keys()
