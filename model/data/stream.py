"""The stream of training batches: several sources in fixed shares, repeatable, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from model.data.crops import Batch, CropArrays, concatenate
from model.data.sources import Augment, MemorySource, Source
from model.errors import DataError


def shares_of(weights: Sequence[float], batch_size: int, names: Sequence[str]) -> list[int]:
    """How many crops of a batch come from each source: in proportion to the weights, the largest remainders rounded up.

    Raises:
        DataError: A weight is not positive, or too small for a single crop of the batch.
    """
    for name, weight in zip(names, weights, strict=True):
        if not weight > 0 or weight == float("inf"):
            raise DataError(f"the weight of {name} must be a number greater than 0, not {weight}")
    exact = [weight * batch_size / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (shares[i] - exact[i], i))
    for index in by_remainder[: batch_size - sum(shares)]:
        shares[index] += 1
    for name, share in zip(names, shares, strict=True):
        if not share:
            raise DataError(f"the weight of {name} is too small for one crop in a batch of {batch_size}: raise it or the batch")
    return shares


class BatchStream(IterableDataset[Batch]):
    """An endless stream of batches, drawn from several sources in fixed shares.

    Batch `i` depends on the seed and on `i` alone: a resumed run sees what an uninterrupted one would have seen, and any number
    of loading processes gives the same. Within a source the crops come in a new random order every epoch. Several
    training processes share one global batch: process `r` of `w` gets its crops `r`, `r + w`, ...
    """

    def __init__(
        self,
        sources: Sequence[tuple[CropArrays | Source, int]],
        seed: int,
        first_step: int = 0,
        *,
        augment: Augment | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Prepare the stream.

        Args:
            sources: Pairs of crops and how many of them go into each global batch.
            seed: Of all orders and of the augmentation.
            first_step: The index of the first batch to give.
            augment: Alters each crop.
            rank: Which training process this is.
            world_size: How many there are.
        """
        super().__init__()
        self.sources: list[tuple[Source, int]] = [
            (MemorySource("crops", source) if isinstance(source, CropArrays) else source, share)
            for source, share in sources
            if share
        ]
        self.seed = seed
        self.first_step = first_step
        self.augment = augment
        self.rank, self.world_size = rank, world_size
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}

    def __iter__(self) -> Iterator[Batch]:
        """Batches from `first_step` on, without end; in one of several loading processes, every so manieth."""
        worker = get_worker_info()
        step, stride = (self.first_step, 1) if worker is None else (self.first_step + worker.id, worker.num_workers)
        while True:
            yield self.batch(step)
            step += stride

    def batch(self, step: int) -> Batch:
        """The batch of step `step`, counted from 0."""
        size = sum(share for _, share in self.sources)
        parts, before = [], 0
        for index, (source, share) in enumerate(self.sources):
            # Of the global batch's places `before` to `before + share`, those that are ours.
            ours = range((self.rank - before) % self.world_size, share, self.world_size)
            positions = [step * share + place for place in ours]
            numbers = positions if source.endless else [self._number(index, position) for position in positions]
            seeds = [(self.seed, step * size + before + place) for place in ours]
            if positions:
                parts.append(source.crops(np.array(numbers), self.augment, seeds))
            before += share
        return concatenate(parts).batch()

    def _number(self, source: int, position: int) -> int:
        size = len(self.sources[source][0])
        return int(self._order(source, position // size)[position % size])

    def _order(self, source: int, epoch: int) -> NDArray[np.int64]:
        key = (source, epoch)
        if key not in self._orders:
            self._orders = {old: order for old, order in self._orders.items() if old[1] >= epoch - 1 or old[0] != source}
            rng = np.random.default_rng([self.seed, source, epoch])
            self._orders[key] = rng.permutation(len(self.sources[source][0]))
        return self._orders[key]
