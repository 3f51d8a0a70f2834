"""`parseq-export adopt`: its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from export.adopt.adopt import AdoptOptions, adopt
from export.adopt.description import MAX_SIDE, MIN_SIDE, Charset, Description
from export.adopt.families import FAMILIES, description_of
from export.graphs.interface import ExportError
from export.to_onnx import ExportSummary


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = map(int, text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"height and width in pixels, such as 48x128, not {text!r}") from None
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in (height, width)):
        raise argparse.ArgumentTypeError(f"from {MIN_SIDE} to {MAX_SIDE} pixels on each side, not {text!r}")
    return height, width


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("file", metavar="FILE.onnx", type=Path, help="the recogniser, with a picture of a word as its input")
    parser.add_argument(
        "--describe",
        metavar="NAME|FILE.json",
        required=True,
        help=f"what it is: one of {', '.join(FAMILIES)}, or a description in JSON (docs/adopt.md)",
    )
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="the .onnx file to write")
    parser.add_argument(
        "--size", metavar="HxW", type=_size, help="bring pictures to so many pixels (default: the description's)"
    )
    parser.add_argument(
        "--charset", metavar="FILE", type=Path, help="dictionary with an entry in each line (default: the description's)"
    )
    parser.add_argument("--name", help="the model's name as the server shows it (default: the file's name)")
    parser.add_argument("--source", metavar="URL", help="where the weights come from (default: the description's)")
    parser.add_argument("--licence", help="of the weights, as an SPDX expression if there is one (default: the description's)")
    parser.add_argument(
        "--notice", metavar="FILE", type=Path, help="a text that has to be said with the weights (default: the description's)"
    )
    parser.add_argument(
        "--font",
        metavar="FILE",
        type=Path,
        help="font for the words that it must read, if it knows no Latin letters and digits",
    )
    parser.add_argument(
        "--without-words", action="store_true", help="do without the words that it must read: the description is taken on trust"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def adopt_file(args: argparse.Namespace, progress: Callable[[int, int], object]) -> ExportSummary:
    """Run the command.

    Args:
        args: Parsed from the options above.
        progress: Called with the crops compared so far and in all.

    Raises:
        ExportError: An option or the description is wrong, or does not fit the file.
        MisreadError: Words are not read, or are read better under another description.
        ParityError: The artifact does not read as the original does.
    """
    for name in ("name", "source", "licence"):
        if getattr(args, name) == "":
            raise ExportError(f"--{name} is empty: leave it out, or give one")
    description = described(args)
    options = AdoptOptions(args.name or args.file.stem, args.font, args.without_words)
    return adopt(args.file, description, options, args.output, force=args.force, progress=progress)


def described(args: argparse.Namespace) -> Description:
    """The description, with the values that options override."""
    description = description_of(args.describe)
    chosen = {name: value for name in ("size", "source", "licence") if (value := getattr(args, name)) is not None}
    if args.notice is not None:
        chosen["notice"] = _read_notice(args.notice)
    if args.charset is not None:
        # Entries that the family adds after its dictionary are added after this one too.
        chosen["charset"] = Charset(file=args.charset, append=description.charset.append)
    return replace(description, **chosen)


def _read_notice(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ExportError(f"cannot read the notice {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ExportError(f"the notice {path} is not UTF-8 (byte {error.start + 1}): save it as such") from error
    if not text:
        raise ExportError(f"the notice {path} is empty: leave --notice out, or give a text")
    return text
