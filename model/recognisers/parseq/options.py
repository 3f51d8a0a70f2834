"""Options for training a PARSeq, besides those of all recognisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from model.command_line import Option


@dataclass(frozen=True, kw_only=True)
class PARSeqOptions:
    """Weights of the additional losses (`model.recognisers.parseq.training`); 0 turns a loss off."""

    glyph_weight: Annotated[float, Option("weight of the glyph-centre loss (%(default)s)")] = 1.0
    ctc_weight: Annotated[float, Option("weight of a CTC loss over the encoder's columns (%(default)s: none)")] = 0.0
