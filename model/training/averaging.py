"""Averages of the weights over the last part of a run: exponential (EMA) or with equal parts (SWA).

The average is what is validated, what checkpoints hold under `state_dict`, and what the run leaves. The weights that training
itself goes on with are kept in the checkpoint besides.

The statistics of batch norms are averaged as the weights are: those of each step's batch count as much as the weights of that
step do. The running ones would not do, for they are of the weights of some ten steps before. It takes no further pass over
data, and a checkpoint holds all that it needs. It is not exact: features of averaged weights are no averages of features. (The
reference implementation, which averages once an epoch at a constant rate, runs one more epoch through the average instead, to
estimate its statistics anew.) Other buffers, counts and tables, are those of the last step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

Average = Literal["none", "ema", "swa"]
CHECKPOINT_KEY: Final = "averaging_state"
"""In checkpoints of runs that average."""
STATISTICS: Final = ("running_mean", "running_var")
"""Buffers of batch norms of which there is an average."""


class EMA:
    """The rule of the exponential average: its memory grows with the steps, so that the first weights are soon forgotten."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def __call__(self, average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        """The new average after `count` steps in it."""
        count = torch.as_tensor(count)
        decay = ((1 + count) / (10 + count)).clamp(max=self.decay).to(average.device)
        return average * decay + current * (1 - decay)


class AveragedWeights(WeightAveraging):
    """Averages after every optimizer step from `first_step` on; until then the average is the current weights."""

    def __init__(self, average: Average, decay: float, first_step: int) -> None:
        """Average by `ema` with `decay`, or by `swa`."""
        super().__init__(avg_fn=EMA(decay) if average == "ema" else None)
        self.first_step = first_step
        self._norms: list[NormBefore] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look at the norms as they are before the first step, or as they were after the last one before a resume."""
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


def keeps_statistics(module: nn.Module) -> bool:
    """Whether it is a batch norm that keeps a running average of what it saw."""
    norm = isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    return norm and module.running_mean is not None and module.momentum is not None


class NormBefore:
    """A batch norm, and the statistics that it had when last looked at."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.look()

    def look(self) -> None:
        """Remember what it has now."""
        self.count = self.module.get_buffer("num_batches_tracked").clone()
        self.values = {name: self.module.get_buffer(name).clone() for name in STATISTICS}

    def since(self) -> dict[str, Tensor]:
        """The statistics of the batches since, later ones counting more; those that it has if there were none."""
        batches = self.module.get_buffer("num_batches_tracked") - self.count
        momentum = self.module.momentum
        assert isinstance(momentum, float)
        share = torch.as_tensor(1 - momentum, device=batches.device) ** batches  # that what was before has in what is now
        now = {name: self.module.get_buffer(name) for name in STATISTICS}
        found = {name: (value - share * self.values[name]) / (1 - share) for name, value in now.items()}
        found["running_var"] = found["running_var"].clamp(min=0)
        return {name: torch.where(batches > 0, value, now[name]) for name, value in found.items()}


@contextmanager
def of_this_step(norms: Sequence[NormBefore]) -> Iterator[None]:
    """Let the norms have the statistics of the batches since they were looked at, for a while."""
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
    """Copy the buffers that no average can be of: all but the statistics of norms.

    The average of a count is none, and that of a table that never changes drifts by rounding.
    """
    for (name, value), (_, copied) in zip(source.named_buffers(), target.named_buffers(), strict=True):
        if name.rpartition(".")[2] not in STATISTICS:
            copied.copy_(value)
