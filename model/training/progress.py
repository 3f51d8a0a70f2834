"""What a run shows while it goes on: a progress bar, a line after each validation, and its curve."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from tqdm import tqdm

from model.training.curve import draw_if_possible
from model.training.system import ACCURACY_PREFIX


class StepBar(TQDMProgressBar):
    """Steps done, of all steps, those before a resume included."""

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """A run that is resumed begins within an epoch."""
        super().on_train_start(trainer)
        self._count_steps(trainer)

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """The stream has no end, and so no number of batches: count steps."""
        super().on_train_epoch_start(trainer)
        self._count_steps(trainer)

    def _count_steps(self, trainer: lightning.Trainer) -> None:
        bar = self.train_progress_bar
        bar.total, bar.n, bar.initial = trainer.max_steps, trainer.global_step, trainer.global_step
        bar.set_description("training")

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar by steps, not batches."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, trainer.global_step - 1)

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """What is shown beside the bar."""
        metrics = dict(super().get_metrics(trainer, pl_module))
        metrics.pop("v_num", None)  # the number of the log
        return metrics


class ToldValidation(Callback):
    """Prints the scores of each validation in a line, and draws the learning curve so far."""

    def __init__(self, output: Path) -> None:
        self.output = output

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Called when the scores are in the logs."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        scores = trainer.callback_metrics
        sets = [
            f"{name.removeprefix(ACCURACY_PREFIX)} {100 * float(score):.2f} %"
            for name, score in scores.items()
            if name.startswith(ACCURACY_PREFIX)
        ]
        together = 100 * float(scores["accuracy"])
        tqdm.write(f"step {trainer.global_step}: exact matches {together:.2f} % ({', '.join(sets)})", sys.stderr)
        for logger in trainer.loggers:
            logger.save()
        draw_if_possible(self.output)
