"""Architectures of ABINet, those that have a name among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, get_args

from model.charsets import PRINTABLE
from model.errors import LONGEST_SHOWN, ConfigError
from model.recognisers.parts.settings import OF_THE_JOB, PlainConfig, check_charset

Backbone = Literal["transformer", "resnet"]
Attention = Literal["position", "attention"]
Activation = Literal["relu", "gelu"]

NARROWEST: Final = 16
"""The residual network begins with this share of the features' width."""
IMAGE_SIZE: Final = (32, 128)
MAP: Final = (8, 32)
"""Rows and columns of the feature map of such an image: what the attentions are made for."""


@dataclass(frozen=True, slots=True)
class ABINetConfig(PlainConfig):
    """An ABINet. Names and defaults follow the reference implementation's `system_args`.

    `v_` is the vision part's, `l_` the language part's, `a_` the alignment's.
    """

    RECOGNISER: ClassVar[str] = "abinet"
    # Those of the reference's jobs are options here (`model.recognisers.abinet.options`).
    OF_THE_JOB: ClassVar[frozenset[str]] = OF_THE_JOB | {"l_lr", "lm_only"}
    FREE: ClassVar[frozenset[str]] = frozenset(
        {"iter_size", "dropout", "l_detach", "v_loss_weight", "l_loss_weight", "a_loss_weight"}
    )
    ADAPTABLE: ClassVar[frozenset[str]] = frozenset({"charset_train", "max_label_length"})

    charset_train: str = PRINTABLE
    max_label_length: int = 25
    img_size: tuple[int, int] = IMAGE_SIZE
    """Height and width in pixels."""
    d_model: int = 512
    """Width of the features, with which all convolutions of the vision part grow; in the reference it is fixed."""
    nhead: int = 8
    d_inner: int = 2048
    """Width between the two layers of each feed-forward part."""
    activation: Activation = "relu"
    dropout: float = 0.1
    v_backbone: Backbone = "transformer"
    """The residual network, with transformer layers behind it or alone."""
    v_num_layers: int = 3
    v_attention: Attention = "position"
    """How characters find their places on the map: by keys that a small hourglass network makes of it, or by additive
    attention (`abinet-sv`)."""
    v_attention_mode: str = "nearest"
    """How the hourglass enlarges its maps."""
    v_loss_weight: float = 1.0
    l_num_layers: int = 4
    l_use_self_attn: bool = False
    l_detach: bool = True
    """Whether the language part's loss leaves alone what it was given to read."""
    l_loss_weight: float = 1.0
    a_loss_weight: float = 1.0
    iter_size: int = 3
    """How often what was read is spelt by the language part and aligned with what was seen."""

    def __post_init__(self) -> None:
        """Check what would otherwise fail deep inside the network.

        Raises:
            ConfigError: A size is one that the network cannot have, or a number is out of range.
        """
        check_charset(self.charset_train)
        for name, only in (("img_size", IMAGE_SIZE), ("v_attention_mode", "nearest")):
            if getattr(self, name) != only:
                raise ConfigError(f"{name} of an ABINet is {_shown(only)}, not {_shown(getattr(self, name))}")
        for name, kind in (("v_backbone", Backbone), ("v_attention", Attention), ("activation", Activation)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(
                    f"{name} must be {' or '.join(map(repr, get_args(kind)))}, not {getattr(self, name)!r:{LONGEST_SHOWN}}"
                )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and less than 1, not {self.dropout}")
        for part, name in ((self.nhead, f"nhead {self.nhead}"), (NARROWEST, str(NARROWEST))):
            if part < 1 or self.d_model < 1 or self.d_model % part:
                raise ConfigError(f"d_model {self.d_model} is not a positive multiple of {name}")
        for name in ("max_label_length", "d_inner", "v_num_layers", "l_num_layers", "iter_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("v_loss_weight", "l_loss_weight", "a_loss_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be at least 0, not {getattr(self, name)}")

    @property
    def classes(self) -> int:
        """C: the end of the text, and the characters."""
        return len(self.charset_train) + 1

    @property
    def steps(self) -> int:
        """S: the characters of the longest text, and its end."""
        return self.max_label_length + 1

    def least_size(self) -> tuple[int, int]:
        """Tensors and numbers of the network's matrices and tables alone, without the residual network's."""
        seen = self.v_num_layers if self.v_backbone == "transformer" else 0
        layers = seen + self.l_num_layers
        attentions = layers + self.l_num_layers * self.l_use_self_attn
        numbers = layers * 2 * self.d_inner + attentions * 4 * self.d_model + 2 * self.steps + 4 * self.classes
        return 4 * layers, self.d_model * numbers


def _shown(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else repr(value)


NAMED: Final[dict[str, ABINetConfig]] = {
    "abinet": ABINetConfig(),
    # "small vision": additive attention instead of the hourglass, and a layer less.
    "abinet-sv": ABINetConfig(v_attention="attention", v_num_layers=2),
}
