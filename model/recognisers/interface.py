"""What a recogniser gives the rest of the project: a configuration, a network, and how the network learns.

Recognisers number their classes alike: 0 ends a text (or is the blank of CTC), 1 to N are the characters of the charset,
anything special comes after them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from model.distributed import Shard
from model.recognisers.restriction import restricted


class Config(Protocol):
    """The architecture of a network: a frozen data class of plain values, every field with a default."""

    RECOGNISER: ClassVar[str]
    """Name of the recogniser that it configures."""
    FREE: ClassVar[frozenset[str]]
    """Fields in which a network may differ from the one that its weights were trained in."""
    ADAPTABLE: ClassVar[frozenset[str]]
    """Fields in which training may begin with weights of another value (`model.training.finetune`)."""
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def charset_train(self) -> str:
        """The characters that can be read, in the order of their classes."""

    @property
    def max_label_length(self) -> int:
        """The longest text that can be read, in characters."""

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width of a crop in pixels."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build it from plain values (see `model.recognisers.parts.settings`).

        Raises:
            ConfigError: An unknown name, or a value of the wrong type or range.
        """

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and checkpoints hold them."""

    def least_size(self) -> tuple[int, int]:
        """How many tensors, and numbers in them, the network has at least. Computed without building it, so that a forged file
        can be refused first."""


class Network(nn.Module, ABC):
    """Normalised crops to logits, logits to texts. B crops, S steps or columns, C classes."""

    config: Config

    @abstractmethod
    def forward(self, images: Tensor, max_length: int | None = None) -> Tensor:
        """Read images.

        Args:
            images: Float `(B, 3, H, W)` in [-1, 1].
            max_length: Read at most so many characters, and give always the same number of steps. Recognisers whose number of
                columns is fixed ignore it.

        Returns:
            Logits, float `(B, S, C)`.
        """

    @abstractmethod
    def decode(self, logits: Tensor) -> tuple[list[str], list[Tensor]]:
        """Logits to texts, and for each the probabilities of which its confidence is the product."""

    def passes(self, images: Tensor, allowed: Tensor | None = None) -> Sequence[Tensor]:
        """The logits of every decision that the answer depends on, each float `(B, S, C)`; those of the answer itself last.

        Where two logits of a step nearly tie, rounding may change the answer. A network that decides only once gives one.

        Args:
            images: Float `(B, 3, H, W)` in [-1, 1].
            allowed: bool `(B or 1, characters)`: which characters may be read; None: all. Others have the lowest logits
                (`model.recognisers.restriction`).
        """
        return [restricted(self(images, self.config.max_label_length), allowed)]

    def step_probabilities(self, logits: Tensor) -> Tensor | None:
        """The probabilities of what each step of a text can be, float `(B, S, classes)`, 0 the end; None where logits are those
        of columns."""
        return None

    def ways(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Parts and ways of reading to be measured separately, by name. Each takes images and reads the longest text."""
        return {"reading": lambda images: self(images, self.config.max_label_length)}

    def reads_by(self) -> dict[str, object]:
        """How the network decodes, for reports: plain values by name."""
        return {}


@dataclass(frozen=True, slots=True)
class Step:
    """Where a run is."""

    number: int
    """Optimiser steps done."""
    of: int
    """Optimiser steps of the whole run."""
    batch: int
    """Batches done: more than steps where gradients are accumulated."""
    seed: int
    """Of the run."""
    shard: Shard
    """Which crops of the global batch this process has."""

    def seed_alike(self) -> None:
        """Seed all randomness of the batch, alike in all processes, so that a resumed run repeats an uninterrupted one."""
        torch.manual_seed(self._torch_seed)

    def seed_apart(self) -> None:
        """Seed each process differently, for dropout above all. To be called after everything common to all has been drawn."""
        if self.shard.rank:
            torch.manual_seed(self._torch_seed ^ (self.shard.rank << 48))

    def rng(self) -> np.random.Generator:
        """NumPy's generator for this batch, alike in all processes."""
        return np.random.default_rng([self.seed, self.batch])

    @property
    def _torch_seed(self) -> int:
        return self.seed * 1_000_003 + self.batch


class Training(ABC):
    """How a network learns: its loss, what trains beside it, and which parameters share a rate."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.heads: dict[str, nn.Module] = {}
        """Modules that are trained but do not belong to the network; checkpoints keep them under these names."""

    @abstractmethod
    def loss(self, images: Tensor, labels: Sequence[str], centers: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        With several processes the mean of their losses must be that of the joined batch, and every parameter must have a
        gradient in every step (`0 * parameter.sum()` will do).

        Args:
            images: Float `(B, 3, H, W)` in [-1, 1], augmented.
            labels: Their texts; all are in the charset and short enough.
            centers: Float `(B, M, 2)`, x and y of each glyph's centre as fractions of width and height, NaN where unknown.
            step: Where the run is.

        Returns:
            What is to be minimised, a scalar; and what is to be logged, by name: `loss` and its parts, scalars.
        """

    def prepare(self, step: Step, optimizer: torch.optim.Optimizer) -> None:
        """What changes in the course of a run, before a batch.

        It must follow from `step` alone, for a run may be resumed from a checkpoint of any step; and come to the same when it
        is done again, for a step may have several batches. What it draws must be alike in all processes, and the randomness of
        the batch as it was (`Step.seed_alike`).
        """
        return

    def validated(self, images: Tensor, labels: Sequence[str]) -> list[str]:
        """The texts that validation holds against the labels: what the network reads.

        Args:
            images: Float `(B, 3, H, W)` in [-1, 1].
            labels: Their texts, for those that learn something else than to read images.
        """
        return self.network.decode(self.network(images))[0]

    def groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, in an order that checkpoints rely on. Vectors do not decay.

        Args:
            lr: Peak learning rate, as `--lr` says. A group may have a rate of its own under `lr`, such as an option of the
                recogniser. With `--scale-lr` all of them are for 256 crops a step, and whoever asks scales them alike.
            weight_decay: Of the parameters that decay.
        """
        return decay_groups(self.parameters(), weight_decay)

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """All parameters that are trained, with names: the network's under `model`, then those of the heads."""
        modules = {"model": self.network, **self.heads}
        return [named for prefix, module in modules.items() for named in module.named_parameters(prefix)]

    def compile(self) -> None:
        """Have `torch.compile` speed up what takes most of the loss's time."""
        self.network.compile(dynamic=False)


def decay_groups(
    parameters: Sequence[tuple[str, nn.Parameter]], weight_decay: float, exempt: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Two groups of the optimiser: matrices decay; vectors, and what has one of `exempt` in its name, do not."""
    decayed, plain = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in parameters:
        spared = parameter.dim() < 2 or any(part in name for part in exempt)
        (plain if spared else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
