"""ViTSTR: what a configuration may say, how a network begins, what it learns from, what it is recognised by."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model.charsets import DIGITS_AND_LOWERCASE
from model.checkpoints.choose import name_of
from model.checkpoints.loading import WeightsError, load, save_weights
from model.distributed import ALONE, Shard
from model.errors import ConfigError
from model.recognisers.interface import Step
from model.recognisers.parts import token_loss as token_loss_module
from model.recognisers.registry import named_config, named_configs, published_files, read_config
from model.recognisers.vitstr.config import NAMED, ViTSTRConfig
from model.recognisers.vitstr.network import ViTSTR
from model.recognisers.vitstr.training import ViTSTRTraining
from model.training.finetune import begin_with
from tests.export_models import small_vitstr

SMALL = ViTSTRConfig(charset_train=DIGITS_AND_LOWERCASE, embed_dim=24, num_heads=2, depth=2, max_label_length=6)
CENTRES = torch.full((4, 6, 2), torch.nan)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"enc_depth": 3}, "unknown configuration names: enc_depth"),
        ({"embed_dim": 100}, "embed_dim 100 is not a positive multiple of num_heads 6"),
        ({"num_heads": 0}, "not a positive multiple of num_heads 0"),
        ({"img_size": [30, 128]}, "image height 30 is not a multiple of the patch height 4"),
        ({"patch_size": [4, 0]}, "image width 128 is not a multiple of the patch width 0"),
        ({"depth": 0}, "depth must be at least 1, not 0"),
        ({"mlp_ratio": 0}, "mlp_ratio must be at least 1"),
        ({"max_label_length": 0}, "max_label_length must be at least 1"),
        ({"max_label_length": 128}, "there are 128; set it to 127 at most, or use smaller patches"),
        ({"charset_train": "aa"}, "charset_train must hold distinct characters"),
        ({"dropout": 0.1}, "unknown configuration names: dropout"),
    ],
)
def test_bad_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ViTSTRConfig.from_mapping(values)


def test_every_patch_may_be_a_place_of_the_text() -> None:
    # Class token, characters and end: exactly as many tokens as there are.
    config = replace(SMALL, max_label_length=127)
    assert ViTSTR(config).eval()(torch.zeros(1, 3, 32, 128)).shape == (1, 128, 37)


def test_names_and_files() -> None:
    assert {name for name, config in named_configs().items() if config.RECOGNISER == "vitstr"} == set(NAMED)
    assert named_config("vitstr_patch16_224").img_size == (224, 224)
    assert published_files()["vitstr"].file_name == "vitstr-26d0fcf4.pt"
    for name, config in NAMED.items():
        assert ViTSTRConfig.from_mapping(json.loads(json.dumps(config.to_dict()))) == config
        assert name_of(replace(config, charset_train="ab", max_label_length=9)) == name


def test_the_square_one_reads_and_has_as_many_positions() -> None:
    config = named_config("vitstr-patch16-224")
    with torch.device("meta"):
        model = ViTSTR(config)  # type: ignore[arg-type]
        assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 26, 95)
    assert model.pos_embed.shape == (1, 197, 384)
    assert sum(values.numel() for values in model.parameters()) == 21_702_239


@pytest.mark.slow
def test_how_a_network_begins() -> None:
    torch.manual_seed(0)
    model = ViTSTR(ViTSTRConfig(depth=2))
    spreads = {name: values.std().item() for name, values in model.named_parameters() if values.dim() > 1}
    # PyTorch's default for a fan of 96 is uniform up to 1/sqrt(96), a spread of 0.0589.
    assert spreads.pop("patch_embed.proj.weight") == pytest.approx(0.0589, rel=0.02)
    assert spreads.pop("cls_token") == pytest.approx(1e-6, rel=0.2)
    assert len(spreads) == 2 + 2 * 4
    for name, spread in spreads.items():
        # A normal cut at a hundred units is not cut.
        assert spread == pytest.approx(0.02, rel=0.05), name
    for name, values in model.named_parameters():
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
            assert (values == 1).all()
        elif name.endswith("bias") and name != "patch_embed.proj.bias":
            assert (values == 0).all()
    assert model.patch_embed.proj.bias is not None
    assert model.patch_embed.proj.bias.std().item() == pytest.approx(0.0589, rel=0.15)
    assert abs(model.head.weight.mean().item()) < 1e-3


def loss_of(training: ViTSTRTraining, images: torch.Tensor, labels: list[str], shard: Shard = ALONE) -> torch.Tensor:
    return training.loss(images, labels, CENTRES[: len(labels)], Step(0, 1, 0, 0, shard))[0]


def test_every_parameter_has_a_gradient_and_padding_counts_nothing() -> None:
    model = copy.deepcopy(small_vitstr()).train()
    training, images = ViTSTRTraining(model), torch.randn(2, 3, 16, 64)
    loss_of(training, images, ["a", ""]).backward()
    for name, values in model.named_parameters():
        assert values.grad is not None, name
        # The keys' bias moves all scores of a softmax together.
        assert values.grad.abs().max() > 0, name
    # One character and two ends.
    with torch.no_grad():
        logits = model(images).log_softmax(-1)
        wanted = -(logits[0, 0, 11] + logits[0, 1, 0] + logits[1, 0, 0]) / 3
        assert loss_of(training, images, ["a", ""]).item() == pytest.approx(wanted.item(), abs=1e-6)


def test_two_processes_learn_what_one_does_with_both_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    training, images, labels = ViTSTRTraining(small_vitstr()), torch.randn(4, 3, 16, 64), ["abcdef", "0", "", "zz"]
    whole = loss_of(training, images, labels)
    monkeypatch.setattr(token_loss_module, "total", lambda count: torch.full_like(count, 6 + 1 + 0 + 2 + 4))
    parts = [loss_of(training, images[rank::2], labels[rank::2], Shard(rank, 2)) for rank in range(2)]
    assert (sum(parts) / 2).item() == pytest.approx(whole.item(), rel=1e-5)
    assert parts[0].item() != pytest.approx(parts[1].item(), rel=1e-3)


def test_what_decays() -> None:
    model = small_vitstr()
    decayed, plain = (
        {id(values) for values in group["params"]} for group in ViTSTRTraining(model).groups(lr=1e-3, weight_decay=0.05)
    )
    named = dict(model.named_parameters())
    assert {name for name, values in named.items() if id(values) in decayed} == {
        name for name, values in named.items() if values.dim() > 1 and name not in ("cls_token", "pos_embed")
    }
    assert len(decayed) + len(plain) == len(named)


@pytest.mark.parametrize("length", [3, 6, 12])
def test_it_begins_with_weights_of_another_charset_and_length(length: int) -> None:
    torch.manual_seed(1)
    old = ViTSTR(SMALL).eval()
    new = ViTSTR(replace(SMALL, charset_train="ä" + DIGITS_AND_LOWERCASE + "öü", max_label_length=length)).eval()
    kept = begin_with(new, old.state_dict(), old.config, "old.pt")
    assert "36 characters keep their rows of the embedding and the head; 3 new ones begin at random: 'äöü'" in str(kept)
    images = torch.randn(2, 3, 32, 128)
    with torch.inference_mode():
        before, after = old(images), new(images)
    both = min(length, 6) + 1
    torch.testing.assert_close(after[:, :both, [0, *range(2, 38)]], before[:, :both])
    assert after.shape == (2, length + 1, 40)


@pytest.mark.parametrize(
    "told",
    [
        {"_target_": "strhub.models.vitstr.system.ViTSTR", "name": "parseq"},
        {"name": "vitstr"},
        {"name": "my-run"},
        {"_target_": "their.own.Class", "lr": 1e-3, "batch_size": 384, "warmup_pct": 0.075, "charset_test": "0"},
    ],
)
@pytest.mark.parametrize("prefix", ["model.", "module.model.", "", "model._orig_mod."])
def test_checkpoints_of_the_reference(told: dict[str, Any], prefix: str, tmp_path: Path) -> None:
    model = small_vitstr(depth=12, mlp_ratio=4)
    config = {name: value for name, value in model.config.to_dict().items() if name not in ("depth", "mlp_ratio")}
    state = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    # Not `parseq` for lying in a folder of that name.
    path = tmp_path / "parseq" / "last.ckpt"
    path.parent.mkdir()
    torch.save({"state_dict": state, "hyper_parameters": {**config, **told}}, path)
    read = load(weights=path)
    assert isinstance(read, ViTSTR)
    assert read.config == model.config
    images = torch.randn(1, 3, 16, 64)
    with torch.inference_mode():
        assert torch.equal(read(images), model(images))
    with pytest.raises(WeightsError, match="of the recogniser vitstr, not parseq"):
        load("parseq", weights=path)


def test_files_that_tell_it(tmp_path: Path) -> None:
    model = small_vitstr()
    save_weights(model, tmp_path / "w.safetensors")
    assert load(weights=tmp_path / "w.safetensors").config == model.config
    torch.save(model.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="does not tell their architecture"):
        load(weights=tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="was trained with 36 characters, the charset has 94"):
        load("vitstr", weights=tmp_path / "w.pt")
    (tmp_path / "c.json").write_text(
        json.dumps({"cls": "ViTSTR", "system_args": {"embed_dim": 48, "num_heads": 3, "lr": 5e-4}})
    )
    assert read_config(tmp_path / "c.json") == ViTSTRConfig(embed_dim=48, num_heads=3)
    (tmp_path / "d.json").write_text(json.dumps({"recogniser": "vitstr", "depth": 2}))
    assert read_config(tmp_path / "d.json") == ViTSTRConfig(depth=2)
