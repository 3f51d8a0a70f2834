"""How files of labels are laid out: what each line, row or entry says.

What a file looks like is told by its first lines. A form that says something else than which text stands in which picture is an
error that names it and the cure; so is a file from whose lines no path can be told from a text.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Final, TextIO

from model.errors import DataError

Row = tuple[str, str]
"""The path as it is written, and the text."""

PATH_HEADERS: Final = frozenset(f"{what}{part}" for what in ("file", "image", "img") for part in ("", "_path", "_name")) | {
    "path",
    "filename",
    "filepath",
    "images",
    "image_file",
}
TEXT_HEADERS: Final = frozenset(
    ["text", "label", "labels", "word", "words", "transcription", "transcript", "ground_truth", "gt", "value", "string"]
)
IMAGE_NAME: Final = re.compile(r".*\.(?:jpe?g|png|webp|bmp|gif|tiff?|ppm|pgm|jp2|avif)", re.IGNORECASE)
SAMPLE: Final = 50
"""Lines that tell how a file is laid out."""
DELIMITERS: Final = (",", ";", "|", "::", ":", "=")
SCRIPTS: Final = frozenset(["Arabic", "Bangla", "Chinese", "Hindi", "Japanese", "Korean", "Latin", "Mixed", "None", "Symbols"])
"""The second field of the lines of ICDAR's multi-lingual sets (MLT)."""
_ICDAR: Final = re.compile(r'(\S.*?),\s*"(.*)"\s*')
_QUOTED: Final = re.compile(r'\s*"(.*)"\s*')
_ESCAPED: Final = re.compile(r'\\(["\\])')
_REGION: Final = re.compile(r'\s*-?\d+(?:\s*,\s*-?\d+){3,7}\s*,.*|\s*-?\d+(?:\s+-?\d+){3}\s+".*"\s*')
"""Corners of a region and its text, as ICDAR's sets of whole pictures have them."""
_MJSYNTH: Final = re.compile(r"(\S*?\d+_([^/_]+)_(\d+)\.jpg)(?:\s+(\d+))?", re.IGNORECASE)


def text_rows(file: TextIO, path: Path, *, free_form: bool) -> Iterator[Row]:
    """The rows of a file with a label on each line.

    Args:
        file: Opened.
        path: Its name, for errors.
        free_form: Whether a space may stand between path and text.

    Raises:
        DataError: The lines are not such.
    """
    lines = (line.rstrip("\n") for line in file if line.strip())
    sample = list(islice(lines, SAMPLE))
    split = _splitter(sample, path, free_form=free_form)
    for number, line in enumerate(chain(sample, lines)):
        row = split(line)
        if number or not _are_headers(*row):
            yield row


def _splitter(sample: Sequence[str], path: Path, *, free_form: bool) -> Callable[[str], Row]:
    """How to tell path from text in the lines of a file that begins with `sample`."""
    if sample and all(_mjsynth(line) for line in sample):
        return lambda line: _mjsynth(line) or _at_space(line)
    if any("\t" in line for line in sample):
        _refuse_detection(sample, path)
        return _at_tab_or_space if free_form else _at_tab
    if sample and all(line.lstrip().startswith("{") for line in sample):
        raise DataError(f"{path} holds JSON objects, not labels: write `path TAB text` on each line")
    if sample and sample[0].lstrip().startswith("<"):
        raise DataError(f"{path} holds XML or HTML, not labels: write `path TAB text` on each line")
    if sample and all(map(_REGION.fullmatch, sample)):
        raise DataError(
            f"{path} names regions of a picture (ICDAR's labels for detection), not the text of word crops: cut the words "
            "out first, and label those"
        )
    # The first line may hold names of columns.
    body = sample[1:] or sample
    if all(_ICDAR.fullmatch(line) or _looks_split(*_at_space(line), free_form) for line in body):
        splitter = _at_tab_or_space
    elif delimiter := next((d for d in DELIMITERS if all(_has_delimiter(line, d) for line in body)), None):
        # Fields of ICDAR's multi-lingual sets.
        skip = int(delimiter == "," and all(_names_script(line) for line in body))
        splitter = partial(_at_delimiter, delimiter=delimiter, skip=skip)
    else:
        splitter = _at_tab_or_space if free_form else _at_tab
    if sample and not any(splitter(line)[1] for line in sample):
        lacks = "nothing" if free_form else "no tab"
        raise DataError(
            f"the lines of {path} have {lacks} between path and text (the first is {_shown(sample[0])}): "
            "write `path TAB text` on each"
        )
    return splitter


def _looks_split(name: str, label: str, free_form: bool) -> bool:
    """Whether a line that was split at a space was meant so."""
    return IMAGE_NAME.fullmatch(name) is not None and (free_form or bool(label))


def _has_delimiter(line: str, delimiter: str) -> bool:
    return delimiter in line and IMAGE_NAME.fullmatch(line.split(delimiter)[0].strip(' "')) is not None


def _at_tab(line: str) -> Row:
    name, _, label = line.partition("\t")
    return name, label


def _at_space(line: str) -> Row:
    name, label = [*line.strip().split(maxsplit=1), "", ""][:2]
    return name, label


