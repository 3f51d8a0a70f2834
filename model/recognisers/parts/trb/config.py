"""The sizes of a TRBA or TRBC. Torch-free, as all configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from model.charsets import PRINTABLE
from model.errors import ConfigError
from model.recognisers.parts.settings import PlainConfig, check_charset

MIN_HEIGHT: Final = 32
"""Of an image in pixels: of what is smaller the convolutions leave nothing."""
MIN_WIDTH: Final = 8
REDUCTION: Final = 4
"""Pixels of an image's width for a column, but for the one column that padding adds."""
NARROWING: Final = 16
"""The first convolution has so many times fewer channels than the last."""
MIN_POINTS: Final = 4
"""Two at the top and two at the bottom of the image: the fewest that bend it."""


@dataclass(frozen=True, slots=True)
class TRBConfig(PlainConfig):
    """What TRBA and TRBC are told. Names and defaults follow the reference implementation's `system_args`."""

    RECOGNISER: ClassVar[str] = ""  # which of the two, the heirs say
    FREE: ClassVar[frozenset[str]] = frozenset({"max_label_length"})
    ADAPTABLE: ClassVar[frozenset[str]] = frozenset({"charset_train"})

    charset_train: str = PRINTABLE
    max_label_length: int = 25
    img_size: tuple[int, int] = (32, 128)
    """Height and width in pixels, before and after rectification."""
    num_fiducial: int = 20
    """Points by which the image is rectified, half of them along its top and half along its bottom."""
    output_channel: int = 512
    """Channels of the feature map."""
    hidden_size: int = 256
    """Of the recurrent layers, in each direction, and of TRBA's decoder."""

    def __post_init__(self) -> None:
        """Check what would otherwise fail deep inside the network.

        Raises:
            ConfigError: Sizes do not divide, or a number is out of range.
        """
        check_charset(self.charset_train)
        for pixels, least, axis in zip(self.img_size, (MIN_HEIGHT, MIN_WIDTH), ("height", "width"), strict=True):
            if pixels < least:
                raise ConfigError(f"the image {axis} must be at least {least}, not {pixels}")
        if self.num_fiducial < MIN_POINTS or self.num_fiducial % 2:
            raise ConfigError(f"num_fiducial must be an even number from {MIN_POINTS}, not {self.num_fiducial}")
        if self.output_channel < NARROWING or self.output_channel % NARROWING:
            raise ConfigError(f"output_channel must be a multiple of {NARROWING}, not {self.output_channel}")
        for name in ("max_label_length", "hidden_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def columns(self) -> int:
        """How many columns the features have: 33 for an image 128 wide."""
        return self.img_size[1] // REDUCTION + 1

    def least_size(self) -> tuple[int, int]:
        """Tensors and numbers of the grid, the residual network's deepest layer and the recurrent layers alone."""
        (height, width), hidden, channels = self.img_size, self.hidden_size, self.output_channel
        grid = height * width * (self.num_fiducial + 3)
        recurrent = 8 * hidden * (channels + 3 * hidden) + 4 * hidden**2
        return 40, grid + 54 * channels**2 + recurrent + hidden * (len(self.charset_train) + 1)
