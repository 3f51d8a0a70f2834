"""What is for training and what for validation: decided by names only, so it is the same on every machine."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "validation"]


def is_validation(name: str, per_mille: int) -> bool:
    """Whether a word or the family of a face belongs to the validation split, whatever its case.

    Args:
        name: The word, or the name of the family.
        per_mille: How many of a thousand names are for validation.
    """
    digest = hashlib.sha256(name.lower().encode()).digest()
    return int.from_bytes(digest[:4], "big") % 1000 < per_mille
