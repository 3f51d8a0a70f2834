"""How the crops of a request are to be read, whatever protocol it came by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from artifact.orientation import Orientation


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a client asks for, for all crops of a request."""

    orientation: Orientation | None = None
    """Which turned views of a crop are read too; `None`: as the server's setting says."""
    split: bool = False
    """Whether crops much wider than a word are also read in parts."""
    alternatives: int = 0
    """How many texts each crop shall get, the one that was read included; 0: that one alone."""
    allowed: str | None = None
    """Which characters may be read, as `artifact.allowed` has it; `None`: all."""


NO_OPTIONS: Final = ReadOptions()
