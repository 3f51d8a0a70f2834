"""Plain folders of word crops: picture files, and a `labels.tsv` that says what stands in each.

One line a picture: its path, relative to the folder, a tab, its text; UTF-8. Empty lines do not count.
"""

from __future__ import annotations

from pathlib import Path

from model.errors import DataError

LABELS_FILE = "labels.tsv"


def has_labels(folder: Path) -> bool:
    """Whether `folder` is such a folder."""
    return (folder / LABELS_FILE).is_file()


def read_labels(source: Path) -> list[tuple[Path, str]]:
    """The pictures and texts of a folder with a `labels.tsv`, or of a file in that format.

    Paths are relative to the folder that the file is in. Whether the pictures exist is not looked at.

    Raises:
        DataError: there is no such file, or a line of it is not a path and a text.
    """
    path = source / LABELS_FILE if source.is_dir() else source
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, tab, text = line.partition("\t")
        if not tab or not name.strip():
            raise DataError(f"{path}, line {number}: expected a path, a tab and a text, found {line[:60]!r}")
        found.append((path.parent / name.strip(), text))
    return found
