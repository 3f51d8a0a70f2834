"""Small sources of crops with known texts, of each kind that `parseq-bulk` reads, and an engine without processes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from artifact.text import Reading
from reading.bulk.engine import Advanced, Died, Done, Event, Failed
from reading.bulk.parts import Job, Settings
from reading.bulk.worker import Worker
from reading.readers.interface import Picture
from tests.archives import write_lmdb
from tests.toy_artifact import png_of

KINDS = ("folder", "list", "tar", "tar.gz", "lmdb", "parquet", "arrow file", "arrow stream", "structs", "paths")


def words(count: int) -> list[str]:
    return [f"w{index:03d}" for index in range(count)]


def write_folder(folder: Path, texts: Sequence[str]) -> Path:
    folder.mkdir(parents=True)
    for text in texts:
        (folder / f"{text}.png").write_bytes(png_of(text))
    return folder


def write_tar(path: Path, texts: Sequence[str], mode: str = "w") -> Path:
    """As a WebDataset: each picture has a text beside it."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for text in texts:
            for name, content in ((f"{text}.png", png_of(text)), (f"{text}.txt", text.encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def table_of(texts: Sequence[str]) -> pa.Table:
    return pa.table({"id": list(texts), "image": [png_of(text) for text in texts]})


def write_parquet(path: Path, texts: Sequence[str], group: int = 7) -> Path:
    pq.write_table(table_of(texts), path, row_group_size=group, compression="none", use_dictionary=False)
    return path


def write_arrow(path: Path, table: pa.Table, *, stream: bool) -> Path:
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return path


def write_source(kind: str, folder: Path, texts: Sequence[str]) -> Path:
    """A source of this kind in a folder that is there."""
    if kind == "folder":
        return write_folder(folder / "crops", texts)
    if kind == "list":
        write_folder(folder / "crops", texts)
        (folder / "crops.txt").write_text("".join(f"crops/{text}.png\n" for text in texts))
        return folder / "crops.txt"
    if kind == "tar":
        return write_tar(folder / "crops.tar", texts)
    if kind == "tar.gz":
        return write_tar(folder / "crops.tar.gz", texts, "w:gz")
    if kind == "lmdb":
        return write_lmdb(folder / "crops", [(png_of(text), text) for text in texts])
    if kind == "parquet":
        return write_parquet(folder / "crops.parquet", texts)
    if kind.startswith("arrow"):
        return write_arrow(folder / "crops.arrow", table_of(texts), stream=kind.endswith("stream"))
    if kind == "structs":
        rows = [{"bytes": png_of(text), "path": None} for text in texts]
        pq.write_table(pa.table({"image": pa.array(rows)}), folder / "crops.parquet")
    else:
        write_folder(folder / "crops", texts)
        pq.write_table(pa.table({"image": [f"crops/{text}.png" for text in texts]}), folder / "crops.parquet")
    return folder / "crops.parquet"


def results(folder: Path) -> list[dict[str, Any]]:
    """All rows of a run, by source and number."""
    if not any(folder.glob("*.parquet")):
        return []
    return list(pq.read_table(folder).sort_by([("source", "ascending"), ("row", "ascending")]).to_pylist())


class FakeReader:
    """Reads the red bytes of a toy crop's first row, and counts how often it was asked."""

    description, charset, max_label_length, refused = "fake", "", 25, 0

    def __init__(self, before: Callable[[list[str]], None] = lambda _: None) -> None:
        self.before = before
        self.batches: list[list[str]] = []

    def read(self, pictures: Sequence[Picture]) -> list[Reading]:
        charset = "0123456789abcdefghijklmnopqrstuvwxyz"
        texts = []
        for picture in pictures:
            ids = [picture.image.getpixel((x, 0))[0] for x in range(25)]  # type: ignore[index]
            texts.append("".join(charset[id_ - 1] for id_ in ids if id_))
        self.batches.append(texts)
        self.before(texts)
        return [Reading(text, 0.5) for text in texts]

    def close(self) -> None:
        pass


class WorkerDeathError(BaseException):
    """Raised by a fake reader: the worker's process has ended."""


class InlineEngine:
    """A worker in this process; it dies when its reader raises `WorkerDeathError`."""

    def __init__(self, settings: Settings, reader: FakeReader) -> None:
        self._worker = Worker(settings, reader)
        self._events: list[Event] = []
        self.given: list[Job] = []

    def free(self) -> int:
        return not self._events

    def give(self, job: Job) -> None:
        self.given.append(job)
        try:
            errors = self._worker.do(job, lambda rows: self._events.append(Advanced(job, rows)))
        except WorkerDeathError:
            self._events.append(Died(job, "its worker has ended by signal SIGKILL"))
        except Exception as error:
            self._events.append(Failed(job, str(error)))
        else:
            self._events.append(Done(job, errors))

    def wait(self, timeout_s: float) -> list[Event]:
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        pass
