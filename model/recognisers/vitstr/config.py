"""Architectures of ViTSTR, those that have a name among them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

from model.charsets import PRINTABLE
from model.errors import ConfigError
from model.recognisers.parts.settings import PlainConfig, check_charset


@dataclass(frozen=True, slots=True)
class ViTSTRConfig(PlainConfig):
    """A ViTSTR network. Names and defaults follow the reference's experiment; `depth` and `mlp_ratio` are ours."""

    RECOGNISER: ClassVar[str] = "vitstr"
    FREE: ClassVar[frozenset[str]] = frozenset()
    ADAPTABLE: ClassVar[frozenset[str]] = frozenset({"charset_train", "max_label_length"})

    charset_train: str = PRINTABLE
    max_label_length: int = 25
    img_size: tuple[int, int] = (32, 128)
    """Height and width in pixels."""
    patch_size: tuple[int, int] = (4, 8)
    """Height and width in pixels that one token covers."""
    embed_dim: int = 384
    num_heads: int = 6
    depth: int = 12
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        """Check what would otherwise fail deep inside the network.

        Raises:
            ConfigError: Sizes do not divide, a number is out of range, or a text needs more places than there are patches.
        """
        check_charset(self.charset_train)
        for pixels, patch, axis in zip(self.img_size, self.patch_size, ("height", "width"), strict=True):
            if pixels < 1 or patch < 1 or pixels % patch:
                raise ConfigError(f"image {axis} {pixels} is not a multiple of the patch {axis} {patch}")
        if self.num_heads < 1 or self.embed_dim < 1 or self.embed_dim % self.num_heads:
            raise ConfigError(f"embed_dim {self.embed_dim} is not a positive multiple of num_heads {self.num_heads}")
        for name in ("max_label_length", "depth", "mlp_ratio"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        patches = math.prod(self.grid)
        if self.max_label_length >= patches:
            raise ConfigError(
                f"max_label_length {self.max_label_length} is too long: each character and the end of the text is read at a "
                f"patch of its own, and there are {patches}; set it to {patches - 1} at most, or use smaller patches"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.img_size[0] // self.patch_size[0], self.img_size[1] // self.patch_size[1]

    def least_size(self) -> tuple[int, int]:
        """Tensors and numbers of the network's matrices alone."""
        width = self.embed_dim
        layers = self.depth * (4 + 2 * self.mlp_ratio)
        patch = 3 * math.prod(self.patch_size)
        return 4 * self.depth, width * (width * layers + math.prod(self.grid) + patch + len(self.charset_train))


NAMED: Final[dict[str, ViTSTRConfig]] = {
    "vitstr": ViTSTRConfig(),
    "vitstr-patch16-224": ViTSTRConfig(img_size=(224, 224), patch_size=(16, 16)),
}
