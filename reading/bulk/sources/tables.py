"""Parquet and Arrow files as a source, with a column of pictures."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from model.data.pictures import BrokenImageError
from reading.bulk.sources.files import beside, identity_of, is_url, open_file, read_picture
from reading.bulk.sources.interface import Row, Source, SourceError, reason_of

BATCH_ROWS: Final = 64
BUFFER_BYTES: Final = 1 << 20
"""Read at a time, rather than a whole row group."""
DEFAULT_ID: Final = "id"

Kind = Literal["Parquet", "Arrow"]


@dataclass(frozen=True, kw_only=True)
class TableCrops(Source):
    """A table's rows, each known by its column of ids, else by its number."""

    file: str
    kind: Kind
    image: str
    """Column of image files (binary), of structs with `bytes` or `path` (as Hugging Face has it), or of paths and URLs."""
    id_column: str | None

    def read(self, start: int, stop: int, careful: bool) -> Iterator[Row]:
        """A row for each of the table's."""
        read = _parquet_batches if self.kind == "Parquet" else _arrow_batches
        columns = [self.image, *([self.id_column] if self.id_column else [])]
        reached = start
        for first, batch in read(self.file, columns, start, stop, careful):
            if isinstance(batch, Lost):
                for number in range(reached, min(batch.stop, stop)):
                    yield Row(number, None, error=f"the table is damaged here ({batch.reason})")
                reached = max(reached, min(batch.stop, stop))
                continue
            rows = _within(batch, first, start, stop)
            ids = rows.column(1).to_pylist() if self.id_column else [None] * rows.num_rows
            for id_, value in zip(ids, rows.column(0), strict=True):
                yield self._row(reached, str(reached) if id_ is None else str(id_), value.as_py(), careful)
                reached += 1

    def _row(self, number: int, id_: str, value: Any, careful: bool) -> Row:
        try:
            return Row(number, id_, self._encoded(value))
        except BrokenImageError as error:
            return Row(number, id_, error=str(error))
        except Exception as error:  # of the network
            if not careful:
                raise
            return Row(number, id_, error=reason_of(error))

    def _encoded(self, value: Any) -> bytes:
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if value is None:
            raise BrokenImageError("no picture")
        if isinstance(value, bytes):
            return value
        base = posixpath.dirname(self.file) if is_url(self.file) else str(Path(self.file).parent)
        return read_picture(beside(base, str(value)))


def open_table(file: str, name: str, kind: Kind, image: str, id_column: str | None) -> TableCrops:
    """Look at a table's columns and count its rows.

    Args:
        file: Its path or URL.
        name: As the user wrote it.
        kind: What it is.
        image: Its column of pictures.
        id_column: Its column of ids; `None`: `id` if there is one.

    Raises:
        SourceError: It has no such column, or cannot be opened.
    """
    damage, schema, count = None, None, 0
    with ExitStack() as stack:
        stack.enter_context(open_file(file))  # whether there is one
        try:
            schema, count, damage = _parquet_size(file) if kind == "Parquet" else _arrow_size(file)
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, SourceError):
                raise
            damage = f"is not a readable {kind} file ({reason_of(error)})"
    if schema is not None:
        _check_columns(schema, name, image, id_column)
        if id_column is None and DEFAULT_ID in schema.names and image != DEFAULT_ID:
            id_column = DEFAULT_ID
    identity = f"{kind} {identity_of(file)} {image} {id_column}"
    return TableCrops(
        name=name, identity=identity, count=count, damage=damage, file=file, kind=kind, image=image, id_column=id_column
    )


def _check_columns(schema: pa.Schema, name: str, image: str, id_column: str | None) -> None:
    for column, option in ((image, "--image-column"), (id_column, "--id-column")):
        if column is not None and column not in schema.names:
            raise SourceError(f"{name} has no column {column!r}: it has {', '.join(schema.names)}; name one with {option}")
    kind = schema.field(image).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    fields = {field.name for field in kind} if pa.types.is_struct(kind) else set()
    if not fields & {"bytes", "path"} and not any(fits(kind) for fits in (*binary, *text)):
        raise SourceError(
            f"{name}: the column {image!r} holds {kind}; it must hold image files (binary), structs with `bytes` or `path`, "
            "or paths (text)"
        )


def _parquet_size(file: str) -> tuple[pa.Schema, int, str | None]:
    with open_file(file) as content:
        parquet = pq.ParquetFile(content)
        return parquet.schema_arrow, parquet.metadata.num_rows, None


@dataclass(frozen=True, slots=True)
class Lost:
    """Rows that cannot be read, from those before on."""

    stop: int
    reason: str


Batches = Iterator[tuple[int, pa.RecordBatch | Lost]]
"""The number of the first row, and rows."""


def _parquet_batches(file: str, columns: Sequence[str], start: int, stop: int, careful: bool) -> Batches:
    with open_file(file) as content:
        parquet = pq.ParquetFile(content, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)
        first = 0
        for group in range(parquet.num_row_groups):
            end = first + parquet.metadata.row_group(group).num_rows
            if end > start and first < stop:
                yield from _group_batches(parquet, group, first, columns, min(end, stop), careful)
            first = end


def _group_batches(
    parquet: pq.ParquetFile, group: int, first: int, columns: Sequence[str], stop: int, careful: bool
) -> Batches:
    try:
        for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns)):
            yield first, batch.select(columns)
            first += batch.num_rows
            if first >= stop:
                return
    except Exception as error:  # a damaged page fails in many ways
        if not careful:
            raise
        yield first, Lost(stop, reason_of(error))


def _arrow_size(file: str) -> tuple[pa.Schema, int, str | None]:
    count = 0
    with ExitStack() as stack:
        schema, batches = _arrow_opened(file, stack)
        try:
            for batch in batches:
                count += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            return schema, count, f"the table is damaged after {count} rows ({reason_of(error)})"
    return schema, count, None


def _arrow_batches(file: str, columns: Sequence[str], start: int, stop: int, careful: bool) -> Batches:
    first = 0
    with ExitStack() as stack:
        try:
            for batch in _arrow_opened(file, stack)[1]:
                if first + batch.num_rows > start:
                    yield first, batch.select(columns)
                first += batch.num_rows
                if first >= stop:
                    return
        except (pa.ArrowException, OSError) as error:
            if not careful:
                raise
            yield first, Lost(stop, reason_of(error))


def _arrow_opened(file: str, stack: ExitStack) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and batches of a file in either of Arrow's two formats; Hugging Face's data sets are in that of a stream."""
    content = stack.enter_context(open_file(file) if is_url(file) else pa.memory_map(file))
    try:
        opened = pa.ipc.open_file(content)
        return opened.schema, (opened.get_batch(index) for index in range(opened.num_record_batches))
    except pa.ArrowInvalid:
        content.seek(0)
        stream = pa.ipc.open_stream(content)
        return stream.schema, iter(stream)


def _within(batch: pa.RecordBatch, first: int, start: int, stop: int) -> pa.RecordBatch:
    begin = max(0, start - first)
    return batch.slice(begin, max(0, min(batch.num_rows, stop - first) - begin))
