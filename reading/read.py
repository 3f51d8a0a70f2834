"""`parseq-read`: read word crops from image files.

A line for each image, in order, goes to standard output. An image that cannot be read is reported on standard error, and the
others are read.
Exit status: 0 every image was read; 1 some could not be read; 2 a wrong call, or nothing to read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image
from tqdm import tqdm

from artifact.regions import RegionError
from artifact.text import Reading
from artifact.views import Found, Word
from model.data.pictures import BrokenImageError, read_file
from reading.pictures.opening import open_picture
from reading.pictures.paths import STANDARD_INPUT, NothingFoundError, expand, listed
from reading.pictures.regions import RegionFileError, cut_regions, load_regions
from reading.readers.interface import Picture, Reader, ReaderError
from reading.readers.opening import open_reader
from reading.readers.options import (
    ReaderOptions,
    add_allowed_option,
    add_reader_options,
    add_view_options,
    number_of_alternatives,
)

EXIT_SOME_FAILED: Final = 1
EXIT_USAGE: Final = 2
BAR_FROM: Final = 20
"""From so many images on a terminal shows a progress bar."""


@dataclass(frozen=True, slots=True)
class Named:
    """An image that was opened."""

    name: str
    picture: Picture
    region: str | None = None
    """The id of the region of the image that it is; `None`: it is the whole image."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="parseq-read", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "images", nargs="*", help="image files, one word each; folders (with all below); patterns; - for an image on stdin"
    )
    parser.add_argument("--from-file", metavar="FILE", help="also read what this file lists, one name a line; - for stdin")
    parser.add_argument("--json", action="store_true", help="one JSON object a line: file, text, confidence")
    parser.add_argument(
        "--regions",
        type=Path,
        metavar="FILE.json",
        help="read these regions of the one image: objects with points or box",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="images at a time (default: %(default)s)")
    parser.add_argument(
        "--alternatives",
        metavar="N",
        type=number_of_alternatives,
        default=0,
        help="with --json: also the most probable texts of each image, so many at most",
    )
    add_allowed_option(parser, "--charset")
    add_reader_options(parser, url=True)
    add_view_options(parser)
    return parser


def found_values(reading: Reading) -> dict[str, Any]:
    """How a crop was turned, and the words of a line, as the service tells them; nothing where that was not asked for."""
    if not isinstance(reading, Found):
        return {}
    words = [{**_told(word), "box": list(word.box)} for word in reading.words]
    return ({} if reading.angle is None else {"angle": reading.angle}) | ({"words": words} if words else {})


class ReadCall:
    """One call of the command: what it reads, prints, and counts."""

    def __init__(self, reader: Reader, *, as_json: bool, batch_size: int, regions: list[dict[str, Any]] | None = None) -> None:
        self.reader = reader
        self.regions = regions
        self.as_json = as_json
        self.batch_size = max(1, batch_size)
        self.failed = 0

    def fail(self, name: str, reason: str) -> None:
        """Report an image that cannot be read, and count it."""
        self.failed += 1
        tqdm.write(f"parseq-read: {name}: {reason}", file=sys.stderr)

    def names(self, arguments: list[str]) -> Iterator[str]:
        """The image files behind the arguments."""
        for argument in arguments:
            if argument == STANDARD_INPUT:
                yield argument
                continue
            try:
                yield from map(str, expand(argument))
            except NothingFoundError as error:
                self.fail(argument, str(error))

    def opened(self, names: Iterator[str]) -> Iterator[Named]:
        """The images that can be opened."""
        for name in names:
            try:
                encoded = sys.stdin.buffer.read() if name == STANDARD_INPUT else read_file(Path(name))
                picture = open_picture(encoded)
                if self.regions is None:
                    yield Named(name, Picture(picture))
                else:
                    yield from self.cut(name, picture, self.regions)
            except BrokenImageError as error:
                self.fail(name, str(error))

    def cut(self, name: str, page: Image.Image, regions: list[dict[str, Any]]) -> Iterator[Named]:
        """The regions of a page that can be cut out."""
        for id_, found in cut_regions(page, regions):
            if isinstance(found, RegionError):
                self.fail(f"{name}#{id_}", str(found))
            else:
                yield Named(name, Picture(found), id_)

    def read(self, names: list[str]) -> None:
        """Read all images and print a line for each."""
        with tqdm(total=len(names), unit="image", disable=None if len(names) >= BAR_FROM else True) as bar:
            batch: list[Named] = []
            for image in self.opened(iter(names)):
                batch.append(image)
                if len(batch) == self.batch_size:
                    self._print(batch, bar)
                    batch = []
            if batch:
                self._print(batch, bar)

    def _print(self, batch: list[Named], bar: tqdm[object]) -> None:
        readings = self.reader.read([image.picture for image in batch])
        for image, reading in zip(batch, readings, strict=True):
            tqdm.write(self.line(image.name, reading, image.region), file=sys.stdout)
        sys.stdout.flush()
        bar.update(len(batch))

    def line(self, name: str, reading: Reading, region: str | None = None) -> str:
        """What is printed for one image, or one region of it."""
        if self.as_json:
            place = {"file": name} if region is None else {"file": name, "region": region}
            values: dict[str, Any] = {**place, **_told(reading), **found_values(reading)}
            if reading.alternatives:
                values["alternatives"] = [_told(other) for other in reading.alternatives]
            return json.dumps(values, ensure_ascii=False)
        told = name if region is None else f"{name}#{region}"
        return f"{told}: {reading.text}  ({reading.confidence:.3f})"


def _told(read: Reading | Word) -> dict[str, Any]:
    return {"text": read.text, "confidence": round(read.confidence, 6)}


def refuse(reason: str) -> int:
    """Report why nothing is read; returns the exit code 2."""
    print(f"parseq-read: {reason}", file=sys.stderr)
    return EXIT_USAGE


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    args = build_parser().parse_args(argv)
    if [*args.images, args.from_file].count(STANDARD_INPUT) > 1:
        return refuse("the standard input can be read once: give - once")
    try:
        arguments = [*args.images, *(listed(args.from_file) if args.from_file else ())]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        return refuse(f"cannot read the list {args.from_file}: {reason}")
    if args.alternatives and not args.json:
        return refuse("--alternatives is for --json: add that")
    if not arguments:
        return refuse("nothing to read: give images, folders, patterns, - or --from-file")
    try:
        regions = load_regions(args.regions) if args.regions else None
    except RegionFileError as error:
        return refuse(f"{args.regions}: {error}")
    if regions is not None and (len(arguments) != 1 or Path(arguments[0]).is_dir()):
        return refuse("--regions are those of one page: give one image")
    try:
        reader = open_reader(ReaderOptions.of(args))
    except ReaderError as error:
        return refuse(str(error))
    with closing(reader):
        job = ReadCall(reader, as_json=args.json, batch_size=args.batch_size, regions=regions)
        try:
            job.read(list(job.names(arguments)))
        except ReaderError as error:
            return refuse(str(error))
        except BrokenPipeError:
            # The reader of our output has closed it, as `head` does. Python would complain again when it flushes at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_SOME_FAILED
    return EXIT_SOME_FAILED if job.failed else 0


if __name__ == "__main__":
    sys.exit(main())
