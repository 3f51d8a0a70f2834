"""Several training processes that together do what one would do with their batches joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shard:
    """Which crops of the global batch a process has: `rank`, `rank + world_size`, ..."""

    rank: int = 0
    world_size: int = 1

    def take(self, whole: Tensor) -> Tensor:
        """Of a value for each crop of the global batch, those of this process."""
        return whole if self.world_size == 1 else whole[self.rank :: self.world_size]

    def repeat(self, own: Tensor) -> Tensor:
        """A tensor of the global batch's shape."""
        return own if self.world_size == 1 else torch.cat([own] * self.world_size)


ALONE: Final = Shard()
"""Of a process that trains by itself."""


def total(value: Tensor) -> Tensor:
    """The sum of `value` over all processes."""
    if dist.is_available() and dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value)
    return value


def largest(value: int, device: torch.device) -> int:
    """The largest `value` of all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    both = torch.tensor(value, device=device)
    dist.all_reduce(both, dist.ReduceOp.MAX)
    return int(both)


class _Sum(torch.autograd.Function):
    """The sum over all processes, through which gradients flow back to all of them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004 (PyTorch passes it)
        """Add up the values."""
        return total(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        """Every process's value is part of every process's sum."""
        return total(gradient)


def _sum(value: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return summed


class JoinedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the crops of all processes; unlike PyTorch's SyncBatchNorm it also works on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same shape."""
        if not (self.training and dist.is_available() and dist.is_initialized()):
            normal: Tensor = super().forward(x)
            return normal
        values = x.float()
        count = total(values.new_tensor(values.numel() / values.shape[1]))
        mean = _sum(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _sum(centred.square().sum((0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        normed: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normed.to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


def join_batch_norms(modules: Sequence[nn.Module]) -> None:
    """Make the batch norms among `modules` work over all processes. Names and values of their state stay the same."""
    for module in modules:
        if type(module) is nn.BatchNorm2d:
            module.__class__ = JoinedBatchNorm2d
