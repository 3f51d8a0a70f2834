"""`parseq-read`: read word crops from image files.

A line for each image, in order, on the standard output; what cannot be read is a line on the standard error, and the rest goes
on.
Exit status: 0 every image was read; 1 some could not be; 2 a wrong call, or nothing to read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from artifact.metadata import ArtifactError
from artifact.text import Reading
from model.checkpoints.download import DownloadError
from model.checkpoints.loading import WeightsError
from model.data.pictures import BrokenImageError, as_seen, as_stored, decode_image, read_file
from model.errors import ConfigError
from model.options import add_network_options, network_reader
from reading.pictures.paths import STANDARD_INPUT, NothingFoundError, expand, listed
from reading.readers.interface import Picture, Reader
from reading.readers.options import add_artifact_option, open_reader

EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
BAR_FROM = 20
"""So many images are worth a progress bar, where somebody looks."""


@dataclass(frozen=True, slots=True)
class Named:
    """An image that was opened."""

    name: str
    picture: Picture


def build_parser() -> argparse.ArgumentParser:
    """The command line, for checkpoints."""
    parser = argparse.ArgumentParser(
        prog="parseq-read", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "images", nargs="*", help="image files, one word each; folders (with all below); patterns; - for an image on stdin"
    )
    parser.add_argument("--from-file", metavar="FILE", help="also read what this file lists, one name a line; - for stdin")
    parser.add_argument("--json", action="store_true", help="one JSON object a line: file, text, confidence")
    parser.add_argument("--batch-size", type=int, default=32, help="images at a time (default: %(default)s)")
    add_network_options(parser)
    return parser


class Run:
    """One call of the command: what it reads, prints, and counts."""

    def __init__(self, reader: Reader, *, as_json: bool, batch_size: int) -> None:
        self.reader = reader
        self.as_json = as_json
        self.batch_size = max(1, batch_size)
        self.failed = 0

    def fail(self, name: str, reason: str) -> None:
        """Tell of an image that cannot be read, and go on."""
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
                yield Named(name, Picture(as_stored(as_seen(decode_image(encoded)))))
            except BrokenImageError as error:
                self.fail(name, str(error))

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
            tqdm.write(self.line(image.name, reading), file=sys.stdout)
        sys.stdout.flush()
        bar.update(len(batch))

    def line(self, name: str, reading: Reading) -> str:
        """What is printed for one image."""
        if self.as_json:
            values = {"file": name, "text": reading.text, "confidence": round(reading.confidence, 6)}
            return json.dumps(values, ensure_ascii=False)
        return f"{name}: {reading.text}  ({reading.confidence:.3f})"


def conduct(
    args: argparse.Namespace,
    open_reader: Callable[[argparse.Namespace], Reader] = network_reader,
    more_errors: tuple[type[Exception], ...] = (),
) -> int:
    """Read with what `open_reader` opens; the exit code."""
    wrong_input: tuple[type[Exception], ...] = (ConfigError, WeightsError, DownloadError, *more_errors)
    try:
        if [*args.images, args.from_file].count(STANDARD_INPUT) > 1:
            raise ConfigError("the standard input can be read once: give - once")
        arguments = [*args.images, *(listed(args.from_file) if args.from_file else ())]
        if not arguments:
            raise ConfigError("nothing to read: give images, folders, patterns, - or --from-file")
        run = Run(open_reader(args), as_json=args.json, batch_size=args.batch_size)
    except wrong_input as error:
        print(f"parseq-read: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        print(f"parseq-read: cannot read the list {args.from_file}: {reason}", file=sys.stderr)
        return EXIT_USAGE
    try:
        run.read(list(run.names(arguments)))
    except BrokenPipeError:
        # Whoever reads our output has seen enough, as `head` does. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_SOME_FAILED
    return EXIT_SOME_FAILED if run.failed else 0


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = build_parser()
    add_artifact_option(parser)
    return conduct(parser.parse_args(argv), open_reader, more_errors=(ArtifactError,))


if __name__ == "__main__":
    sys.exit(main())
