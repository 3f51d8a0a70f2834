"""`parseq-convert`: build an LMDB archive of word crops from image files and a file of labels.

The archive has the layout that scene-text recognition uses: keys `num-samples`, `image-%09d` (the file as it is, counted from
1) and `label-%09d` (UTF-8). It appears under its name only when it is whole.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import lmdb
from tqdm import tqdm

from model.data.label_files import NAMES, LabelledFile, count_labels, label_files, named_otherwise, read_labels
from model.data.pictures import BrokenImageError, decode_image, read_file
from model.errors import DataError

FIRST_MAP_BYTES: Final = 2**26
BATCH_CROPS: Final = 1000
BATCH_BYTES: Final = 2**25
"""A transaction is written when it holds so many crops or bytes."""

Sample = tuple[bytes, str]


@dataclass
class Skipped:
    """Lines that did not become a crop."""

    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Path] = field(default_factory=dict)

    def add(self, reason: str, path: Path) -> None:
        """Count one."""
        self.reasons[reason] += 1
        self.examples.setdefault(reason, path)

    def lines(self) -> Iterator[str]:
        """One line for each reason."""
        for reason, count in self.reasons.most_common():
            yield f"skipped {count}: {reason} (first: {self.examples[reason]})"


def samples(files: Iterable[LabelledFile], skipped: Skipped, *, check: bool, keep_empty: bool = False) -> Iterator[Sample]:
    """Image files as they are, with their labels; what cannot be used is counted in `skipped`."""
    for file in files:
        if not file.label.strip() and not keep_empty:
            skipped.add("no label", file.path)
            continue
        try:
            encoded = read_file(file.path)
            if check or not encoded:
                decode_image(encoded)
        except BrokenImageError as error:
            skipped.add(str(error), file.path)
        else:
            yield encoded, file.label


def write_lmdb(output: Path, crops: Iterable[Sample], *, force: bool = False) -> int:
    """Write an LMDB archive, whole or not at all.

    Args:
        output: The folder to make.
        crops: Encoded images and their labels.
        force: Replace the folder if it is an archive already.

    Returns:
        How many crops were written.

    Raises:
        DataError: There is something at `output` that may not be replaced, or there are no crops.
    """
    _check_replaceable(output, force=force)
    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with lmdb.open(str(partial), map_size=FIRST_MAP_BYTES, lock=False, sync=False, meminit=False) as archive:
            count = _fill(archive, crops)
            archive.sync(True)
        if not count:
            raise DataError(f"no usable crop: {output} was not written")
        if output.exists():
            shutil.rmtree(output)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count


def _check_replaceable(output: Path, *, force: bool) -> None:
    if not output.exists():
        return
    if not force:
        raise DataError(f"{output} exists: choose another folder, or replace it with --force")
    # A typing error must not cost somebody a folder of other things.
    if not output.is_dir() or {path.name for path in output.iterdir()} - {"data.mdb", "lock.mdb"}:
        raise DataError(f"{output} is not an LMDB archive, or holds other files besides: it is not replaced")


def _fill(archive: lmdb.Environment, crops: Iterable[Sample]) -> int:
    count, size_bytes, batch = 0, 0, {}
    for image, label in crops:
        count += 1
        batch[b"image-%09d" % count] = image
        batch[b"label-%09d" % count] = label.encode("utf-8")
        size_bytes += len(image)
        if count % BATCH_CROPS == 0 or size_bytes >= BATCH_BYTES:
            _put(archive, batch)
            size_bytes, batch = 0, {}
    batch[b"num-samples"] = b"%d" % count
    _put(archive, batch)
    return count


def _put(archive: lmdb.Environment, batch: dict[bytes, bytes]) -> None:
    while True:
        try:
            with archive.begin(write=True) as transaction:
                for key, value in batch.items():
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            archive.set_mapsize(2 * archive.info()["map_size"])


def labels_of(source: Path) -> Path:
    """The file of labels that `source` is, or that is in it.

    Raises:
        DataError: There is none, or more than one.
    """
    if source.is_file():
        return source
    if not source.is_dir():
        raise DataError(f"there is no file or folder {source}")
    found = label_files(source)
    if len(found) != 1:
        names = ", ".join(NAMES)
        have = "no file of labels" if not found else f"several files of labels ({', '.join(path.name for path in found)})"
        instead = named_otherwise(source) if not found else ""
        raise DataError(f"{source} holds {have}: it should hold one of {names}{instead or ', or give the file itself'}")
    return found[0]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="parseq-convert", description=__doc__)
    parser.add_argument("input", type=Path, help=f"folder with {', '.join(NAMES)}; or such a file: path TAB text on each line")
    parser.add_argument("output", type=Path, help="folder of the archive to write")
    parser.add_argument("--images", type=Path, help="folder that the paths are relative to (default: the labels' folder)")
    parser.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="decode every image and skip broken ones (default: on)",
    )
    parser.add_argument("--keep-empty", action="store_true", help="also keep images without a label: they show no text")
    parser.add_argument("--force", action="store_true", help="replace an existing archive")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 when an archive was written, 2 when not."""
    args = parse_args(argv)
    skipped = Skipped()
    try:
        labels = labels_of(args.input)
        bar = tqdm(read_labels(labels, args.images), total=count_labels(labels), unit="crop", disable=None)
        crops = samples(bar, skipped, check=args.check, keep_empty=args.keep_empty)
        count = write_lmdb(args.output, crops, force=args.force)
    except DataError as error:
        for line in skipped.lines():
            print(f"parseq-convert: {line}", file=sys.stderr)
        print(f"parseq-convert: {error}", file=sys.stderr)
        return 2
    except (OSError, lmdb.Error) as error:
        print(f"parseq-convert: cannot write {args.output}: {error}", file=sys.stderr)
        return 2
    for line in skipped.lines():
        print(line, file=sys.stderr)
    print(f"wrote {count} crops to {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
