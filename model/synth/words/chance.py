"""Random choices that all kinds of texts use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Rng = np.random.Generator
WordSource = Callable[[Rng], str]


def pick(rng: Rng, items: Sequence[T]) -> T:
    """One of `items`, evenly drawn; faster than `rng.choice`, and keeps the type."""
    return items[int(rng.integers(len(items)))]


def in_some_case(rng: Rng, word: str, upper: float, capitalised: float) -> str:
    """`word` in upper case, capitalised or in lower case.

    Args:
        rng: One number is drawn from it.
        word: A word in any case.
        upper: The share of words in upper case.
        capitalised: The share of those that are in upper case or capitalised.
    """
    share = rng.random()
    return word.upper() if share < upper else word.capitalize() if share < capitalised else word.lower()
