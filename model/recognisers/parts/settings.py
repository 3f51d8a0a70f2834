"""Configurations from plain values, as JSON files and checkpoints hold them. Imports no torch, like all configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final, TypeVar

from model.errors import ConfigError

OF_THE_JOB: Final = frozenset({"batch_size", "lr", "warmup_pct", "weight_decay", "charset_test"})
"""Hyper-parameters of the job, not of the network: configuration files hold them, but they are ignored here."""

C = TypeVar("C")


def from_mapping(kind: type[C], values: Mapping[str, Any]) -> C:
    """Build a data class from values by field name; hyper-parameters of the job among them are ignored.

    Every field must have a default, which tells its type: a pair of integers, or a plain value.

    Raises:
        ConfigError: An unknown name, or a value of the wrong type or range.
    """
    assert is_dataclass(kind)
    defaults = kind()
    known = [field.name for field in fields(kind)]
    unknown = values.keys() - set(known) - OF_THE_JOB
    if unknown:
        raise ConfigError(f"unknown configuration names: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    return kind(**{name: _checked(name, values[name], getattr(defaults, name)) for name in known if name in values})


def _checked(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or len(value) != 2 or not all(type(v) is int for v in value):
            raise ConfigError(f"{name} must be two integers, [height, width], not {value!r}")
        return tuple(value)
    wanted = (int, float) if isinstance(default, float) else type(default)
    if isinstance(default, bool) is not isinstance(value, bool) or not isinstance(value, wanted):
        raise ConfigError(f"{name} must be of type {type(default).__name__}, not {value!r}")
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
