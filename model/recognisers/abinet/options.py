"""How an ABINet may be trained, besides what is common to all recognisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from model.command_line import Option
from model.errors import ConfigError

APART_FRACTION: Final = 8 / 18
"""Of the reference implementation: 8 epochs apart, 10 together."""


@dataclass(frozen=True, kw_only=True)
class ABINetOptions:
    """What is said of the parts that are trained (`model.recognisers.abinet.training`)."""

    language_lr: Annotated[
        float | None, Option("peak learning rate of the language part, scaled as --lr is (default: that of --lr)", metavar="LR")
    ] = None
    apart_fraction: Annotated[
        float,
        Option(
            "share of the steps that train vision, language and alignment apart, after which the alignment begins anew; "
            "0, such as for fine-tuning: all together from the start (default: 8/18)",
            metavar="SHARE",
        ),
    ] = APART_FRACTION
    lm_only: Annotated[bool, Option("train the language part alone, on the texts of the labels")] = False

    def __post_init__(self) -> None:
        """Check what would otherwise train nothing, or nonsense.

        Raises:
            ConfigError: A number is out of range.
        """
        if self.language_lr is not None and not 0 <= self.language_lr < float("inf"):
            raise ConfigError(f"--language-lr must be at least 0, not {self.language_lr}")
        if not 0 <= self.apart_fraction <= 1:
            raise ConfigError(f"--apart-fraction must be between 0 and 1, not {self.apart_fraction}")
