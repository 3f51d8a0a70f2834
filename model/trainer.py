"""The Lightning trainer of a run: its checkpoints, logs, averages and length."""

from __future__ import annotations

import argparse
import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from model.averaging import AveragedWeights
from model.errors import DataError
from model.progress import StepBar, ToldValidation
from model.train_data import TrainingData

BEST_BY = "accuracy"
"""Over all validation crops."""


def build_trainer(
    args: argparse.Namespace, options: dict[str, Any], data: TrainingData, callbacks: Sequence[Callback] = ()
) -> lightning.Trainer:
    """A Lightning trainer: the job's own settings, then what the user says."""
    # Whether the folder may hold a run already has been checked by then.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # Those who have more cores can say --workers; on small machines a loading process would take one from the training.
    warnings.filterwarnings("ignore", message="The '.*_dataloader' does not have many workers")
    # Lightning's own affair, and many lines of it.
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.* is deprecated")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    settings: dict[str, Any] = {
        "gradient_clip_val": 1.0,
        "log_every_n_steps": 20,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "logger": loggers(args.output),
        **options,
    }
    extra = settings.pop("callbacks", None) or []
    settings["callbacks"] = [
        *job_callbacks(args, validates=bool(data.validation)),
        *([StepBar()] if settings.get("enable_progress_bar", True) else []),
        *callbacks,
        *(extra if isinstance(extra, list) else [extra]),
    ]
    # Every process reads all validation crops, and the stream splits itself.
    settings["use_distributed_sampler"] = False
    trainer = lightning.Trainer(
        max_steps=args.steps,
        default_root_dir=args.output,
        check_val_every_n_epoch=None,
        **settings,
    )
    if args.epochs is not None:
        trainer.fit_loop.epoch_loop.max_steps = steps_of(args.epochs, len(data), args.batch_size, trainer)
    if data.validation:
        trainer.val_check_interval = args.validate_every * trainer.accumulate_grad_batches
    averager = next((c for c in settings["callbacks"] if isinstance(c, AveragedWeights)), None)
    if averager is not None:
        averager.first_step = round(args.average_from * trainer.max_steps)
    return trainer


def steps_of(epochs: float, crops: int, batch_size: int, trainer: lightning.Trainer) -> int:
    """The steps of so many passes over the crops.

    Raises:
        DataError: no source has an end.
    """
    if not crops:
        raise DataError("rendering has no end, so that --epochs says nothing: give --steps")
    return math.ceil(epochs * crops / (batch_size * trainer.world_size * trainer.accumulate_grad_batches))


def loggers(output: Path) -> list[Any]:
    """The run's logs: numbers as CSV, and TensorBoard's."""
    version = f"log-{len(list(output.glob('log-*')))}"
    return [CSVLogger(output, name="", version=version), TensorBoardLogger(output, name="", version=version)]


class LastStep(Callback):
    """Saves and validates after the last step, also where that is no multiple of the steps between."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Once all steps are done, save, and let Lightning validate as it does before it stops early."""
        if trainer.global_step >= trainer.max_steps:
            trainer.save_checkpoint(self.path, weights_only=False)
            trainer.should_stop = True


def job_callbacks(args: argparse.Namespace, *, validates: bool) -> list[Callback]:
    """Checkpoints `last` and, when there is something to choose by, `best`; averages; the learning rate in the logs."""
    found: list[Callback] = [LearningRateMonitor("step")]
    if args.average != "none":
        found.append(AveragedWeights(args.average, args.ema_decay, 0))
    found.append(LastStep(args.output / "last.ckpt"))
    found.append(
        ModelCheckpoint(
            dirpath=args.output, filename="last", every_n_train_steps=args.checkpoint_every, enable_version_counter=False
        )
    )
    if validates:
        found.append(
            ModelCheckpoint(dirpath=args.output, filename="best", monitor=BEST_BY, mode="max", enable_version_counter=False)
        )
        found.append(ToldValidation(args.output))
    return found
