"""What is for training and what for validation: told by names alone, the same on every machine."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "validation"]


def is_validation(name: str, per_mille: int) -> bool:
    """Whether a word or the family of a face belongs to the validation split, whatever its case.

    Args:
        name: Of the word or family.
        per_mille: How many of a thousand names do.
    """
    digest = hashlib.sha256(name.lower().encode()).digest()
    return int.from_bytes(digest[:4], "big") % 1000 < per_mille
