"""Two more recognisers that only tests know: with batch norm, and with names that others have too.

The state dict of a `NormedToy` has all names that tell a `Toy`, and more; that of a `SisterToy` has the very names of a
`NormedToy` and one class more, which is never answered. A part of theirs is called `model`, as one of a training system is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from model.charsets import PRINTABLE
from model.recognisers.interface import Network
from model.recognisers.parts.ctc import CtcTokenizer
from model.recognisers.registry import Adapting, Recogniser, recognisers, register
from tests.toy_recogniser import TOY, ToyConfig, toy_registered


@dataclass(frozen=True, slots=True)
class NormedConfig(ToyConfig):
    """Features before the columns are named."""

    RECOGNISER: ClassVar[str] = "normed-toy"

    charset_train: str = PRINTABLE
    img_size: tuple[int, int] = (16, 64)
    channels: int = 4
    gain: float = 1.0
    """Of the features: no tensor's shape tells it."""

    def least_size(self) -> tuple[int, int]:
        return 8, (len(self.charset_train) + 1) * self.channels * self.img_size[0] * self.column_width


@dataclass(frozen=True, slots=True)
class SisterConfig(NormedConfig):
    """The same, of the sister."""

    RECOGNISER: ClassVar[str] = "sister-toy"


class NormedToy(Network):
    """A convolution and batch norm; then columns `(B, T, C)` of classes: the blank, the characters, and `SPECIAL` more."""

    SPECIAL: ClassVar[int] = 0

    def __init__(self, config: NormedConfig) -> None:
        super().__init__()
        self.config: NormedConfig = config
        self.features = nn.ModuleDict(
            {"model": nn.Sequential(nn.Conv2d(3, config.channels, 3, padding=1), nn.BatchNorm2d(config.channels), nn.ReLU())}
        )
        self.naming = nn.Linear(
            config.channels * config.img_size[0] * config.column_width, len(config.charset_train) + 1 + self.SPECIAL
        )
        self.register_buffer("table", torch.linspace(0.1, 1, 9))

    def forward(self, images: Tensor, max_length: int | None = None) -> Tensor:
        features = self.config.gain * self.features["model"](images)
        logits: Tensor = self.naming(features.unflatten(-1, (-1, self.config.column_width)).permute(0, 3, 1, 2, 4).flatten(2))
        return logits[..., : len(self.config.charset_train) + 1]

    def decode(self, logits: Tensor) -> tuple[list[str], list[Tensor]]:
        return CtcTokenizer(self.config.charset_train).decode(logits.softmax(-1))


class SisterToy(NormedToy):
    """One class more."""

    SPECIAL = 1


KEYS: Final = frozenset({"naming.weight", "features.model.1.weight"})
ADAPTING: Final = Adapting(by_character={"naming.weight": 0, "naming.bias": 0})
NORMED: Final = Recogniser(
    name="normed-toy",
    class_name="NormedToy",
    config=NormedConfig,
    network="tests.toy_relatives:NormedToy",
    training="tests.toy_recogniser:ToyTraining",
    named={"normed": NormedConfig(), "normed-wide": NormedConfig(channels=6)},
    keys=KEYS,
    essential=frozenset({"channels"}),
    adapting=ADAPTING,
    recipe="parseq",
    training_options=TOY.training_options,
)
SISTER: Final = Recogniser(
    name="sister-toy",
    class_name="SisterToy",
    config=SisterConfig,
    network="tests.toy_relatives:SisterToy",
    training="tests.toy_recogniser:ToyTraining",
    named={"sister": SisterConfig()},
    keys=KEYS,
    essential=frozenset({"channels"}),
    adapting=ADAPTING,
    recipe="parseq",
    training_options=TOY.training_options,
)


@contextmanager
def relatives_registered() -> Iterator[None]:
    """The toy and these among the recognisers, for a while."""
    with toy_registered():
        register(NORMED)
        register(SISTER)
        try:
            yield
        finally:
            del recognisers()[NORMED.name], recognisers()[SISTER.name]
