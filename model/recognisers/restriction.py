"""Reading with a part of the charset only: other characters are left out of every decision.

To leave them out of the finished text would be another thing: what is read in turn, or again, has seen what was read before.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor
from torch.nn import functional as F

FORBIDDEN: Final = -1e9
"""Added to the logits of classes that may not be read: their probability is 0, and no logit is infinite."""


def restricted(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Logits of which only allowed classes can be the best.

    Args:
        logits: Float `(B, S, C)`: class 0 is the end (or the blank), which always may be read, then come the characters.
            Classes behind these are left as they are.
        allowed: bool `(B or 1, characters)`; None: all.
    """
    if allowed is None:
        return logits
    penalty = (~allowed).to(logits.dtype) * FORBIDDEN
    return logits + F.pad(penalty, (1, logits.shape[-1] - 1 - allowed.shape[-1]))[:, None]
