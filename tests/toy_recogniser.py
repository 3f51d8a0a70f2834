"""A recogniser outside `model.recognisers`, as small as one can be: it shows what belongs to PARSeq alone.

Each column of a crop is named by one linear layer: the blank or a character, as connectionist temporal classification has it.
`tests.toy_graph` exports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from model.command_line import Option
from model.errors import ConfigError
from model.recognisers.interface import Network, Step, Training
from model.recognisers.parts.ctc import BLANK, CtcTokenizer, ctc_loss
from model.recognisers.parts.settings import PlainConfig, check_charset
from model.recognisers.registry import Adapting, Recogniser, recognisers, register


@dataclass(frozen=True, slots=True)
class ToyConfig(PlainConfig):
    """Two characters. A text has at most as many as there are columns."""

    RECOGNISER: ClassVar[str] = "toy"
    FREE: ClassVar[frozenset[str]] = frozenset()
    ADAPTABLE: ClassVar[frozenset[str]] = frozenset({"charset_train"})

    charset_train: str = "ab"
    img_size: tuple[int, int] = (32, 128)
    column_width: int = 8

    def __post_init__(self) -> None:
        check_charset(self.charset_train)
        if self.column_width < 1 or self.img_size[1] % self.column_width:
            raise ConfigError(f"image width {self.img_size[1]} is not a multiple of column_width {self.column_width}")

    @property
    def max_label_length(self) -> int:
        return self.img_size[1] // self.column_width

    def least_size(self) -> tuple[int, int]:
        return 2, (len(self.charset_train) + 1) * 3 * self.img_size[0] * self.column_width


class Toy(Network):
    """Columns `(B, T, C)` of classes: the blank, then the characters."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config: ToyConfig = config
        self.naming = nn.Linear(3 * config.img_size[0] * config.column_width, len(config.charset_train) + 1)

    def forward(self, images: Tensor, max_length: int | None = None) -> Tensor:
        # (B, 3, H, W) to (B, T, 3 * H * column width)
        columns = images.unflatten(-1, (-1, self.config.column_width)).permute(0, 3, 1, 2, 4).flatten(2)
        logits: Tensor = self.naming(columns)
        return logits

    def decode(self, logits: Tensor) -> tuple[list[str], list[Tensor]]:
        return CtcTokenizer(self.config.charset_train).decode(logits.softmax(-1))


@dataclass(frozen=True, kw_only=True)
class ToyOptions:
    """What only a toy can be told. (That of a recogniser in `model.recognisers` is in a module without torch.)"""

    blank_penalty: Annotated[float, Option("weight of the probability of blanks, which is to be small (%(default)s)")] = 0.0
    naming_lr: Annotated[float | None, Option("peak learning rate of the naming layer's bias (default: --lr)")] = None


class ToyTraining(Training):
    """The CTC loss, and a penalty for blanks; a group of parameters that has a rate of its own."""

    def __init__(self, network: Toy, blank_penalty: float = 0.0, naming_lr: float | None = None) -> None:
        super().__init__(network)
        self.blank_penalty, self.naming_lr = blank_penalty, naming_lr

    def groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        matrices, vectors = super().groups(lr, weight_decay)
        return [matrices, {**vectors, "lr": lr if self.naming_lr is None else self.naming_lr}]

    def loss(self, images: Tensor, labels: Sequence[str], centers: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        ids = CtcTokenizer(self.network.config.charset_train).encode(labels, images.device)
        logits = self.network(images)
        loss = ctc_loss(logits, ids) + self.blank_penalty * logits.softmax(-1)[..., BLANK].mean()
        return loss, {"loss": loss}


TOY = Recogniser(
    name="toy",
    class_name="Toy",
    config=ToyConfig,
    network="tests.toy_recogniser:Toy",
    training="tests.toy_recogniser:ToyTraining",
    named={"toy": ToyConfig()},
    keys=frozenset({"naming.weight"}),
    essential=frozenset({"column_width"}),
    adapting=Adapting(by_character={"naming.weight": 0, "naming.bias": 0}),
    recipe="parseq",
    training_options=ToyOptions,
)


def random_toy(config: ToyConfig | None = None, seed: int = 3) -> Toy:
    """One with random weights, in eval mode, whose decisions are seldom close."""
    network = Toy(config or ToyConfig())
    with torch.no_grad():
        network.naming.weight.copy_(torch.randn(network.naming.weight.shape, generator=torch.Generator().manual_seed(seed)))
    return network.eval()


@contextmanager
def toy_registered() -> Iterator[Recogniser]:
    """The toy among the recognisers, for a while."""
    register(TOY)
    try:
        yield TOY
    finally:
        del recognisers()[TOY.name]
