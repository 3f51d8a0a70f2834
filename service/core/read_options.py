"""What a client can say about how its crops are to be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Of one request, for all its crops."""

    alternatives: int = 0
    """How many texts each crop shall get, the one that was read included; 0: that one alone."""
    allowed: str | None = None
    """Which characters may be read, as `artifact.allowed` has it; `None`: all."""


NO_OPTIONS: Final = ReadOptions()
