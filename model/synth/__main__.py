"""Render shards of synthetic crops, or a contact sheet of them: `python -m model.synth --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from model.data.shards import ShardError
from model.synth.dataset import CropSource, Recipe, ShardFormat, write_shards
from model.synth.lettering.fonts import DEFAULT_CACHE, FONT_FOLDERS, FontsNotFoundError
from model.synth.sheet import draw_sheet
from model.synth.words.corpus import DictionaryNotFoundError, NoWordsError
from model.synth.words.phrases import EXTRA_CHARACTERS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (2: fonts or dictionary missing, or a folder of other shards)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.output is None and options.sheet is None:
        parser.error("nothing to do: give --output FOLDER, --sheet FILE.png or both")
    folders = tuple(options.fonts) or FONT_FOLDERS
    recipe = Recipe(
        options.split,
        options.seed,
        folders,
        options.cache,
        options.words,
        options.curved,
        options.wide,
        options.extra_characters,
        options.only,
    )
    try:
        # Scans the fonts once, here, before several workers would all do it; and fails early.
        source = recipe.source()
        if options.sheet is not None:
            crops = [source(index) for index in range(options.sheet_crops)]
            draw_sheet(crops, dots=options.dots).save(options.sheet)
        if options.output is not None:
            _write(options, recipe, source)
    except (FontsNotFoundError, DictionaryNotFoundError, NoWordsError, ShardError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _write(options: argparse.Namespace, recipe: Recipe, source: CropSource) -> None:
    new = write_shards(
        options.output,
        partial(_same, source) if options.workers <= 1 else recipe.source,
        options.count,
        ShardFormat(tuple(options.image_size), options.shard_size),
        workers=options.workers,
        name=", ".join([recipe.split, f"seed {recipe.seed}", *_marks(recipe)]),
        progress=True,
    )
    print(f"{new} new shards in {options.output}")


def _marks(recipe: Recipe) -> list[str]:
    """What sets the shards of a recipe apart, for the note in their folder."""
    marks = [name for name, chosen in (("curved", recipe.curved), ("wide", recipe.wide)) if chosen]
    marks += [f"with {recipe.extra_characters!r}"] if recipe.extra_characters else []
    return marks + ([f"{recipe.only} only"] if recipe.only else [])


def _same(source: CropSource) -> CropSource:
    return source


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model.synth", description="Render synthetic word crops.")
    parser.add_argument("--output", type=Path, help="folder for the shards; those that exist are kept")
    parser.add_argument("--count", type=_positive, default=2000, help="crops in all (default: %(default)s)")
    parser.add_argument("--split", choices=("train", "validation"), default="train", help="which fonts and words")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other crops (default: %(default)s)")
    parser.add_argument("--workers", type=_positive, default=1, help="processes (default: %(default)s)")
    parser.add_argument(
        "--image-size",
        type=_positive,
        nargs=2,
        default=[32, 128],
        metavar=("HEIGHT", "WIDTH"),
        help="pixels of a stored crop (default: 32 128)",
    )
    parser.add_argument("--shard-size", type=_positive, default=2000, help="crops a shard (default: %(default)s)")
    parser.add_argument(
        "--fonts", type=Path, action="append", default=[], metavar="FOLDER", help="look here instead (repeatable)"
    )
    parser.add_argument("--words", type=Path, metavar="FILE", help="words to draw, one a line (default: the dictionaries)")
    parser.add_argument("--curved", action="store_true", help="bend every word, to see how a model reads such")
    parser.add_argument(
        "--wide",
        action="store_true",
        help="draw more of what is rare: bends of up to 170 degrees, hollow, dotted and extruded letters, unusual faces, faint "
        "and dark crops, long texts, and crops without text, whose label is empty",
    )
    parser.add_argument(
        "--extra-characters",
        type=_extra,
        default="",
        metavar="CHARACTERS",
        help=f"draw these besides printable ASCII; of {EXTRA_CHARACTERS!r}, a space meaning lines of several words",
    )
    parser.add_argument(
        "--only",
        choices=("long", "line", "currency", "blank"),
        help="draw one kind: texts of 15 to 25 characters, lines of words, prices and marks, or nothing to read",
    )
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="where the scan of the fonts is kept")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw a contact sheet")
    parser.add_argument("--sheet-crops", type=_positive, default=80, help="crops on it (default: %(default)s)")
    parser.add_argument("--dots", action="store_true", help="mark the glyph centres on the sheet")
    return parser


def _extra(text: str) -> str:
    if not set(text) <= set(EXTRA_CHARACTERS):
        raise argparse.ArgumentTypeError(f"must be some of {EXTRA_CHARACTERS!r}")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
