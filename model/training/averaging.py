"""Averages of the weights over the last part of a run: exponential (EMA) or with equal parts (SWA).

The average is validated, stored in checkpoints under `state_dict`, and written at the end of a run. The weights with which
training itself goes on are kept in the checkpoint too.

The statistics of batch norms are averaged like the weights: those of each step's batch count as much as the weights of that
step. The norms' running statistics would not do, since they lag behind the weights by some ten steps. This takes no further
pass over data, and a checkpoint holds all it needs. It is not exact: the features of averaged weights are not the averages of
features. (The reference implementation, which averages once an epoch at a constant rate, instead runs one more epoch through
the average to estimate its statistics.) Other buffers, such as counts and tables, are those of the last step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Average = Literal["none", "ema", "swa"]
CHECKPOINT_KEY: Final = "averaging_state"
"""Key of the averaging state in checkpoints."""
STATISTICS: Final = ("running_mean", "running_var")
"""Buffers of batch norms that are averaged."""


class EMA:
    """The rule of the exponential average: its memory grows with the steps, so that the first weights are soon forgotten."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def decay_after(self, count: int) -> float:
        """The part that the average keeps in the step after `count` steps in it."""
        return min(self.decay, (1 + count) / (10 + count))

    def __call__(self, averages: Sequence[Tensor], currents: Sequence[Tensor], count: Tensor | int) -> None:
        """Take one more step into the averages, in place: in one call for all, which takes a fraction of the time."""
        step = get_ema_multi_avg_fn(self.decay_after(int(count)))  # type: ignore[no-untyped-call]
        step(averages, currents, count)


class AveragedWeights(WeightAveraging):
    """Averages after every optimizer step from `first_step` on; until then the average is the current weights."""

    def __init__(self, average: Average, decay: float, first_step: int) -> None:
        """Average by `ema` with `decay`, or by `swa`."""
        super().__init__(multi_avg_fn=EMA(decay) if average == "ema" else None)
        self.first_step = first_step
        self._norms: list[NormBefore] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note the norms' statistics before the first step, or before the first one after a resume."""
        super().on_train_start(trainer, pl_module)
        self._norms = [NormBefore(module) for module in pl_module.modules() if keeps_statistics(module)]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average; before `first_step` it begins anew each time."""
        assert self._average_model is not None
        if trainer.global_step == self._latest_update_step:
            return
        before = trainer.global_step <= self.first_step
        if before:
            self._average_model.n_averaged.zero_()
        with of_this_step([] if before else self._norms):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        for norm in self._norms:
            norm.look()
        copy_tables(pl_module, self._average_model.module)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leave the average, also where a run is resumed that has no step left to do: for Lightning no training ends there."""
        self._copy_average_to_current(pl_module)


def keeps_statistics(module: nn.Module) -> bool:
    """Whether the module is a batch norm with running statistics."""
    norm = isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    return norm and module.running_mean is not None and module.momentum is not None


class NormBefore:
    """A batch norm, and the statistics that it had when last looked at."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.look()

    def look(self) -> None:
        """Remember the present statistics."""
        self.count = self.module.get_buffer("num_batches_tracked").clone()
        self.values = {name: self.module.get_buffer(name).clone() for name in STATISTICS}

    def since(self) -> dict[str, Tensor]:
        """The statistics of the batches since the last look, later ones counting more; the present ones if there were none."""
        batches = self.module.get_buffer("num_batches_tracked") - self.count
        momentum = self.module.momentum
        assert isinstance(momentum, float)
        # The weight of the earlier statistics in the present ones.
        share = torch.as_tensor(1 - momentum, device=batches.device) ** batches
        now = {name: self.module.get_buffer(name) for name in STATISTICS}
        found = {name: (value - share * self.values[name]) / (1 - share) for name, value in now.items()}
        found["running_var"] = found["running_var"].clamp(min=0)
        return {name: torch.where(batches > 0, value, now[name]) for name, value in found.items()}


@contextmanager
def of_this_step(norms: Sequence[NormBefore]) -> Iterator[None]:
    """Within this context the norms have the statistics of the batches since they were last looked at."""
    kept = [{name: norm.module.get_buffer(name).clone() for name in STATISTICS} for norm in norms]
    for norm in norms:
        _put(norm.module, norm.since())
    try:
        yield
    finally:
        for norm, values in zip(norms, kept, strict=True):
            _put(norm.module, values)


def _put(module: nn.Module, values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        module.get_buffer(name).copy_(value)


def copy_tables(source: nn.Module, target: nn.Module) -> None:
    """Copy the buffers that cannot be averaged: all but the statistics of norms.

    An averaged count is not a count, and an averaged table, though it never changes, drifts by rounding.
    """
    for (name, value), (_, copied) in zip(source.named_buffers(), target.named_buffers(), strict=True):
        if name.rpartition(".")[2] not in STATISTICS:
            copied.copy_(value)
