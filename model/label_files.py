"""Plain data sets: image files and a file of labels beside them.

A line is `path TAB text`, the path relative to the file of labels. Blank lines are skipped; what follows the first tab is the
text, spaces and all. A `.txt` file may also hold the lines of ICDAR's (`word_1.png, "text"`), or `path text` with a space
between them. A `.csv` file holds two columns. A first line of column names (`filename`, `words` and the like) is skipped.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from model.errors import DataError
from model.walk import files_below

NAMES = ("labels.tsv", "labels.csv", "gt.txt")
"""What a file of labels is called, so that it is found in a folder."""
PATH_HEADERS = frozenset({"path", "file", "filename", "file_name", "image", "image_path", "img"})
TEXT_HEADERS = frozenset({"text", "label", "labels", "word", "words", "transcription"})
ICDAR_LINE = re.compile(r'(\S.*?),\s*"(.*)"\s*')


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


def count_labels(path: Path) -> int:
    """Lines with something on them: a few more than labels where there are column names or line breaks in a CSV field."""
    with path.open("rb") as file:
        return sum(not line.isspace() for line in file)


def read_labels(path: Path, images: Path | None = None) -> Iterator[LabelledFile]:
    """Files and labels in the order of `path`.

    Args:
        path: the file of labels, UTF-8.
        images: the folder that paths are relative to; without it, the one the file of labels is in.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    folder = images if images is not None else path.parent
    try:
        with path.open(encoding="utf-8-sig", newline="" if path.suffix == ".csv" else None) as file:
            rows = _csv_rows(file) if path.suffix == ".csv" else _rows(file, free_form=path.suffix == ".txt")
            for number, (name, label) in enumerate(rows):
                if number == 0 and name.strip().lower() in PATH_HEADERS and label.strip().lower() in TEXT_HEADERS:
                    continue
                yield LabelledFile(folder / name.strip(), label)
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8: save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file ({error})") from None
    except OSError as error:
        raise DataError(f"cannot read the file of labels {path}: {error.strerror}") from None


def _rows(file: TextIO, *, free_form: bool) -> Iterator[tuple[str, str]]:
    for raw in file:
        line = raw.rstrip("\n")
        if not line.strip():
            continue
        name, tab, label = line.partition("\t")
        if not tab and free_form:
            quoted = ICDAR_LINE.fullmatch(line)
            name, label = quoted.groups() if quoted else [*line.strip().split(maxsplit=1), ""][:2]
        yield name, label


def _csv_rows(file: TextIO) -> Iterator[tuple[str, str]]:
    for row in csv.reader(file):
        if any(cell.strip() for cell in row):
            yield row[0], row[1] if len(row) > 1 else ""
