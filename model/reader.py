"""Reading crops with a network, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.parseq import PARSeq
from model.preprocess import normalise


@dataclass(frozen=True, slots=True)
class Reading:
    """What a network reads in a crop."""

    text: str
    confidence: float
    """Product of the probabilities of the text's tokens, the end token's included."""


def read_batches(network: PARSeq, images: NDArray[np.uint8], batch_size: int = 64) -> Iterator[list[Reading]]:
    """Read crops batch by batch.

    Args:
        network: in evaluation mode.
        images: uint8 `(n, height, width, 3)` of the network's size.
        batch_size: crops at a time.
    """
    for start in range(0, len(images), batch_size):
        with torch.inference_mode():
            logits = network(normalise(torch.from_numpy(images[start : start + batch_size])))
            texts, probabilities = network.tokenizer.decode(logits.softmax(-1))
        yield [Reading(text, float(p.prod())) for text, p in zip(texts, probabilities, strict=True)]
