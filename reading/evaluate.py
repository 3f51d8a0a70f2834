"""`parseq-evaluate`: accuracy, 1 - NED, confidence and calibration on data sets of labelled word crops.

Definitions are the reference implementation's (docs/evaluation.md): text and label are mapped onto the test charset; accuracy
is the share of exact matches; NED is the edit distance over the length of the longer; confidence is the product of the token
probabilities; label length is that of what was read.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Final

from model.charsets import CHARSETS
from model.data.alterations import Alterations, add_option
from model.data.labels import add_label_options
from model.errors import DataError
from reading.pictures.crop_sets import CropSet, crop_sets
from reading.readers.interface import Reader, ReaderError
from reading.readers.opening import open_reader
from reading.readers.options import ReaderOptions, add_allowed_option, add_reader_options, add_view_options, positive
from reading.scores.calibration import draw_reliability
from reading.scores.error_sheet import WorstMistakes
from reading.scores.evaluation import Rules, Scoring, score_sets
from reading.scores.report import tables, write_csv, write_json

OF_MODEL: Final = "model"
"""Given in place of a test charset's name, it means all characters that the model can give."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="parseq-evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        help="LMDB archive, rendered shards, file of labels, or a folder with any of them in it; repeat (default: data/test)",
    )
    parser.add_argument(
        "--charset",
        choices=[*CHARSETS, OF_MODEL],
        nargs="+",
        default=["36"],
        help="test charsets, a table for each; `model`: all characters the model can give (default: 36)",
    )
    parser.add_argument("--rotation", type=float, default=0.0, metavar="DEGREES", help="turn crops counter-clockwise")
    parser.add_argument("--batch-size", type=positive, default=64, help="crops at a time (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--csv", type=Path, help="also write the tables' rows to this file")
    parser.add_argument("--error-sheet", type=Path, metavar="FILE.png", help="draw the most confident mistakes (first charset)")
    parser.add_argument("--errors", type=positive, default=48, help="mistakes on that sheet, at most (default: %(default)s)")
    parser.add_argument("--reliability", type=Path, metavar="FILE.png", help="draw accuracy over confidence")
    parser.add_argument("--by-kind", action="store_true", help="also tables by kind of text and by length of the label")
    parser.add_argument(
        "--keep-long-labels",
        action="store_true",
        help="count labels longer than the model can say as errors, not leave them out",
    )
    add_label_options(parser)
    add_allowed_option(parser, "--read-charset")
    add_reader_options(parser, url=True)
    add_view_options(parser)
    return parser


def data_sets(folders: list[Path]) -> list[CropSet]:
    """The data sets of all folders; sets of the same name get their folder's name in front."""
    found = [(folder, crops) for folder in folders for crops in crop_sets(folder)]
    names = [crops.name for _, crops in found]
    if len(set(names)) == len(names):
        return [crops for _, crops in found]
    return [replace(crops, name=f"{folder}:{crops.name}") for folder, crops in found]


def evaluate(args: argparse.Namespace, reader: Reader) -> list[Scoring]:
    """Score a reader on all data sets that `args` names, under all its test charsets."""
    rules = Rules(args.rotation, args.normalise_unicode, args.keep_whitespace, args.keep_long_labels, args.keep_empty)
    scorings = []
    for index, name in enumerate(dict.fromkeys(args.charset)):
        charset = reader.charset if name == OF_MODEL else CHARSETS[name]
        worst = WorstMistakes(args.errors if args.error_sheet and index == 0 else 0)
        scorings.append(Scoring(name, charset, reader.max_label_length, rules, worst))
    score_sets(reader, data_sets(args.data or [Path("data/test")]), scorings, rules, args.batch_size)
    if reader.refused:
        print(f"{reader.refused} crops were refused by {reader.description}; they count as read empty", file=sys.stderr)
    for scoring in scorings:
        for dataset, reasons in scoring.left_out.items():
            told = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
            if told:
                print(f"{dataset}, charset {scoring.name}: left out {told}", file=sys.stderr)
            tell_alterations(f"{dataset}, charset {scoring.name}", scoring.alterations[dataset], reader)
        if not scoring.scores():
            raise DataError(f"no crop could be scored under charset {scoring.name}: see what was left out above")
    return scorings


def tell_alterations(name: str, alterations: Alterations, reader: Reader) -> None:
    """Print what labels lose to a test charset, if anything, and which options would make it count."""
    told = str(alterations)
    if not told:
        return
    characters = alterations.characters()
    known = [character for character in characters if character in reader.charset]
    unknown = [character for character in characters if character not in reader.charset]
    cures = [f"the model can give {len(known)} of these characters: --charset {OF_MODEL} counts them"] if known else []
    cures += [f"for the model to give them: parseq-train {add_option(unknown)}"] if unknown else []
    print(f"{name}: {told}; crops are scored without them ({'; '.join(cures)})", file=sys.stderr)


def report(args: argparse.Namespace, reader: Reader, scorings: list[Scoring]) -> None:
    """Print the tables and write the files asked for."""
    print(tables(scorings, by_kind=args.by_kind))
    if args.json:
        write_json(args.json, scorings, model=reader.description, rotation=args.rotation)
    if args.csv:
        write_csv(args.csv, scorings)
    if args.error_sheet:
        scorings[0].worst.draw(args.error_sheet)
    if args.reliability:
        draw_reliability({scoring.name: scoring.reliability() for scoring in scorings}, args.reliability)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 for a wrong call or for data, model or service that cannot be used."""
    args = build_parser().parse_args(argv)
    if args.error_sheet or args.reliability:
        import_module("matplotlib")  # imported before anything is read, so that a missing package is reported at once
    try:
        with closing(open_reader(ReaderOptions.of(args))) as reader:
            report(args, reader, evaluate(args, reader))
    except (DataError, ReaderError) as error:
        print(f"parseq-evaluate: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"parseq-evaluate: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
