"""What a worker does with a part, in a process of its own or as a Ray actor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from artifact.text import Reading
from model.data.pictures import BrokenImageError
from reading.bulk.parts import Job, Part, Settings
from reading.bulk.results import Outcome, error_rows, errors_in, finished, replaced, schema_of, table_of, write_part
from reading.bulk.sources.interface import Row, reason_of
from reading.pictures.opening import open_picture
from reading.readers.interface import Picture, Reader
from reading.readers.opening import open_reader


class OutputError(RuntimeError):
    """The folder of the run cannot be written: it would be so for every part."""


class Worker:
    """Reads parts, one after another.

    Raises ReaderError when the artifact cannot be opened.
    """

    def __init__(self, settings: Settings, reader: Reader | None = None) -> None:
        """Open the artifact.

        Args:
            settings: How to read.
            reader: Instead of the settings' one, for tests.
        """
        self.settings = settings
        self._reader = reader or open_reader(settings.reader)
        self._schema = schema_of(settings)

    def do(self, job: Job, advanced: Callable[[int], None] = lambda _: None) -> int:
        """Read a part and write it; returns how many of its rows are errors.

        Args:
            job: The part, and how.
            advanced: Is told how many rows more were read.

        Raises:
            OutputError: It cannot be written.
            Exception: Reading has failed; a careful job fails only if its source cannot be opened.
        """
        part, folder = job.part, self.settings.output
        old = finished(part, folder, self._schema) if job.errors_only else None
        rows = part.source.rows(careful=job.careful)
        if old is not None:
            wrong = error_rows(old)
            rows = (row for row in rows if row.number in wrong)
        outcomes: list[Outcome] = []
        for batch in _batches(rows, 1 if job.careful else self.settings.batch_size):
            outcomes += self._carefully(batch[0], job) if job.careful else self._read(batch)
            advanced(len(batch))
        if old is None and [row.number for row, _ in outcomes] != list(range(part.source.start, part.source.stop)):
            raise RuntimeError("the source has changed while it was read")
        table = table_of(part, outcomes, self._schema)
        table = table if old is None else replaced(old, table)
        try:
            write_part(part, table, folder)
            mark_of(part, folder).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(_told(folder, error)) from error
        return errors_in(table)

    def _read(self, rows: list[Row]) -> list[Outcome]:
        """What is in some rows; those whose picture can be opened are read in one run."""
        outcomes: list[Reading | str] = []
        pictures: dict[int, Picture] = {}
        for index, row in enumerate(rows):
            outcomes.append(row.error or "")
            if row.error is None:
                try:
                    pictures[index] = Picture(open_picture(row.encoded))
                except BrokenImageError as error:
                    outcomes[index] = str(error)
        if pictures:
            readings = self._reader.read(list(pictures.values()))
            for index, reading in zip(pictures, readings, strict=True):
                outcomes[index] = reading
        return list(zip(rows, outcomes, strict=True))

    def _carefully(self, row: Row, job: Job) -> list[Outcome]:
        """What is in one row, after its number was written down: should the worker end here, others know at which row."""
        if row.number in job.given_up:
            return [(row, "reading it has ended the worker, several times")]
        try:
            mark_of(job.part, self.settings.output).write_text(str(row.number))
        except OSError as error:
            raise OutputError(_told(self.settings.output, error)) from error
        try:
            return self._read([row])
        except Exception as error:  # whatever the graph or a decoder raises
            return [(row, reason_of(error))]


def mark_of(part: Part, folder: Path) -> Path:
    """The file that holds the number of the row at which a careful worker is."""
    return folder / f".{part.key}.row"


def marked_row(part: Part, folder: Path) -> int | None:
    """The row at which a careful worker has ended; `None`: it has not reached any."""
    mark = mark_of(part, folder)
    with suppress(OSError, ValueError):
        return int(mark.read_text())
    return None


def _told(folder: Path, error: OSError) -> str:
    return f"cannot write to {folder}: {error.strerror or reason_of(error)}"


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while batch := list(islice(rows, size)):
        yield batch
