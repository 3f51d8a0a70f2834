"""The loss of recognisers that give a token for each step."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from model.distributed import ALONE, Shard, total


def token_loss(logits: Tensor, ids: Tensor, pad_id: int, shard: Shard = ALONE) -> Tensor:
    """Cross-entropy, the mean over all tokens of the batch.

    Args:
        logits: Float `(B, S, C)`.
        ids: int64 `(B, S)`, the right token of each step.
        pad_id: An id that does not count; it need not be a class.
        shard: Which crops of the global batch these are. The mean of all processes' losses is that of the whole batch, to which
            each label contributes by its number of tokens.

    Returns:
        A scalar.
    """
    rows, wanted = logits.flatten(0, 1), ids.flatten()
    if shard.world_size == 1:
        return F.cross_entropy(rows, wanted, ignore_index=pad_id)
    count = total((ids != pad_id).sum()) / shard.world_size
    return F.cross_entropy(rows, wanted, ignore_index=pad_id, reduction="sum") / count
