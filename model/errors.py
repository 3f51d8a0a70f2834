"""Errors that several jobs share; each message names the cause and the cure."""

from __future__ import annotations

from typing import Final

LONGEST_SHOWN: Final = ".200"
"""How a message formats the `repr` of a name or value out of a file, which may have any length and any characters."""


class ConfigError(ValueError):
    """A configuration is not one this version can build."""


class DataError(ValueError):
    """A data folder is missing or malformed."""


class WeightsError(ValueError):
    """A weights file is unreadable or belongs to another network."""


class DivergedError(RuntimeError):
    """Training has left the numbers: a loss or gradient is nan or infinite."""