def _at_tab_or_space(line: str) -> Row:
    """A tab wins; then ICDAR's form, in which quotes and backslashes of the text are escaped by a backslash; then a space."""
    if "\t" in line:
        return _at_tab(line)
    quoted = _ICDAR.fullmatch(line)
    return (quoted[1], _ESCAPED.sub(r"\1", quoted[2])) if quoted else _at_space(line)


def _at_delimiter(line: str, delimiter: str, skip: int) -> Row:
    """Split at the first delimiter, `skip` fields left out after it; the text may stand in double quotes, as ICDAR's."""
    name, *rest = line.split(delimiter, 1 + skip)
    label = rest[skip].strip() if len(rest) > skip else ""
    quoted = _QUOTED.fullmatch(label)
    return name.strip(' "'), _ESCAPED.sub(r"\1", quoted[1].replace('""', '"')) if quoted else label


def _names_script(line: str) -> bool:
    return line.count(",") > 1 and line.split(",")[1].strip() in SCRIPTS


def _mjsynth(line: str) -> Row | None:
    """A line of MJSynth's annotation: the path, whose name has the text in it, and the number of a word in its lexicon."""
    found = _MJSYNTH.fullmatch(line.strip())
    return (found[1], found[2]) if found and found[4] in (None, found[3]) else None


def _refuse_detection(sample: Iterable[str], path: Path) -> None:
    """PaddleOCR's labels for finding text: a list of regions for each picture."""
    for line in sample:
        label = line.partition("\t")[2].strip()
        if not label.startswith("[{"):
            continue
        try:
            regions = json.loads(label)
        except (ValueError, RecursionError):
            continue
        if all(isinstance(region, dict) and region.keys() & {"transcription", "points"} for region in regions):
            raise DataError(
                f"{path} names regions of whole pictures (PaddleOCR's labels for detection), not the text of word crops: cut "
                "the words out first, and label those (PPOCRLabel: Export Recognition Result, which writes rec_gt.txt)"
            )


def csv_rows(file: TextIO, path: Path) -> Iterator[Row]:
    """The rows of a CSV file: two columns, or those of which the first row says that they are path and text.

    Raises:
        DataError: There is but one column, or a row has more columns than there should be.
        csv.Error: It is no CSV file.
    """
    lines = iter(file)
    first = list(islice((line for line in lines if line.strip()), 1))
    if not first:
        return
    rows = csv.reader(chain(first, lines), delimiter=_csv_delimiter(first[0], path))
    at_path, at_text, columns = 0, 1, 2
    for number, row in enumerate(row for row in rows if any(cell.strip() for cell in row)):
        found = _columns(row) if number == 0 else None
        if found:
            at_path, at_text, columns = *found, len(row)
            continue
        if any(cell.strip() for cell in row[columns:]):
            raise DataError(
                f"line {rows.line_num} of {path} has {len(row)} columns, not {columns}: put a text that holds a delimiter in "
                "double quotes; if there are more columns, name those of path and text `filename` and `text` in the first line"
            )
        yield _cell(row, at_path), _cell(row, at_text)


def _csv_delimiter(line: str, path: Path) -> str:
    """Of the first line; a comma if nothing tells."""
    split = {delimiter: next(csv.reader([line], delimiter=delimiter)) for delimiter in (",", ";", "\t", "|")}
    for delimiter, row in split.items():
        if len(row) > 1 and (_columns(row) or IMAGE_NAME.fullmatch(row[0].strip())):
            return delimiter
    if len(split[","]) < 2 and not IMAGE_NAME.fullmatch(line.strip()):
        raise DataError(f"{path} has no two columns in its first line, {_shown(line.strip())}: write `path,text` in each")
    return ","


def _columns(row: Sequence[str]) -> tuple[int, int] | None:
    """Where path and text are, if the row holds names of columns."""
    names = [name.strip().lower().replace(" ", "_").replace("-", "_") for name in row]
    paths = [index for index, name in enumerate(names) if name in PATH_HEADERS]
    texts = [index for index, name in enumerate(names) if name in TEXT_HEADERS]
    return (paths[0], texts[0]) if paths and texts else None


def _are_headers(name: str, label: str) -> bool:
    return _columns([name, label]) == (0, 1)


def _cell(row: Sequence[str], index: int) -> str:
    return row[index] if index < len(row) else ""


def json_rows(file: TextIO, path: Path) -> Iterator[Row]:
    """The entries of docTR's labels for recognition: one object of file names and texts.

    Raises:
        DataError: It is none.
    """
    try:
        content = json.load(file)
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise DataError(f"{path} is no JSON file ({error})") from None
    entries = content.items() if isinstance(content, dict) else []
    if any(isinstance(value, dict) and "polygons" in value for _, value in entries):
        raise DataError(
            f"{path} names regions of whole pictures (docTR's labels for detection), not the text of word crops: cut the words "
            "out first, and label those"
        )
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise DataError(f"{path} is not one object of file names and texts, as docTR's labels for recognition are")
    yield from entries


def _shown(line: str) -> str:
    return repr(line if len(line) <= 60 else f"{line[:57]}...")
