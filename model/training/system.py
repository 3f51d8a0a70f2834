"""Training of PARSeq as a Lightning module: losses, schedule, validation."""

from __future__ import annotations

from typing import Any

import lightning
import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn
from torch.nn import functional as F

from model.augmentation.batches import jitter_colours, warp
from model.data.crops import Batch
from model.distributed import Shard, join_batch_norms, largest, total
from model.errors import DivergedError
from model.recognisers.parseq.config import PARSeqConfig, config_from_mapping
from model.recognisers.parseq.network import PARSeq
from model.recognisers.parseq.permutations import draw_permutations
from model.recognisers.parts.normalise import normalise
from model.training.schedule import Schedule, rate_factor

ACCURACY_PREFIX = "accuracy_"
"""The accuracy on each validation set is logged as this and the name of the set, that on all together as `accuracy`."""


class RecognitionSystem(lightning.LightningModule):
    """PARSeq with the permuted loss and two training-only losses on the encoder: on glyph centres, and CTC.

    The glyph loss asks the encoder token that covers the centre of a rendered glyph to name the character, through a linear
    layer that is no part of the network. It gives the encoder a dense, local signal long before the decoder has learnt where
    to look. Of real crops nobody knows the centres: there connectionist temporal classification (Graves et al., ICML 2006) over
    the columns of the memory gives a local signal, and one about how many letters there are.
    """

    def __init__(
        self,
        config: dict[str, Any],
        lr: float = 1.5e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 300,
        decay_fraction: float = 0.25,
        glyph_weight: float = 1.0,
        seed: int = 0,
        schedule: Schedule = "constant",
        warmup_fraction: float = 0.075,
        batch_augment: bool = True,
        ctc_weight: float = 0.0,
        compile_encoder: bool = False,
    ) -> None:
        """Build the network and the training-only layer.

        Args:
            config: of the network, as `PARSeqConfig.to_dict` gives it (plain values, so that checkpoints hold no code).
            lr: peak learning rate.
            weight_decay: of matrices; vectors and embeddings have none.
            warmup_steps: linear warm-up of the schedule `constant`.
            decay_fraction: share of all steps, at the end, over which the rate falls linearly to zero. Before that it is
                constant, so that a run can be lengthened later from a checkpoint of its constant part.
            glyph_weight: of the glyph loss; 0 switches it off.
            seed: of permutations, dropout and augmentation.
            schedule: `constant` (with warm-up and decay) or `onecycle`.
            warmup_fraction: share of all steps that warm up in `onecycle`.
            batch_augment: jitter and warp the crops of each batch.
            ctc_weight: of the CTC loss; 0 switches it off.
            compile_encoder: let `torch.compile` fuse the encoder's operations in training; needs a C++ compiler.
        """
        super().__init__()
        self.save_hyperparameters()
        self.config: PARSeqConfig = config_from_mapping(config)
        self.model = PARSeq(self.config)
        self.glyph_head = nn.Linear(self.config.embed_dim, len(self.config.charset_train))
        # Only when it is used, so that checkpoints from before there was one can be resumed.
        self.ctc_head = nn.Linear(self.config.embed_dim, len(self.config.charset_train) + 1) if ctc_weight else None
        self.ctc_weight = ctc_weight
        self._encode = torch.compile(self.model.encode, dynamic=False) if compile_encoder else self.model.encode
        self.lr, self.weight_decay = lr, weight_decay
        self.warmup_steps, self.decay_fraction = warmup_steps, decay_fraction
        self.schedule, self.warmup_fraction = schedule, warmup_fraction
        self.glyph_weight, self.seed, self.batch_augment = glyph_weight, seed, batch_augment
        self.validation_names: list[str] = []
        self._validated: list[tuple[bool, float]] = []

    def setup(self, stage: str) -> None:
        """With several processes, let batch norm see the whole batch."""
        if self.trainer.world_size > 1:
            join_batch_norms(list(self.model.modules()))

    def on_train_start(self) -> None:
        """Set the learning rate anew: a checkpoint remembers the rate of the length that the run had then."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr * self.learning_rate_factor(self.global_step)

    @property
    def shard(self) -> Shard:
        """Which crops of the global batch this process has."""
        return Shard(self.trainer.global_rank, self.trainer.world_size)

    def batch_number(self, batch_idx: int) -> int:
        """Number of the batch since the beginning of the run, also after a resume."""
        parts = self.trainer.accumulate_grad_batches
        return self.global_step * parts + batch_idx % parts

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed all randomness of the step, so that a resumed run repeats an uninterrupted one."""
        torch.manual_seed(self.seed * 1_000_003 + self.batch_number(batch_idx))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        shard, several = self.shard, self.trainer.world_size > 1
        images, centers = normalise(batch.images), batch.centers
        if self.batch_augment:
            images, centers = warp(jitter_colours(images, shard), centers, shard)
        targets = self.model.tokenizer.encode(batch.labels, self.device)
        # All processes predict in the same orders, those of the longest text of the global batch.
        width = largest(targets.shape[1], self.device) if several else targets.shape[1]
        targets = F.pad(targets, (0, width - targets.shape[1]), value=self.model.tokenizer.pad_id)
        memory, orders = self._encode_and_draw(images, width - 2, self.batch_number(batch_idx))
        count = total(self.model.count_predicted(targets, orders)) / shard.world_size if several else None
        loss = self.model.permutation_loss(memory, targets, orders, count)
        self.log("loss", loss.detach(), prog_bar=True, sync_dist=several, batch_size=len(images))
        if self.glyph_weight:
            glyph = self.glyph_loss(memory, targets, centers)
            # Without any centre in the global batch there is none; all processes find the same.
            if bool(total(glyph.detach()) > 0):
                self.log("glyph_loss", glyph.detach(), prog_bar=True, sync_dist=several, batch_size=len(images))
            loss = loss + self.glyph_weight * glyph
        if self.ctc_head is not None:
            ctc = self.ctc_loss(memory, targets)
            self.log("ctc_loss", ctc.detach(), prog_bar=True, sync_dist=several, batch_size=len(images))
            loss = loss + self.ctc_weight * ctc
        if several:
            # DistributedDataParallel wants a gradient of every parameter in every step.
            loss = loss + 0 * sum(parameter.sum() for parameter in self.glyph_head.parameters())
        if not bool(torch.isfinite(loss)):
            raise self._diverged("loss")
        return loss

    def _encode_and_draw(self, images: Tensor, length: int, number: int) -> tuple[Tensor, Tensor]:
        """The memory of the images, and the orders to predict in."""
        config = self.config
        rng = np.random.default_rng([self.seed, number])
        memory = self._encode(images)
        orders = draw_permutations(length, rng, config.perm_num, config.perm_forward, config.perm_mirrored)
        if self.trainer.global_rank:
            # Each process its own dropout; what the global batch has in common is drawn by now.
            torch.manual_seed((self.seed * 1_000_003 + number) ^ (self.trainer.global_rank << 48))
        return memory, orders

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop before gradients that are no numbers reach the weights."""
        # With float16 such steps are a matter of course: the scaler skips them.
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

    def glyph_loss(self, memory: Tensor, targets: Tensor, centers: Tensor) -> Tensor:
        """Cross-entropy of naming each glyph from the encoder token that covers its centre; the mean over all processes.

        Args:
            memory: float `(B, N, E)`.
            targets: int64 `(B, L + 2)`, encoded labels.
            centers: float `(B, M, 2)`, fractions of width and height, NaN where unknown.

        Returns:
            A scalar; 0 when no centre lies inside its crop.
        """
        rows, columns = self.config.grid
        ids = targets[:, 1:-1]
        centers = centers[:, : ids.shape[1]]
        ids = ids[:, : centers.shape[1]]
        inside = ((centers >= 0) & (centers < 1)).all(-1) & (ids >= 1) & (ids <= len(self.config.charset_train))
        several = self._trainer is not None and self.trainer.world_size > 1
        if not several and not bool(inside.any()):
            return memory.new_zeros(())
        crop, position = inside.nonzero(as_tuple=True)
        at = centers[crop, position]
        token = (at[:, 1] * rows).long() * columns + (at[:, 0] * columns).long()
        logits = self.glyph_head(memory[crop, token])
        if not several:
            return F.cross_entropy(logits, ids[crop, position] - 1)
        count = total(inside.sum()).clamp(min=1) / self.trainer.world_size
        return F.cross_entropy(logits, ids[crop, position] - 1, reduction="sum") / count

    def ctc_loss(self, memory: Tensor, targets: Tensor) -> Tensor:
        """The negative log likelihood of the text by its length, summed over all ways to spread it over the columns.

        Args:
            memory: float `(B, N, E)`; a column is the mean of its rows.
            targets: int64 `(B, L + 2)`, encoded labels. Texts that have no room in the columns count nothing.

        Returns:
            The mean over the batch, a scalar. The blank is the end token's id.
        """
        assert self.ctc_head is not None
        tokenizer = self.model.tokenizer
        columns = memory.view(len(memory), *self.config.grid, -1).mean(1)
        chosen = self.ctc_head(columns).float().log_softmax(-1).transpose(0, 1)
        ids = targets[:, 1:]
        lengths = ((ids != tokenizer.eos_id) & (ids != tokenizer.pad_id)).sum(1)
        spans = torch.full_like(lengths, len(chosen))
        return F.ctc_loss(chosen, ids, spans, lengths, blank=tokenizer.eos_id, zero_infinity=True)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count exact matches (case-sensitive), with the config's own decoding. Each process reads all crops."""
        texts, _ = self.model.tokenizer.decode(self.model(normalise(batch.images)).softmax(-1))
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

    def configure_optimizers(self) -> Any:
        """AdamW; no decay for vectors and embeddings."""
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            plain_kind = parameter.dim() < 2 or "embed" in name or name.endswith("pos_queries")
            (plain if plain_kind else decayed).append(parameter)
        groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
