"""The Lightning trainer of a run: its checkpoints, logs, averages and length."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import lightning
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from model.checkpoints.loading import read_checkpoint
from model.errors import DataError
from model.training.averaging import AveragedWeights
from model.training.data import TrainingData
from model.training.options import TrainOptions
from model.training.progress import StepBar, ToldValidation

BEST_BY: Final = "accuracy"
"""The best checkpoint has the highest value of this, over all validation crops."""
LAST, BEST = "last.ckpt", "best.ckpt"
"""Checkpoints in the folder of a run."""


def build_trainer(
    job: TrainOptions, options: dict[str, Any], data: TrainingData, callbacks: Sequence[Callback] = ()
) -> lightning.Trainer:
    """A Lightning trainer: the settings of the job, then the Trainer's own `options` that the user gives."""
    # Whether the folder may hold a run already has been checked by then.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # With more cores, give --workers; on small machines a loading process would take a core from training.
    warnings.filterwarnings("ignore", message="The '.*_dataloader' does not have many workers")
    # Many lines about Lightning's internals.
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.* is deprecated")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    settings: dict[str, Any] = {
        "gradient_clip_val": 1.0,
        "log_every_n_steps": 20,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "logger": loggers(job.output),
        **options,
    }
    extra = settings.pop("callbacks", None) or []
    settings["callbacks"] = [
        *job_callbacks(job, validates=bool(data.validation)),
        *callbacks,
        *(extra if isinstance(extra, list) else [extra]),
    ]
    own_bar = any(isinstance(callback, ProgressBar) for callback in settings["callbacks"])
    if settings.get("enable_progress_bar", True) and not own_bar:
        settings["callbacks"].append(StepBar())
    if not data.validation:
        settings["limit_val_batches"] = 0  # else Lightning takes a list of no loaders for validation that is enabled
    # Every process reads all validation crops, and the stream splits itself.
    settings["use_distributed_sampler"] = False
    trainer = lightning.Trainer(
        max_steps=job.steps,
        default_root_dir=job.output,
        check_val_every_n_epoch=None,
        **settings,
    )
    if job.epochs is not None:
        trainer.fit_loop.epoch_loop.max_steps = steps_of(job.epochs, len(data), job.batch_size, trainer)
    if data.validation:
        # Set here, because only the trainer knows the accumulation; Lightning counts batches.
        trainer.val_check_interval = job.validate_every * trainer.accumulate_grad_batches
    averager = next((c for c in settings["callbacks"] if isinstance(c, AveragedWeights)), None)
    if averager is not None:
        averager.first_step = round(job.average_from * trainer.max_steps)
    return trainer


def steps_of(epochs: float, crops: int, batch_size: int, trainer: lightning.Trainer) -> int:
    """The number of steps for `epochs` passes over the crops.

    Raises:
        DataError: No source has an end.
    """
    if not crops:
        raise DataError("rendering has no end, so that --epochs says nothing: give --steps")
    return math.ceil(epochs * crops / (batch_size * trainer.world_size * trainer.accumulate_grad_batches))


def loggers(output: Path) -> list[Any]:
    """The run's logs: numbers as CSV, and TensorBoard's."""
    version = f"log-{len(list(output.glob('log-*')))}"
    return [CSVLog(output, name="", version=version), TensorBoardLog(output, name="", version=version)]


class CSVLog(CSVLogger):
    """Writes numbers as CSV by the number of steps done, as everywhere here; Lightning counts from 0."""

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Add a row."""
        super().log_metrics(metrics, None if step is None else step + 1)


class TensorBoardLog(TensorBoardLogger):
    """The same for TensorBoard."""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Add points."""
        super().log_metrics(metrics, None if step is None else step + 1)


class LastCheckpoint(ModelCheckpoint):
    """Saves `last.ckpt` every so many steps, before each validation, and after the last step, which is validated first.

    A run that is stopped in that last validation has only its last step but one saved, so it validates when it is resumed.
    """

    def __init__(self, folder: Path, every: int, validate_every: int) -> None:
        """Save in `folder` every so many steps."""
        stem = LAST.removesuffix(self.FILE_EXTENSION)
        super().__init__(dirpath=folder, filename=stem, every_n_train_steps=every, enable_version_counter=False)
        self.path = folder / LAST
        self.every, self.validate_every = every, validate_every
        self._step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """A run that is resumed has steps behind it."""
        super().on_train_start(trainer, pl_module)
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        """Save; or, once all steps are done, let Lightning validate as it does before it stops early."""
        step = trainer.global_step
        if step < trainer.max_steps:
            super().on_train_batch_end(trainer, *args)
            validates = trainer.enable_validation and (step % self.validate_every == 0 or step == trainer.max_steps - 1)
            if validates and step > self._step and step % self.every:
                trainer.save_checkpoint(self.path, weights_only=False)
            self._step = step
        elif trainer.enable_validation:
            trainer.should_stop = True
        else:
            trainer.save_checkpoint(self.path, weights_only=False)

    def on_validation_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Save what was validated last."""
        if trainer.global_step >= trainer.max_steps:
            trainer.save_checkpoint(self.path, weights_only=False)


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`, the one with the highest accuracy over all validation crops."""

    def __init__(self, folder: Path) -> None:
        stem = BEST.removesuffix(self.FILE_EXTENSION)
        super().__init__(dirpath=folder, filename=stem, monitor=BEST_BY, mode="max", enable_version_counter=False)
        self.path = folder / BEST

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """A run that is resumed goes on from `last.ckpt`, which may be older than the best one, or in another folder now."""
        super().on_train_start(trainer, pl_module)
        if trainer.ckpt_path is None or not self.path.is_file():
            return
        best = read_checkpoint(self.path, "let the next validation write another")
        score = best["callbacks"][self.state_key]["best_model_score"]
        name = str(self.path)
        self.best_model_path = self.kth_best_model_path = name
        self.best_model_score = self.kth_value = score
        self.best_k_models = {name: score}


def job_callbacks(options: TrainOptions, *, validates: bool) -> list[Callback]:
    """Checkpoints `last` and, when there is something to choose by, `best`; averages; the learning rate in the logs."""
    found: list[Callback] = [LearningRateMonitor("step")]
    if options.average != "none":
        found.append(AveragedWeights(options.average, options.ema_decay, 0))
    if validates:
        found.append(BestCheckpoint(options.output))
        found.append(ToldValidation(options.output))
    found.append(LastCheckpoint(options.output, options.checkpoint_every, options.validate_every))
    return found
