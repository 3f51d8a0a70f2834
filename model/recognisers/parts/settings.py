"""Configurations from plain values, as JSON files and checkpoints hold them. Imports no torch, like all configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Final, Self

from model.errors import LONGEST_SHOWN, ConfigError

OF_THE_JOB: Final = frozenset({"batch_size", "lr", "warmup_pct", "weight_decay", "charset_test"})
"""Hyper-parameters of the job, not of the network: configuration files hold them, but they are ignored here."""


@dataclass(frozen=True, slots=True)
class PlainConfig:
    """Base of configurations whose fields are pairs of integers or plain values, each with a default, which tells its type."""

    OF_THE_JOB: ClassVar[frozenset[str]] = OF_THE_JOB
    """Names that say nothing of the network, and are ignored."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from `system_args` names; the job's own hyper-parameters among them are ignored.

        Raises:
            ConfigError: An unknown name, or a value of the wrong type or range.
        """
        defaults = cls()
        known = [field.name for field in fields(cls)]
        unknown = values.keys() - set(known) - cls.OF_THE_JOB
        if unknown:
            told = f"{', '.join(sorted(unknown)):{LONGEST_SHOWN}}"
            raise ConfigError(f"unknown configuration names: {told}; known are {', '.join(known)}")
        return cls(**{name: _checked(name, values[name], getattr(defaults, name)) for name in known if name in values})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and checkpoints hold them."""
        return asdict(self)


def _checked(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or len(value) != 2 or not all(type(v) is int for v in value):
            raise ConfigError(f"{name} must be two integers, [height, width], not {value!r:{LONGEST_SHOWN}}")
        return tuple(value)
    wanted = (int, float) if isinstance(default, float) else type(default)
    if isinstance(default, bool) is not isinstance(value, bool) or not isinstance(value, wanted):
        raise ConfigError(f"{name} must be of type {type(default).__name__}, not {value!r:{LONGEST_SHOWN}}")
    return value


def check_charset(charset: str) -> None:
    """Check that a charset can number classes.

    Raises:
        ConfigError: It is empty, or holds a character twice.
    """
    if not charset or len(set(charset)) != len(charset):
        raise ConfigError("charset_train must hold distinct characters, at least one")


def check_columns(max_label_length: int, columns: int, width: int) -> None:
    """Check that the longest label fits into the columns of a recogniser that reads by columns.

    Raises:
        ConfigError: Its length is below 1, or more than the columns of an image of `width` pixels.
    """
    if max_label_length < 1:
        raise ConfigError(f"max_label_length must be at least 1, not {max_label_length}")
    if max_label_length > columns:
        raise ConfigError(
            f"max_label_length {max_label_length} is more than the {columns} columns of an image {width} pixels wide, each of "
            "which is one character at most: lower it, or widen img_size"
        )
