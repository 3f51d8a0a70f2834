"""Cheap augmentation of whole batches, in addition to what renderer or camera did."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from model.distributed import ALONE, Shard


def jitter_colours(images: Tensor, shard: Shard = ALONE) -> Tensor:
    """Random gain and offset per crop and channel, sometimes inverted, sometimes grey, sometimes noisy.

    Args:
        images: Float `(B, 3, H, W)` in [-1, 1].
        shard: Which crops of the global batch these are: all processes draw for the whole batch, and each uses its part.

    Returns:
        The same shape, clamped to [-1, 1].
    """
    count = len(images) * shard.world_size
    gain = 1 + 0.25 * torch.randn(count, 1, 1, 1) + 0.08 * torch.randn(count, 3, 1, 1)
    offset = 0.15 * torch.randn(count, 1, 1, 1) + 0.05 * torch.randn(count, 3, 1, 1)
    sign = 1 - 2 * (torch.rand(count, 1, 1, 1) < 0.1).float()
    grey = (torch.rand(count, 1, 1, 1) < 0.15).float()
    noise = 0.1 * torch.rand(count, 1, 1, 1) * (torch.rand(count, 1, 1, 1) < 0.3)
    gain, offset, sign, grey, noise = (shard.take(x).to(images.device) for x in (gain, offset, sign, grey, noise))
    grain = shard.take(torch.randn_like(shard.repeat(images)))
    images = images * gain.abs() * sign + offset
    images = images + grey * (images.mean(1, keepdim=True) - images) + noise * grain
    return images.clamp(-1, 1)


def warp(images: Tensor, centers: Tensor, shard: Shard = ALONE) -> tuple[Tensor, Tensor]:
    """A small random affine map per crop: rotation, scale, shear and shift, the edge repeated.

    Args:
        images: Float `(B, 3, H, W)`.
        centers: Float `(B, L, 2)`, x and y as fractions of width and height; NaN stays NaN.
        shard: See `jitter_colours`.

    Returns:
        Both, moved alike.
    """
    _, _, height, width = images.shape
    count = len(images) * shard.world_size
    angle = torch.randn(count) * math.radians(3)
    scale = 1 + 0.06 * torch.randn(count, 2)
    shear = 0.15 * torch.randn(count)
    # In units of the crop's height, so that angles are true; the sampler wants both axes from -1 to 1.
    aspect = width / height
    cos, sin = angle.cos(), angle.sin()
    linear = torch.stack(
        [
            torch.stack([cos * scale[:, 0], (shear * cos - sin) * scale[:, 0] / aspect], -1),
            torch.stack([sin * scale[:, 1] * aspect, (cos + shear * sin) * scale[:, 1]], -1),
        ],
        1,
    )
    shift = torch.randn(count, 2) * torch.tensor([0.02, 0.06])
    linear, shift = shard.take(linear).to(images.device), shard.take(shift).to(images.device)
    grid = F.affine_grid(torch.cat([linear, shift.unsqueeze(-1)], -1), list(images.shape), align_corners=False)
    warped = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    # The grid says where each output pixel comes from, so that centres move by the inverse.
    moved = torch.linalg.solve(linear.unsqueeze(1), (centers * 2 - 1 - shift.unsqueeze(1)).unsqueeze(-1)).squeeze(-1)
    return warped, (moved + 1) / 2
