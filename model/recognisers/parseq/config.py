"""Architectures by name, and architectures from a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from model.charsets import PRINTABLE

Stem = Literal["patch", "residual"]

# Hyper-parameters of the job, not of the network: present in configuration files, of no meaning here.
TRAINING_ONLY = frozenset({"batch_size", "lr", "warmup_pct", "weight_decay", "charset_test"})


class ConfigError(ValueError):
    """A configuration is not one this version can build; the message names the cause."""


@dataclass(frozen=True, slots=True)
class PARSeqConfig:
    """A PARSeq network. Names and defaults follow the reference implementation's `system_args`; `stem` is ours."""

    RECOGNISER: ClassVar[str] = "parseq"

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
        """Check what would otherwise fail deep inside the network.

        Raises:
            ConfigError: sizes do not divide, or a number is out of range.
        """
        if not self.charset_train or len(set(self.charset_train)) != len(self.charset_train):
            raise ConfigError("charset_train must hold distinct characters, at least one")
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
            raise ConfigError(f"stem must be 'patch' or 'residual', not {self.stem!r}")
        if self.stem == "residual" and self.patch_size != (8, 4):
            raise ConfigError("the residual stem reduces 8x4: set patch_size to [8, 4]")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of encoder tokens."""
        return self.img_size[0] // self.patch_size[0], self.img_size[1] // self.patch_size[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and checkpoints hold them."""
        return asdict(self)


NAMED: dict[str, PARSeqConfig] = {
    "parseq": PARSeqConfig(),
    "parseq-tiny": PARSeqConfig(embed_dim=192, enc_num_heads=3, dec_num_heads=6),
    "parseq-patch16-224": PARSeqConfig(img_size=(224, 224), patch_size=(16, 16)),
    # Without dropout: it never overfits in the hours that two CPU cores give it, and a training step is 1.3 times as fast.
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
        stem="residual",
        patch_size=(8, 4),
        embed_dim=192,
        enc_num_heads=6,
        enc_depth=4,
        dec_num_heads=6,
        dropout=0.0,
    ),
}


def named_config(name: str) -> PARSeqConfig:
    """The architecture called `name`; underscores and hyphens are the same.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        return NAMED[name.replace("_", "-")]
    except KeyError:
        raise ConfigError(f"unknown model {name!r}: choose one of {', '.join(NAMED)}, or give a config file") from None


def config_from_mapping(values: dict[str, Any]) -> PARSeqConfig:
    """Build a config from `system_args` names; the job's own hyper-parameters among them are ignored.

    Raises:
        ConfigError: an unknown name, or a value of the wrong type or range.
    """
    known = {field.name: field for field in fields(PARSeqConfig)}
    unknown = set(values) - set(known) - TRAINING_ONLY
    if unknown:
        raise ConfigError(f"unknown configuration names: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    chosen = {name: value for name, value in values.items() if name in known}
    defaults = PARSeqConfig()
    for name, value in chosen.items():
        if isinstance(getattr(defaults, name), tuple):
            chosen[name] = _pair(name, value)
        elif isinstance(getattr(defaults, name), bool) is not isinstance(value, bool) or not isinstance(
            value, (int, float) if name == "dropout" else type(getattr(defaults, name))
        ):
            raise ConfigError(f"{name} must be of type {type(getattr(defaults, name)).__name__}, not {value!r}")
    return replace(defaults, **chosen)


def _pair(name: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(type(v) is int for v in value):
        raise ConfigError(f"{name} must be two integers, [height, width], not {value!r}")
    return value[0], value[1]


def read_config(path: Path) -> PARSeqConfig:
    """Read a JSON file: an object of `system_args` names, or one that holds such an object under `system_args`.

    Raises:
        ConfigError: the file is missing, is not JSON, or does not describe a network.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"the config file {path} is not valid JSON") from None
    if isinstance(values, dict) and isinstance(values.get("system_args"), dict):
        values = values["system_args"]
    if not isinstance(values, dict):
        raise ConfigError(f"the config file {path} must hold a JSON object")
    return config_from_mapping(values)
