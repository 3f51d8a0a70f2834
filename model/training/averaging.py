"""Averages of the weights over the last part of a run: exponential (EMA) or with equal parts (SWA).

The average is what is validated, what checkpoints hold under `state_dict`, and what the run leaves. The weights that training
itself goes on with are kept in the checkpoint besides.

The statistics of batch norms are averaged as the weights are: the batches of all steps have their part in them, in the same
shares. That costs nothing and is as it was after a resume. It is not exact, as the networks of different steps see different
features; the reference implementation, which averages once an epoch at a constant rate, runs an epoch through the average
instead, to estimate them anew. Other buffers (counts, tables) are those of the last step.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

Average = Literal["none", "ema", "swa"]
CHECKPOINT_KEY: Final = "averaging_state"
"""In checkpoints of runs that average."""
STATISTICS: Final = ("running_mean", "running_var")
"""What norms call the buffers that they keep a running average in themselves."""


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

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average; before `first_step` it begins anew each time."""
        before = trainer.global_step <= self.first_step
        if before and self._average_model is not None:
            self._average_model.n_averaged.zero_()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._average_model is not None:
            copy_tables(pl_module, self._average_model.module)



def copy_tables(source: nn.Module, target: nn.Module) -> None:
    """Copy the buffers that no average can be of: all but the statistics of norms.

    The average of a count is none, and that of a table that never changes drifts by rounding.
    """
    for (name, value), (_, copied) in zip(source.named_buffers(), target.named_buffers(), strict=True):
        if name.rpartition(".")[2] not in STATISTICS:
            copied.copy_(value)
