"""Architectures of CRNN, the one that has a name among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from model.charsets import PRINTABLE
from model.errors import ConfigError
from model.recognisers.parts.settings import PlainConfig, check_charset, check_columns

HEIGHT: Final = 32
"""Of an image in pixels: what the convolutions make one row of."""
REDUCTION: Final = 4
"""Pixels of an image's width for a column, but for the one column that padding adds."""
CHANNELS: Final = (64, 128, 256, 256, 512, 512, 512)
"""Of the seven convolutions."""


@dataclass(frozen=True, slots=True)
class CRNNConfig(PlainConfig):
    """A CRNN network. Names and defaults follow the reference implementation's `system_args`."""

    RECOGNISER: ClassVar[str] = "crnn"
    FREE: ClassVar[frozenset[str]] = frozenset({"max_label_length"})
    ADAPTABLE: ClassVar[frozenset[str]] = frozenset({"charset_train"})

    charset_train: str = PRINTABLE
    max_label_length: int = 25
    """Longest label to train on, in characters; a text that is read may have as many as there are columns."""
    img_size: tuple[int, int] = (HEIGHT, 128)
    """Height and width in pixels."""
    hidden_size: int = 256
    leaky_relu: bool = False
    """Leaky ReLU of slope 0.2 instead of ReLU; no tensor's shape tells it."""

    def __post_init__(self) -> None:
        """Check what would otherwise fail deep inside the network.

        Raises:
            ConfigError: The image has not the right height, or a number is out of range.
        """
        check_charset(self.charset_train)
        height, width = self.img_size
        if height != HEIGHT:
            raise ConfigError(f"the image height must be {HEIGHT}, of which a CRNN makes one row of columns, not {height}")
        if width < REDUCTION:
            raise ConfigError(f"the image width must be at least {REDUCTION}, not {width}")
        if self.hidden_size < 1:
            raise ConfigError(f"hidden_size must be at least 1, not {self.hidden_size}")
        check_columns(self.max_label_length, self.columns, width)

    @property
    def columns(self) -> int:
        """How many columns are named: 33 for an image 128 wide."""
        return self.img_size[1] // REDUCTION + 1

    def least_size(self) -> tuple[int, int]:
        """Tensors and numbers of the recurrent layers alone."""
        hidden, classes = self.hidden_size, len(self.charset_train) + 1
        return 20, 8 * hidden * (CHANNELS[-1] + 3 * hidden) + 2 * hidden * (hidden + classes)


NAMED: Final[dict[str, CRNNConfig]] = {"crnn": CRNNConfig()}
