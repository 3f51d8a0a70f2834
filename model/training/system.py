"""Training of any recogniser as a Lightning module: batches, schedule, validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import lightning
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from model.augmentation.batches import jitter_colours, warp
from model.data.crops import Batch
from model.distributed import Shard, join_batch_norms
from model.errors import DivergedError
from model.recognisers.interface import Step
from model.recognisers.parts.normalise import normalise
from model.recognisers.registry import DEFAULT_MODEL, named_config, recognisers
from model.training.schedule import Schedule, rate_factor

ACCURACY_PREFIX: Final = "accuracy_"
"""The accuracy on a validation set is logged under this and the name of the set, that on all sets as `accuracy`."""


class RecognitionSystem(lightning.LightningModule):
    """A network, `model`, and how it learns, `objective`, whose heads are kept in checkpoints under their own names."""

    def __init__(
        self,
        config: dict[str, Any],
        recogniser: str = "",
        lr: float = 1.5e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 300,
        decay_fraction: float = 0.25,
        seed: int = 0,
        schedule: Schedule = "constant",
        warmup_fraction: float = 0.075,
        batch_augment: bool = True,
        compile_encoder: bool = False,
        beta2: float = 0.98,
        **options: Any,
    ) -> None:
        """Build the network and its `Training`.

        Args:
            config: Of the network, as its `to_dict` gives it (plain values, so that checkpoints hold no code).
            recogniser: Whose config it is (default: that of the default model).
            lr: Peak learning rate.
            weight_decay: Of matrices; vectors and embeddings have none.
            warmup_steps: Linear warm-up of the schedule `constant`.
            decay_fraction: Share of all steps, at the end, over which the rate falls linearly to zero. Before that it is
                constant, so that a run can be lengthened later from a checkpoint of its constant part.
            seed: Of all that is drawn in training: orders, dropout, augmentation.
            schedule: `constant` (with warm-up and decay) or `onecycle`.
            warmup_fraction: Share of all steps that warm up in `onecycle`.
            batch_augment: Jitter and warp the crops of each batch.
            compile_encoder: Let `torch.compile` fuse operations in training; needs a C++ compiler.
            beta2: AdamW's second beta.
            options: Of the recogniser's own training.
        """
        super().__init__()
        self.save_hyperparameters()
        entry = recognisers()[recogniser or named_config(DEFAULT_MODEL).RECOGNISER]
        self.model = entry.build_network(entry.config.from_mapping(config))
        self.objective = entry.build_training(self.model, options)
        for name, head in self.objective.heads.items():
            self.add_module(name, head)
        if compile_encoder:
            self.objective.compile()
        self.lr, self.weight_decay, self.beta2 = lr, weight_decay, beta2
        self.scale_rate: Callable[[float], float] = float
        """Scales the learning rate of every group of parameters."""
        self.warmup_steps, self.decay_fraction = warmup_steps, decay_fraction
        self.schedule, self.warmup_fraction = schedule, warmup_fraction
        self.seed, self.batch_augment = seed, batch_augment
        self.validation_names: list[str] = []
        self._peak_rates: list[float] = []
        self._validated: list[tuple[bool, float]] = []

    def setup(self, stage: str) -> None:
        """With several processes, let batch norm see the whole batch."""
        if self.trainer.world_size > 1:
            join_batch_norms(list(self.model.modules()))

    def on_train_start(self) -> None:
        """Set the learning rates again: a checkpoint has those of the peak and the length that the run had then."""
        for group, peak in zip(self.trainer.optimizers[0].param_groups, self._peak_rates, strict=True):
            group["lr"] = peak * self.learning_rate_factor(self.global_step)
        for config in self.trainer.lr_scheduler_configs:
            config.scheduler.base_lrs = list(self._peak_rates)

    def step(self, batch_idx: int) -> Step:
        """Where the run is, counted from its beginning even after a resume."""
        trainer = self.trainer
        parts = trainer.accumulate_grad_batches
        batch = self.global_step * parts + batch_idx % parts
        return Step(self.global_step, trainer.max_steps, batch, self.seed, Shard(trainer.global_rank, trainer.world_size))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed all randomness of the step, and let the recogniser change what changes there."""
        step = self.step(batch_idx)
        step.seed_alike()
        self.objective.prepare(step, self.trainer.optimizers[0])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        step = self.step(batch_idx)
        images, centers = normalise(batch.images), batch.centers
        if self.batch_augment:
            images, centers = warp(jitter_colours(images, step.shard), centers, step.shard)
        loss, logged = self.objective.loss(images, batch.labels, centers, step)
        for name, value in logged.items():
            self.log(name, value.detach(), prog_bar=True, sync_dist=step.shard.world_size > 1, batch_size=len(images))
        if not bool(torch.isfinite(loss)):
            raise self._diverged("loss")
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop before gradients that are nan or infinite reach the weights."""
        # With float16 such steps are normal: the scaler skips them.
        if str(self.trainer.precision).startswith("16"):
            return
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
        if not bool(torch.isfinite(norm)):
            raise self._diverged("gradient")

    def _diverged(self, what: str) -> DivergedError:
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        return DivergedError(
            f"the {what} of step {self.global_step + 1} is not a number (learning rate {rate:.3g}); the weights were not "
            "touched. Lower --lr or --trainer.gradient_clip_val, warm up longer, or train in float32; then resume from "
            "the last checkpoint, or begin anew"
        )

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count exact matches (case-sensitive), with the config's own decoding. Each process reads all crops."""
        texts = self.objective.validated(normalise(batch.images), batch.labels)
        pairs = list(zip(texts, batch.labels, strict=True))
        hits = [text == label for text, label in pairs]
        self._validated += [(text == label, Levenshtein.normalized_similarity(text, label)) for text, label in pairs]
        name = self.validation_names[dataloader_idx]
        accuracy = sum(hits) / len(hits)
        several = self.trainer.world_size > 1
        self.log(
            ACCURACY_PREFIX + name, accuracy, batch_size=len(hits), prog_bar=True, add_dataloader_idx=False, sync_dist=several
        )

    def on_validation_epoch_end(self) -> None:
        """The scores of all validation crops together; the best checkpoint is chosen by this accuracy."""
        count = len(self._validated)
        if count:
            several = self.trainer.world_size > 1
            self.log("accuracy", sum(hit for hit, _ in self._validated) / count, sync_dist=several)
            self.log("one_minus_ned", sum(similarity for _, similarity in self._validated) / count, sync_dist=several)
        self._validated = []

    def learning_rate_factor(self, step: int) -> float:
        """The share of the peak rate at `step`."""
        return rate_factor(
            self.schedule,
            step,
            self.trainer.max_steps,
            warmup_steps=self.warmup_steps,
            decay_fraction=self.decay_fraction,
            warmup_fraction=self.warmup_fraction,
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer's arguments say. Lightning refuses to for fused optimizers, even where no gradient is scaled."""
        if gradient_clip_val:
            utils = torch.nn.utils
            clip = utils.clip_grad_value_ if gradient_clip_algorithm == "value" else utils.clip_grad_norm_
            clip(self.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> Any:
        """AdamW, in the groups that the recogniser asks for."""
        groups = self.objective.groups(self.lr, self.weight_decay)
        self._peak_rates = [self.scale_rate(group.get("lr", self.lr)) for group in groups]
        rated = [{**group, "lr": rate} for group, rate in zip(groups, self._peak_rates, strict=True)]
        # One kernel for all parameters: a tenth of the time on a CPU. It would unscale gradients by itself, after clipping.
        fused = self.trainer.precision != "16-mixed"
        optimizer = torch.optim.AdamW(rated, lr=self.lr, betas=(0.9, self.beta2), fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
