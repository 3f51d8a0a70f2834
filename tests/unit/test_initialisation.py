"""What networks begin with: means and spreads as the reference implementation's, to which its learning rates belong."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from model.recognisers.parseq.config import PARSeqConfig
from model.recognisers.parseq.network import PARSeq
from model.recognisers.parts.initialise import initialise


@pytest.fixture(scope="module")
def parseq() -> PARSeq:
    """The widths of the largest one."""
    torch.manual_seed(1)
    return PARSeq(PARSeqConfig(enc_depth=1))


def spread(value: Tensor) -> float:
    assert value.mean().item() == pytest.approx(0, abs=5 * value.std().item() / math.sqrt(value.numel()))
    return value.std().item()


def test_every_tensor_of_a_parseq(parseq: PARSeq) -> None:
    patches = {"encoder.patch_embed.proj.weight", "encoder.patch_embed.proj.bias"}
    seen = set()
    for name, value in parseq.state_dict().items():
        if name in patches:
            continue
        seen.add(kind := "norm" if "norm" in name else name.rpartition(".")[2])
        if kind == "norm":
            assert torch.equal(value, torch.full_like(value, float(name.endswith("weight")))), name
        elif kind in ("bias", "in_proj_bias"):
            assert not value.any(), name
        elif kind == "in_proj_weight":
            # Xavier's, uniform, over the three projections together.
            bound = math.sqrt(6 / sum(value.shape))
            assert value.abs().max().item() <= bound
            assert spread(value) == pytest.approx(bound / math.sqrt(3), rel=0.02), name
        else:
            assert kind in ("weight", "pos_embed", "pos_queries")
            assert spread(value) == pytest.approx(0.02, rel=0.03), name
    assert seen == {"norm", "bias", "in_proj_bias", "in_proj_weight", "weight", "pos_embed", "pos_queries"}


@pytest.mark.parametrize(("patch", "wanted"), [((4, 8), 0.0589), ((16, 16), 0.0208)])
def test_patches_keep_pytorchs_default(patch: tuple[int, int], wanted: float) -> None:
    torch.manual_seed(2)
    network = PARSeq(PARSeqConfig(enc_depth=1, img_size=(224, 224) if patch == (16, 16) else (32, 128), patch_size=patch))
    weight, bias = (network.get_parameter(f"encoder.patch_embed.proj.{name}") for name in ("weight", "bias"))
    assert spread(weight) == pytest.approx(wanted, rel=0.02)
    bound = 1 / math.sqrt(3 * math.prod(patch))
    assert weight.abs().max().item() <= bound
    assert 0.5 * bound < bias.abs().max().item() <= bound


def test_the_residual_stem_is_kaimings() -> None:
    torch.manual_seed(3)
    network = PARSeq(PARSeqConfig(enc_depth=1, stem="residual", patch_size=(8, 4)))
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 9
    for convolution in convolutions:
        assert spread(convolution.weight) == pytest.approx(math.sqrt(2 / (9 * convolution.out_channels)), rel=0.1)


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (nn.Linear(300, 200), 0.02),
        (nn.Embedding(100, 256), 0.02),
        (nn.Conv2d(32, 64, 3), math.sqrt(2 / (9 * 64))),
        # Left as PyTorch has it: uniform, within the root of one over the width.
        (nn.LSTM(64, 100), 0.1 / math.sqrt(3)),
    ],
    ids=["Linear", "Embedding", "Conv2d", "LSTM"],
)
def test_the_rule_for_layers(layer: nn.Module, wanted: float) -> None:
    torch.manual_seed(4)
    layer.reset_parameters()  # type: ignore[operator]
    layer.apply(initialise)
    name, weight = next(iter(layer.named_parameters()))
    assert name.startswith("weight")
    assert spread(weight) == pytest.approx(wanted, rel=0.03)
    if not isinstance(layer, nn.LSTM):
        assert not any(value.any() for key, value in layer.named_parameters() if key == "bias")


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.BatchNorm2d(8)])
def test_norms_begin_as_the_identity(norm: nn.LayerNorm | nn.BatchNorm2d) -> None:
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.apply(initialise)
    assert torch.equal(norm.weight, torch.ones(8))
    assert torch.equal(norm.bias, torch.zeros(8))
