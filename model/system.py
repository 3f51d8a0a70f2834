"""Training of PARSeq as a Lightning module: losses, schedule, validation."""

from __future__ import annotations

from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.augment import jitter_colours, warp
from model.configs import PARSeqConfig, config_from_mapping
from model.data import Batch
from model.parseq import PARSeq
from model.permutations import draw_permutations
from model.preprocess import normalise


class RecognitionSystem(lightning.LightningModule):
    """PARSeq with the permuted loss and a training-only loss on glyph centres.

    The glyph loss asks the encoder token that covers the centre of a rendered glyph to name the character, through a linear
    layer that is no part of the network. It gives the encoder a dense, local signal long before the decoder has learnt where
    to look.
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
    ) -> None:
        """Build the network and the training-only layer.

        Args:
            config: of the network, as `PARSeqConfig.to_dict` gives it (plain values, so that checkpoints hold no code).
            lr: peak learning rate.
            weight_decay: of matrices; vectors and embeddings have none.
            warmup_steps: linear warm-up.
            decay_fraction: share of all steps, at the end, over which the rate falls linearly to zero. Before that it is
                constant, so that a run can be lengthened later from a checkpoint of its constant part.
            glyph_weight: of the glyph loss; 0 switches it off.
            seed: of permutations, dropout and augmentation.
        """
        super().__init__()
        self.save_hyperparameters()
        self.config: PARSeqConfig = config_from_mapping(config)
        self.model = PARSeq(self.config)
        self.glyph_head = nn.Linear(self.config.embed_dim, len(self.config.charset_train))
        self.lr, self.weight_decay = lr, weight_decay
        self.warmup_steps, self.decay_fraction = warmup_steps, decay_fraction
        self.glyph_weight, self.seed = glyph_weight, seed
        self.validation_names: list[str] = []

    def on_train_start(self) -> None:
        """Set the learning rate anew: a checkpoint remembers the rate of the length that the run had then."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr * self.learning_rate_factor(self.global_step)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed all randomness of the step, so that a resumed run repeats an uninterrupted one."""
        torch.manual_seed(self.seed * 1_000_003 + self.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        images, centers = warp(jitter_colours(normalise(batch.images)), batch.centers)
        memory = self.model.encode(images)
        targets = self.model.tokenizer.encode(batch.labels, self.device)
        rng = np.random.default_rng([self.seed, self.global_step])
        config = self.config
        orders = draw_permutations(targets.shape[1] - 2, rng, config.perm_num, config.perm_forward, config.perm_mirrored)
        loss = self.model.permutation_loss(memory, targets, orders)
        self.log("loss", loss.detach(), prog_bar=True)
        if self.glyph_weight:
            glyph = self.glyph_loss(memory, targets, centers)
            self.log("glyph_loss", glyph.detach(), prog_bar=True)
            loss = loss + self.glyph_weight * glyph
        return loss

    def glyph_loss(self, memory: Tensor, targets: Tensor, centers: Tensor) -> Tensor:
        """Cross-entropy of naming each glyph from the encoder token that covers its centre.

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
        if not bool(inside.any()):
            return memory.new_zeros(())
        crop, position = inside.nonzero(as_tuple=True)
        at = centers[crop, position]
        token = (at[:, 1] * rows).long() * columns + (at[:, 0] * columns).long()
        logits = self.glyph_head(memory[crop, token])
        return F.cross_entropy(logits, ids[crop, position] - 1)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count exact matches (case-sensitive), with the config's own decoding."""
        texts, _ = self.model.tokenizer.decode(self.model(normalise(batch.images)).softmax(-1))
        hits = [text == label for text, label in zip(texts, batch.labels, strict=True)]
        name = self.validation_names[dataloader_idx]
        accuracy = sum(hits) / len(hits)
        self.log(f"accuracy_{name}", accuracy, batch_size=len(hits), prog_bar=True, add_dataloader_idx=False)

    def learning_rate_factor(self, step: int) -> float:
        """Warm up, stay, fall: the share of the peak rate at `step`."""
        total = self.trainer.max_steps
        decay_steps = max(1, round(total * self.decay_fraction))
        return min(1.0, (step + 1) / max(1, self.warmup_steps), max(0.0, (total - step) / decay_steps))

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
