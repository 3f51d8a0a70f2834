"""How PARSeq learns: the permuted loss, and two losses on the encoder that only training knows.

The glyph loss asks the encoder token that covers the centre of a rendered glyph to name the character, through a linear layer
that is no part of the network. It gives the encoder a dense, local signal long before the decoder has learnt where to look. Of
real crops nobody knows the centres: there connectionist temporal classification (Graves et al., ICML 2006) over the columns of
the memory gives a local signal, and one about how many letters there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.distributed import ALONE, Shard, largest, total
from model.recognisers.interface import Step, Training, decay_groups
from model.recognisers.parseq.network import PARSeq
from model.recognisers.parseq.permutations import draw_permutations
from model.recognisers.parts.ctc import BLANK, ctc_loss

EMBEDDINGS: Final = ("embed", "pos_queries")
"""In names of what does not decay, besides vectors; the patches' convolution among them."""


class PARSeqTraining(Training):
    """The three losses of a PARSeq."""

    network: PARSeq

    def __init__(self, network: PARSeq, glyph_weight: float = 1.0, ctc_weight: float = 0.0) -> None:
        """Build the layers that only training needs.

        Args:
            network: What is to learn.
            glyph_weight: Of the glyph loss; 0 switches it off.
            ctc_weight: Of the CTC loss; 0 switches it off.
        """
        super().__init__(network)
        self.config, self.tokenizer = network.config, network.tokenizer
        self.glyph_weight, self.ctc_weight = glyph_weight, ctc_weight
        width, characters = self.config.embed_dim, len(self.config.charset_train)
        self.glyph_head = self.heads["glyph_head"] = nn.Linear(width, characters)
        # Only when it is used, so that checkpoints from before there was one can be resumed.
        self.ctc_head = nn.Linear(width, characters + 1) if ctc_weight else None
        if self.ctc_head is not None:
            self.heads["ctc_head"] = self.ctc_head
        self._encode = network.encode

    def compile(self) -> None:
        """Compile the encoder; the decoder sees another shape in every batch."""
        self._encode = torch.compile(self.network.encode, dynamic=False)

    def groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Matrices decay; vectors and embeddings do not."""
        return decay_groups(self.parameters(), weight_decay, EMBEDDINGS)

    def loss(self, images: Tensor, labels: Sequence[str], centers: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the losses by their weights; the permuted one is logged as `loss`."""
        shard = step.shard
        several = shard.world_size > 1
        targets = self.tokenizer.encode(labels, images.device)
        # All processes predict in the same orders, those of the longest text of the global batch.
        width = largest(targets.shape[1], images.device) if several else targets.shape[1]
        targets = F.pad(targets, (0, width - targets.shape[1]), value=self.tokenizer.pad_id)
        config = self.config
        memory = self._encode(images)
        orders = draw_permutations(width - 2, step.rng(), config.perm_num, config.perm_forward, config.perm_mirrored)
        step.seed_apart()
        count = total(self.network.count_predicted(targets, orders)) / shard.world_size if several else None
        loss = self.network.permutation_loss(memory, targets, orders, count)
        logged = {"loss": loss}
        if self.glyph_weight:
            glyph = self.glyph_loss(memory, targets, centers, shard)
            # Without any centre in the global batch there is none; all processes find the same.
            if bool(total(glyph.detach()) > 0):
                logged["glyph_loss"] = glyph
            loss = loss + self.glyph_weight * glyph
        if self.ctc_head is not None:
            logged["ctc_loss"] = self.ctc_loss(memory, targets)
            loss = loss + self.ctc_weight * logged["ctc_loss"]
        if several:
            # Also where no centre is known.
            loss = loss + 0 * sum(parameter.sum() for parameter in self.glyph_head.parameters())
        return loss, logged

    def glyph_loss(self, memory: Tensor, targets: Tensor, centers: Tensor, shard: Shard = ALONE) -> Tensor:
        """Cross-entropy of naming each glyph from the encoder token that covers its centre; the mean over all processes.

        Args:
            memory: Float `(B, N, E)`.
            targets: int64 `(B, L + 2)`, encoded labels.
            centers: Float `(B, M, 2)`, fractions of width and height, NaN where unknown.
            shard: Which crops of the global batch these are.

        Returns:
            A scalar; 0 when no centre lies inside its crop.
        """
        rows, columns = self.config.grid
        ids = targets[:, 1:-1]
        centers = centers[:, : ids.shape[1]]
        ids = ids[:, : centers.shape[1]]
        inside = ((centers >= 0) & (centers < 1)).all(-1) & (ids >= 1) & (ids <= len(self.config.charset_train))
        several = shard.world_size > 1
        if not several and not bool(inside.any()):
            return memory.new_zeros(())
        crop, position = inside.nonzero(as_tuple=True)
        at = centers[crop, position]
        token = (at[:, 1] * rows).long() * columns + (at[:, 0] * columns).long()
        logits = self.glyph_head(memory[crop, token])
        if not several:
            return F.cross_entropy(logits, ids[crop, position] - 1)
        count = total(inside.sum()).clamp(min=1) / shard.world_size
        return F.cross_entropy(logits, ids[crop, position] - 1, reduction="sum") / count

    def ctc_loss(self, memory: Tensor, targets: Tensor) -> Tensor:
        """The negative log likelihood of the text by its length, summed over all ways to spread it over the columns.

        Args:
            memory: Float `(B, N, E)`; a column is the mean of its rows.
            targets: int64 `(B, L + 2)`, encoded labels. Texts that have no room in the columns count nothing.

        Returns:
            The mean over the batch, a scalar. The blank is the end token's id.
        """
        assert self.ctc_head is not None
        columns = memory.view(len(memory), *self.config.grid, -1).mean(1)
        ids = targets[:, 1:]
        return ctc_loss(self.ctc_head(columns), ids.masked_fill(ids == self.tokenizer.pad_id, BLANK))
