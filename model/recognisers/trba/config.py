"""Architectures of TRBA, the one that has a name among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from model.recognisers.parts.trb.config import TRBConfig


@dataclass(frozen=True, slots=True)
class TRBAConfig(TRBConfig):
    """A TRBA network. It reads up to `max_label_length` characters, on which no tensor's shape depends."""

    RECOGNISER: ClassVar[str] = "trba"


NAMED: Final[dict[str, TRBAConfig]] = {"trba": TRBAConfig()}
