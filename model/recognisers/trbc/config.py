"""Architectures of TRBC, the one that has a name among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from model.recognisers.parts.settings import check_columns
from model.recognisers.parts.trb.config import TRBConfig


@dataclass(frozen=True, slots=True)
class TRBCConfig(TRBConfig):
    """A TRBC network. `max_label_length` is that of labels to train on; a text may have as many characters as columns."""

    RECOGNISER: ClassVar[str] = "trbc"

    def __post_init__(self) -> None:
        """Check it as `TRBConfig` does.

        Raises:
            ConfigError: That, or a label has more characters than there are columns.
        """
        TRBConfig.__post_init__(self)
        check_columns(self.max_label_length, self.columns, self.img_size[1])


NAMED: Final[dict[str, TRBCConfig]] = {"trbc": TRBCConfig()}
