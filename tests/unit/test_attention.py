"""Attention in bfloat16 on a CPU, which goes another way than the fused kernel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.recognisers.parts.attention import attention

BFLOAT16_TOLERANCE = 0.03
"""Of values about 1: bfloat16 keeps 8 bits."""


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value for 2 crops, 3 heads, 5 queries and 7 keys."""
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8)
    query, key, value = (torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes)
    return query, key, value


def some_mask() -> Tensor:
    """What each query may look at: always the first key, of the others some."""
    mask = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize("mask", [None, some_mask()], ids=["all", "masked"])
def test_bfloat16_equals_the_fused_kernel_in_float32(mask: Tensor | None) -> None:
    exact, rounded = inputs(torch.float32), inputs(torch.bfloat16)
    wanted = F.scaled_dot_product_attention(*exact, attn_mask=mask)
    got = attention(*rounded, mask)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), wanted, atol=BFLOAT16_TOLERANCE, rtol=BFLOAT16_TOLERANCE)
    exact_gradients = torch.autograd.grad(wanted.square().sum(), exact)
    gradients = torch.autograd.grad(got.float().square().sum(), rounded)
    for ours, theirs in zip(gradients, exact_gradients, strict=True):
        torch.testing.assert_close(ours.float(), theirs, atol=4 * BFLOAT16_TOLERANCE, rtol=BFLOAT16_TOLERANCE)


def test_bfloat16_trains_without_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Tensor:
        raise AssertionError("the fused kernel's backward pass is the slow one")

    monkeypatch.setattr(F, "scaled_dot_product_attention", refuse)
    attention(*inputs(torch.bfloat16))
    with pytest.raises(AssertionError):
        attention(*inputs(torch.float32))
    with pytest.raises(AssertionError), torch.no_grad():
        attention(*inputs(torch.bfloat16))


def test_dropout_in_bfloat16_drops_weights_and_scales_the_rest() -> None:
    query, key, _ = inputs(torch.bfloat16)
    ones = torch.ones(2, 3, 7, 8, dtype=torch.bfloat16)
    torch.manual_seed(0)
    sums = torch.stack([attention(query, key, ones, None, 0.5)[..., 0].detach().float() for _ in range(400)])
    assert sums.std() > 0.1
    assert abs(float(sums.mean()) - 1) < 0.05
