"""Reading crops with a network in PyTorch, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.fit import fit
from artifact.text import Reading
from model.recognisers.parseq.network import PARSeq
from model.recognisers.parts.normalise import normalise
from reading.readers.interface import Picture


class NetworkReader:
    """Reads with a network in PyTorch."""

    def __init__(self, network: PARSeq, description: str, device: str = "cpu") -> None:
        """Prepare reading.

        Args:
            network: in evaluation mode.
            description: for reports.
            device: where to compute, by PyTorch's name.
        """
        self.description = description
        self.charset = network.config.charset_train
        self.max_label_length = network.config.max_label_length
        self.refused = 0
        self._network = network.to(device)

    def read(self, pictures: Sequence[Picture]) -> list[Reading]:
        """A reading for each picture, all of them as one batch."""
        pixels = np.stack([fit(picture.image, *self._network.config.img_size) for picture in pictures])
        return next(read_batches(self._network, pixels, len(pixels)))

    def close(self) -> None:
        """Nothing to let go of."""


def read_batches(network: PARSeq, images: NDArray[np.uint8], batch_size: int = 64) -> Iterator[list[Reading]]:
    """Read crops batch by batch.

    Args:
        network: in evaluation mode.
        images: uint8 `(n, height, width, 3)` of the network's size.
        batch_size: crops at a time.
    """
    device = network.pos_queries.device
    for start in range(0, len(images), batch_size):
        with torch.inference_mode():
            logits = network(normalise(torch.from_numpy(images[start : start + batch_size]).to(device)))
            texts, probabilities = network.tokenizer.decode(logits.softmax(-1))
        yield [Reading(text, float(p.prod())) for text, p in zip(texts, probabilities, strict=True)]
