"""Finished parts: what is in their files, and whether a file is whole."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from artifact.files import write_whole
from artifact.text import Reading
from artifact.views import Found
from reading.bulk.parts import Part, Settings
from reading.bulk.sources.interface import Row

Outcome = tuple[Row, Reading | str]
"""A row, and what was read in it or why nothing was."""
ERRORS_KEY: Final = b"parseq.errors"
PART_KEY: Final = b"parseq.part"
_TEXT: Final = [("text", pa.string()), ("confidence", pa.float64())]


def schema_of(settings: Settings) -> pa.Schema:
    """The columns of a run's results; docs/bulk.md describes them."""
    columns: list[tuple[str, pa.DataType]] = [("source", pa.string()), ("row", pa.int64()), ("id", pa.string()), *_TEXT]
    if settings.characters:
        columns.append(("character_confidences", pa.list_(pa.float64())))
    if settings.reader.alternatives:
        columns.append(("alternatives", pa.list_(pa.struct(_TEXT))))
    if settings.reader.orientation != "upright":
        columns.append(("angle", pa.int16()))
    if settings.reader.split != "none":
        columns.append(("words", pa.list_(pa.struct([*_TEXT, ("box", pa.list_(pa.int32(), 4))]))))
    return pa.schema([*columns, ("error", pa.string())])


def table_of(part: Part, outcomes: Iterable[Outcome], schema: pa.Schema) -> pa.Table:
    """The results of a part as a table."""
    return pa.Table.from_pylist([_told(part.source.name, row, outcome) for row, outcome in outcomes], schema)


def _told(source: str, row: Row, outcome: Reading | str) -> dict[str, Any]:
    place = {"source": source, "row": row.number, "id": None if row.id is None else _encodable(row.id)}
    if isinstance(outcome, str):
        return {**place, "error": _encodable(outcome)}
    found = outcome if isinstance(outcome, Found) else None
    return {
        **place,
        "text": outcome.text,
        "confidence": outcome.confidence,
        "character_confidences": outcome.character_confidences,
        "alternatives": [{"text": other.text, "confidence": other.confidence} for other in outcome.alternatives],
        "angle": found.angle if found else None,
        "words": [{"text": word.text, "confidence": word.confidence, "box": word.box} for word in found.words] if found else [],
    }


def _encodable(text: str) -> str:
    """A name of a file may hold bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def write_part(part: Part, table: pa.Table, folder: Path) -> int:
    """Write a finished part, which appears whole or not at all; returns how many of its rows are errors.

    Raises:
        OSError: The folder or the disk refuses.
    """
    errors = errors_in(table)
    table = table.replace_schema_metadata({PART_KEY: part.key, ERRORS_KEY: str(errors)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    write_whole(folder / part.file_name, buffer.getvalue())
    return errors


def finished(part: Part, folder: Path, schema: pa.Schema) -> pa.Table | None:
    """A finished part; `None` if there is none, or if its file is damaged or holds something else.

    Pages have checksums in a Parquet file, and what stands between them has none: hence the schema.
    """
    with suppress(pa.ArrowException, OSError, ValueError, KeyError):
        table = pq.ParquetFile(folder / part.file_name, page_checksum_verification=True).read()
        numbers: Sequence[int] = table.column("row").to_pylist()
        known = table.schema.metadata or {}
        if (
            known.get(PART_KEY) == part.key.encode()
            and table.schema.equals(schema)
            and numbers == list(range(part.source.start, part.source.stop))
        ):
            return table
    return None


def errors_in(table: pa.Table) -> int:
    """How many rows of a finished part are errors."""
    return int(table.num_rows - table.column("error").null_count)


def error_rows(table: pa.Table) -> frozenset[int]:
    """The numbers of the rows of a finished part that are errors."""
    return frozenset(table.filter(pc.is_valid(table.column("error"))).column("row").to_pylist())


def replaced(old: pa.Table, new: pa.Table) -> pa.Table:
    """A finished part with some of its rows read again."""
    kept = old.filter(pc.invert(pc.is_in(old.column("row"), new.column("row"))))
    return pa.concat_tables([kept.cast(new.schema), new]).sort_by("row")
