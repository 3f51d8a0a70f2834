"""Plain data sets: image files and a file of labels beside them.

A line is `path TAB text`, the path relative to the file of labels. Blank lines are skipped; what follows the first tab is the
text, spaces and all. A `.txt` file may also hold the lines of ICDAR's (`word_1.png, "text"`), or `path text` with a space
between them. A `.csv` file holds two columns, a `.json` file docTR's object. A first line of column names (`filename`, `words`
and the like) is skipped. `model.data.label_formats` has the other forms that are recognised.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model.data.label_formats import csv_rows, json_rows, text_rows
from model.data.pictures import read_file
from model.data.walk import files_below
from model.errors import DataError

NAMES: Final = ("labels.tsv", "labels.csv", "gt.txt", "rec_gt.txt", "labels.json")
"""What a file of labels is called, so that it is found in a folder."""
SUFFIXES: Final = frozenset({".tsv", ".csv", ".txt", ".json"})
"""Of what may be a file of labels under another name."""
JSON: Final = ".json"


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """An image file and what it shows."""

    path: Path
    label: str
    """Empty where the line has none."""


def label_files(folder: Path) -> list[Path]:
    """The files of labels in `folder` itself."""
    return [folder / name for name in NAMES if (folder / name).is_file()]


def find_label_files(folder: Path) -> list[Path]:
    """The files of labels in `folder` and below it, sorted."""
    return sorted(path for path in files_below(folder) if path.name in NAMES)


def named_otherwise(folder: Path) -> str:
    """What may be a file of labels in `folder` under a name that nobody looks for, as the end of an error; empty if nothing."""
    found = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    return f"; if {found[0]} is one, give the file itself" if found else ""


def count_labels(path: Path) -> int:
    """Lines with something on them: a few more than labels where there are column names or line breaks in a CSV field.

    Raises:
        DataError: It is a JSON file that holds no labels.
    """
    if path.suffix.lower() == JSON:
        return sum(1 for _ in read_labels(path))
    with path.open("rb") as file:
        return sum(not line.isspace() for line in file)


def read_labels(path: Path, images: Path | None = None) -> Iterator[LabelledFile]:
    """Files and labels in the order of `path`.

    Args:
        path: The file of labels, UTF-8.
        images: The folder that paths are relative to; without it, the one the file of labels is in (of a JSON file the folder
            `images` in that, if there is one, as docTR has it).

    Raises:
        DataError: The file cannot be read, is not UTF-8, or holds no labels of word crops.
    """
    suffix = path.suffix.lower()
    folder = path.parent if images is None else images
    if images is None and suffix == JSON and (folder / "images").is_dir():
        folder = folder / "images"
    try:
        with path.open(encoding="utf-8-sig", newline="" if suffix == ".csv" else None) as file:
            if suffix == ".csv":
                rows = csv_rows(file, path)
            elif suffix == JSON:
                rows = json_rows(file, path)
            else:
                rows = text_rows(file, path, free_form=suffix == ".txt")
            for name, label in rows:
                yield LabelledFile(folder / name.strip(), label)
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8: save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file ({error})") from None
    except OSError as error:
        raise DataError(f"cannot read the file of labels {path}: {error.strerror}") from None


class LabelledFiles:
    """Image files with a file of labels, read by index."""

    def __init__(self, path: Path) -> None:
        self._files = list(read_labels(path))

    def __len__(self) -> int:
        return len(self._files)

    def image(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            BrokenImageError: Its file cannot be read.
        """
        return read_file(self._files[index].path)

    def label(self, index: int) -> str:
        """The label as it is stored."""
        return self._files[index].label
