"""Command-line options that choose the reader: a checkpoint, an artifact or a running service."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal, get_args

from artifact.allowed import FORMS, AllowedError, parts_of
from artifact.alternatives import count_of
from artifact.files import BUNDLED_MODEL
from artifact.orientation import Orientation

Split = Literal["none", "auto"]

OF_CHECKPOINTS: Final = ("model", "config", "weights", "decode", "refine_iters", "device")
"""Options for checkpoints only: in an artifact or a service these things are settled."""


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """Which reader: an artifact or a service if one is named, else a checkpoint."""

    model: str | None = None
    """Architecture by name."""
    config: Path | None = None
    """Architecture from a JSON file instead."""
    weights: Path | None = None
    decode: str | None = None
    """`ar` or `nar`; `None`: as the config says, as for `refine_iters`."""
    refine_iters: int | None = None
    device: str | None = None
    """PyTorch's name of the device; `None`: a GPU if there is one, else the CPU."""
    threads: int = 0
    """Threads of a run on the CPU; 0: the library's choice."""
    artifact: Path | None = None
    url: str | None = None
    alternatives: int = 0
    """How many texts each crop gets; 0: the one that was read."""
    allowed: str | None = None
    """Which characters may be read, as `artifact.allowed` has it; `None`: all."""
    orientation: Orientation = "upright"
    """Which turned views of a crop are read."""
    split: Split = "none"
    """Whether long crops are also read in parts."""

    @classmethod
    def of(cls, args: argparse.Namespace) -> ReaderOptions:
        """The options among the arguments of a command."""
        given = vars(args)
        return cls(**{field.name: given[field.name] for field in fields(cls) if field.name in given})

    @property
    def of_checkpoint(self) -> str | None:
        """The first option given that only a checkpoint has, as it is written on the command line without its dashes."""
        name = next((name for name in OF_CHECKPOINTS if getattr(self, name) is not None), None)
        return name.replace("_", "-") if name else None


def add_reader_options(parser: argparse.ArgumentParser, *, url: bool = False, several: bool = False) -> None:
    """Add the options of `ReaderOptions`.

    Args:
        parser: Gets the options.
        url: Whether there is `--url`, for reading with a service.
        several: Whether `--model` can be given several times; the names come as a list then.
    """
    parser.add_argument(
        "--model",
        metavar="NAME",
        action="append" if several else "store",
        help=f"architecture by name{'; repeat' if several else ''} (default: that of --weights, else {BUNDLED_MODEL})",
    )
    parser.add_argument("--config", type=Path, help="architecture from a JSON file instead")
    parser.add_argument("--weights", type=Path, help="weights file; without it the bundled or published weights of --model")
    parser.add_argument(
        "--decode", choices=["ar", "nar"], help="autoregressive or all characters at once (default: the config's)"
    )
    parser.add_argument("--refine-iters", type=int, help="refinement passes (default: the config's)")
    parser.add_argument("--device", help="where PyTorch computes, such as cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: the library's choice)")
    parser.add_argument(
        "--artifact",
        type=Path,
        metavar="FILE.onnx",
        help="an exported artifact instead of a checkpoint; `bundled`: the one that comes with the service",
    )
    if url:
        parser.add_argument("--url", metavar="http://...", help="a running service instead of a checkpoint")


def add_allowed_option(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the option of this name that says which characters may be read."""
    parser.add_argument(
        name,
        dest="allowed",
        metavar="CHARACTERS",
        type=_allowed,
        help=f"read these characters only: {FORMS}; several parts with commas between them",
    )


def _allowed(text: str) -> str:
    try:
        parts_of(text)
    except AllowedError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def number_of_alternatives(text: str) -> int:
    """How many texts each crop shall get, for `type` of an option.

    Raises:
        argparse.ArgumentTypeError: The text is not a number that can be asked for.
    """
    try:
        return count_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from None


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for reading crops turned and in parts; a service is asked to do it."""
    parser.add_argument(
        "--orientation",
        choices=get_args(Orientation),
        default="upright",
        help="auto: read tall crops, and doubtful ones that are not wide, also turned by 90 and 270 degrees; "
        "full: doubtful ones also upside down (default: upright)",
    )
    parser.add_argument(
        "--split",
        choices=get_args(Split),
        default="none",
        help="auto: read crops much wider than a word also word by word, or in windows (default: none)",
    )


def positive(text: str) -> int:
    """A whole number from 1, for `type` of an option.

    Raises:
        argparse.ArgumentTypeError: The text is not one.
    """
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)
