"""Architectures of PARSeq, and those with a name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from model.charsets import PRINTABLE, SIGNS_BESIDES
from model.errors import LONGEST_SHOWN, ConfigError
from model.recognisers.parts.settings import PlainConfig, check_charset

Stem = Literal["patch", "residual"]


@dataclass(frozen=True, slots=True)
class PARSeqConfig(PlainConfig):
    """A PARSeq network. Names and defaults follow the reference implementation's `system_args`; `stem` is ours."""

    RECOGNISER: ClassVar[str] = "parseq"
    FREE: ClassVar[frozenset[str]] = frozenset(
        {"decode_ar", "refine_iters", "perm_num", "perm_forward", "perm_mirrored", "dropout"}
    )
    ADAPTABLE: ClassVar[frozenset[str]] = frozenset({"charset_train", "max_label_length"})

    charset_train: str = PRINTABLE
    max_label_length: int = 25
    img_size: tuple[int, int] = (32, 128)
    """Height and width in pixels."""
    patch_size: tuple[int, int] = (4, 8)
    """Height and width in pixels that one encoder token covers."""
    embed_dim: int = 384
    enc_num_heads: int = 6
    enc_mlp_ratio: int = 4
    enc_depth: int = 12
    dec_num_heads: int = 12
    dec_mlp_ratio: int = 4
    dec_depth: int = 1
    perm_num: int = 6
    perm_forward: bool = True
    perm_mirrored: bool = True
    decode_ar: bool = True
    refine_iters: int = 1
    dropout: float = 0.1
    stem: Stem = "patch"
    """`patch`: one strided convolution (ViT, the released weights). `residual`: a small residual convolutional network."""

    def __post_init__(self) -> None:
        """Check values that would otherwise cause obscure errors in the network.

        Raises:
            ConfigError: Sizes do not divide, or a number is out of range.
        """
        check_charset(self.charset_train)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and less than 1, not {self.dropout}")
        for pixels, patch, axis in zip(self.img_size, self.patch_size, ("height", "width"), strict=True):
            if pixels < 1 or patch < 1 or pixels % patch:
                raise ConfigError(f"image {axis} {pixels} is not a multiple of the patch {axis} {patch}")
        for heads, name in ((self.enc_num_heads, "enc_num_heads"), (self.dec_num_heads, "dec_num_heads")):
            if heads < 1 or self.embed_dim < 1 or self.embed_dim % heads:
                raise ConfigError(f"embed_dim {self.embed_dim} is not a positive multiple of {name} {heads}")
        for name in (
            "max_label_length",
            "enc_depth",
            "dec_depth",
            "perm_num",
            "enc_mlp_ratio",
            "dec_mlp_ratio",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.refine_iters < 0:
            raise ConfigError(f"refine_iters must be at least 0, not {self.refine_iters}")
        if self.stem not in ("patch", "residual"):
            raise ConfigError(f"stem must be 'patch' or 'residual', not {self.stem!r:{LONGEST_SHOWN}}")
        if self.stem == "residual" and self.patch_size != (8, 4):
            raise ConfigError("the residual stem reduces 8x4: set patch_size to [8, 4]")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of encoder tokens."""
        return self.img_size[0] // self.patch_size[0], self.img_size[1] // self.patch_size[1]

    def least_size(self) -> tuple[int, int]:
        """Lower bounds: a tensor for each layer, and the numbers in the matrices alone."""
        width, classes = self.embed_dim, len(self.charset_train)
        layers = self.enc_depth * (4 + 2 * self.enc_mlp_ratio) + self.dec_depth * (8 + 2 * self.dec_mlp_ratio)
        numbers = width * (width * layers + math.prod(self.grid) + self.max_label_length + 2 * classes)
        return self.enc_depth + self.dec_depth, numbers


NAMED: Final[dict[str, PARSeqConfig]] = {
    "parseq": PARSeqConfig(),
    "parseq-tiny": PARSeqConfig(embed_dim=192, enc_num_heads=3, dec_num_heads=6),
    "parseq-patch16-224": PARSeqConfig(img_size=(224, 224), patch_size=(16, 16)),
    # Without dropout: in hours on two CPU cores it does not overfit, and a training step is 1.3 times as fast.
    "parseq-nano": PARSeqConfig(
        stem="residual",
        patch_size=(8, 4),
        embed_dim=128,
        enc_num_heads=4,
        enc_depth=3,
        dec_num_heads=4,
        dropout=0.0,
    ),
    "parseq-mini": PARSeqConfig(
        charset_train=PRINTABLE + SIGNS_BESIDES,
        stem="residual",
        patch_size=(8, 4),
        embed_dim=192,
        enc_num_heads=6,
        enc_depth=4,
        dec_num_heads=6,
        dropout=0.0,
    ),
}
