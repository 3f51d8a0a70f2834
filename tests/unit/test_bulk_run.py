"""Runs of `parseq-bulk` with a worker in this process: what is read again, row by row, or not; what a folder may hold."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from artifact.text import Reading
from artifact.views import Found, Word
from reading.bulk import cores, folder
from reading.bulk.engine import EngineError
from reading.bulk.parts import Part, Settings, cut
from reading.bulk.progress import Progress, duration
from reading.bulk.results import finished, schema_of, table_of, write_part
from reading.bulk.run import MOST_DEATHS, Run
from reading.bulk.sources.finding import Columns, find_sources
from reading.bulk.sources.interface import Row, Source
from reading.bulk.worker import OutputError, Worker
from reading.readers.options import ReaderOptions
from tests.bulk_sources import FakeReader, InlineEngine, WorkerDeathError, results, words, write_folder, write_parquet

TEXTS = words(12)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "out").mkdir()
    return Settings(ReaderOptions(), tmp_path / "out", "0" * 64, batch_size=3)


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    return find_sources([str(write_folder(tmp_path / "crops", TEXTS))], Columns(), tmp_path / "out")


def run_of(sources: list[Source], settings: Settings, *, retry_errors: bool = False) -> Run:
    return Run(sources, list(cut(sources, 5, settings)), settings, retry_errors=retry_errors)


def read(run: Run, reader: FakeReader) -> InlineEngine:
    engine = InlineEngine(run.settings, reader)
    run.prepare()
    run.read(lambda _: engine)
    run.write_manifest()
    return engine


def manifest(settings: Settings) -> dict[str, object]:
    return dict(json.loads((settings.output / folder.MANIFEST).read_text()))


def fail_on(text: str, error: Callable[[], BaseException], times: int = 1000) -> FakeReader:
    left = [times]

    def before(texts: list[str]) -> None:
        if text in texts and left[0]:
            left[0] -= 1
            raise error()

    return FakeReader(before)


def test_a_run_reads_each_row_once(sources: list[Source], settings: Settings) -> None:
    run, reader = run_of(sources, settings), FakeReader()
    read(run, reader)
    assert [row["text"] for row in results(settings.output)] == TEXTS
    assert Counter(text for batch in reader.batches for text in batch) == Counter(TEXTS)
    assert max(map(len, reader.batches)) == 3
    assert run.complete
    told = manifest(settings)
    assert told["totals"] == {"rows": 12, "errors": 0, "parts": 3, "rows_expected": 12, "parts_expected": 3}
    assert told["complete"] is True


def test_a_second_run_reads_nothing(sources: list[Source], settings: Settings) -> None:
    read(run_of(sources, settings), FakeReader())
    again = FakeReader()
    read(run_of(sources, settings), again)
    assert again.batches == []
    assert manifest(settings)["complete"] is True


def test_a_part_is_tried_three_times_and_then_row_by_row(sources: list[Source], settings: Settings) -> None:
    engine = read(run := run_of(sources, settings), fail_on("w006", lambda: RuntimeError("the graph has failed")))
    tries = [(job.part.source.start, job.attempt, job.careful) for job in engine.given]
    assert tries == [(0, 0, False), (5, 0, False), (10, 0, False), (5, 1, False), (5, 2, False), (5, 3, True)]
    rows = results(settings.output)
    assert [row["text"] for row in rows] == [None if text == "w006" else text for text in TEXTS]
    assert [row["error"] for row in rows if row["error"]] == ["the graph has failed"]
    assert run.complete
    assert run.progress.line().startswith("12 of 12 crops (100.0 %)")
    assert run.progress.line().endswith("1 errors")


def test_what_fails_once_is_no_error(sources: list[Source], settings: Settings) -> None:
    read(run_of(sources, settings), fail_on("w006", lambda: RuntimeError("busy"), times=1))
    assert [row["text"] for row in results(settings.output)] == TEXTS


def test_a_crop_that_kills_workers_is_given_up_and_no_other(sources: list[Source], settings: Settings) -> None:
    engine = read(run := run_of(sources, settings), fail_on("w006", WorkerDeathError))
    rows = results(settings.output)
    assert [row["text"] for row in rows] == [None if text == "w006" else text for text in TEXTS]
    assert rows[6]["error"] == "reading it has ended the worker, several times"
    assert len(engine.given) == 3 + 2 + 3 + 1
    assert run.complete
    assert not list(settings.output.glob(".*.row"))


def test_workers_that_always_die_end_the_run(sources: list[Source], settings: Settings) -> None:
    def die(_: list[str]) -> None:
        raise WorkerDeathError

    run, reader = run_of(sources, settings), FakeReader(die)
    with pytest.raises(EngineError, match="workers end again and again"):
        read(run, reader)
    assert len(reader.batches) == MOST_DEATHS + 1
    assert results(settings.output) == []


def test_a_source_that_has_gone_leaves_its_parts_for_another_run(tmp_path: Path, settings: Settings) -> None:
    path = write_parquet(tmp_path / "t.parquet", TEXTS)
    content = path.read_bytes()
    sources = find_sources([str(path)], Columns(), settings.output)
    path.unlink()
    run = run_of(sources, settings)
    read(run, FakeReader())
    assert len(run.abandoned) == 3
    assert "there is no such file" in next(iter(run.abandoned.values()))
    assert manifest(settings)["complete"] is False
    path.write_bytes(content)
    read(again := run_of(sources, settings), FakeReader())
    assert again.complete
    assert [row["text"] for row in results(settings.output)] == TEXTS


def test_only_rows_with_errors_are_read_again(tmp_path: Path, sources: list[Source], settings: Settings) -> None:
    read(run_of(sources, settings), fail_on("w006", lambda: RuntimeError("out of luck")))
    (tmp_path / "crops" / "w001.png").unlink()
    assert run_of(sources, settings).left == 0
    read(run := run_of(sources, settings, retry_errors=True), reader := FakeReader())
    assert reader.batches == [["w006"]]
    assert [row["text"] for row in results(settings.output)] == TEXTS
    assert run.complete
    assert run.progress.line().startswith("12 of 12 crops")


def test_a_finished_part_that_is_damaged_is_read_again(sources: list[Source], settings: Settings) -> None:
    read(run_of(sources, settings), FakeReader())
    first, second, third = sorted(settings.output.glob("*.parquet"))
    content = bytearray(first.read_bytes())
    content[40:80] = bytes(40)  # in the first page
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:-20])
    third.write_bytes(b"")
    run = run_of(sources, settings)
    assert (run.damaged, run.left) == (3, 3)
    read(run, FakeReader())
    assert [row["text"] for row in results(settings.output)] == TEXTS


def test_a_byte_that_is_wrong_is_noticed_or_changes_nothing_that_is_read(sources: list[Source], settings: Settings) -> None:
    run = run_of(sources, settings)
    read(run, FakeReader())
    part = run.parts[0]
    path, whole = settings.output / part.file_name, finished(part, settings.output, schema_of(settings))
    content = path.read_bytes()
    noticed = 0
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        found = finished(part, settings.output, schema_of(settings))
        assert found is None or found.equals(whole), place
        noticed += found is None
    assert noticed > len(content) / 7 / 2


def test_one_part_under_the_name_of_another_does_not_count(sources: list[Source], settings: Settings) -> None:
    read(run_of(sources, settings), FakeReader())
    first, second, _ = sorted(settings.output.glob("*.parquet"))
    second.write_bytes(first.read_bytes())
    assert run_of(sources, settings).left == 1


def test_names_of_parts_tell_what_is_in_them(tmp_path: Path, sources: list[Source], settings: Settings) -> None:
    def keys(changed: Settings = settings, rows: int = 5) -> set[str]:
        return {part.key for part in cut(sources, rows, changed)}

    names = keys()
    assert keys(replace(settings, batch_size=9)) == names, "how many at a time changes nothing"
    others = [
        replace(settings, artifact_sha256="1" * 64),
        replace(settings, characters=True),
        replace(settings, reader=ReaderOptions(orientation="auto")),
        replace(settings, reader=ReaderOptions(split="auto")),
        replace(settings, reader=ReaderOptions(allowed="digits")),
        replace(settings, reader=ReaderOptions(alternatives=2)),
    ]
    assert all(not keys(other) & names for other in others)
    assert not keys(rows=4) & names
    (tmp_path / "crops" / "w0065.png").write_bytes(b"")
    (grown,) = find_sources([str(tmp_path / "crops")], Columns(), settings.output)
    assert len({part.key for part in cut([grown], 5, settings)} & names) == 1, "parts before a new picture stay"


def test_a_disk_that_is_full_ends_the_worker_s_part(
    sources: list[Source], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reading.bulk.results.write_whole", full)
    job_run = run_of(sources, settings)
    with pytest.raises(OutputError, match=r"cannot write to .*: No space left on device"):
        Worker(settings, FakeReader()).do(job_run._queue[0])


def test_everything_that_can_be_asked_for_has_a_column(tmp_path: Path) -> None:
    options = ReaderOptions(orientation="auto", split="auto", alternatives=2)
    settings = Settings(options, tmp_path, "0" * 64, characters=True)
    part = Part(Source(name="s", identity="s", count=2, stop=2), "k")
    word = Word("b", 0.5, (1, 2, 3, 4))
    found = Found("ab", 0.25, (0.5, 0.5), (Reading("ab", 0.25), Reading("ac", 0.125)), angle=90, words=(word,))
    rows = [(Row(0, "x"), found), (Row(1, "y\udcff"), "broken")]
    assert write_part(part, table_of(part, rows, schema_of(settings)), tmp_path) == 1
    table = finished(part, tmp_path, schema_of(settings))
    assert table is not None
    first, second = table.to_pylist()
    assert first == {
        "source": "s",
        "row": 0,
        "id": "x",
        "text": "ab",
        "confidence": 0.25,
        "character_confidences": [0.5, 0.5],
        "alternatives": [{"text": "ab", "confidence": 0.25}, {"text": "ac", "confidence": 0.125}],
        "angle": 90,
        "words": [{"text": "b", "confidence": 0.5, "box": [1, 2, 3, 4]}],
        "error": None,
    }
    assert (second["text"], second["words"], second["error"], second["id"]) == (None, None, "broken", "y\ufffd")
    assert pq.read_table(tmp_path / "k.parquet").num_rows == 2


def test_a_folder_is_one_run_s(tmp_path: Path) -> None:
    with (
        folder.locked(tmp_path / "new" / "out"),
        pytest.raises(folder.FolderError, match="another run writes to"),
        folder.locked(tmp_path / "new" / "out"),
    ):
        pass
    with folder.locked(tmp_path / "new" / "out"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(folder.FolderError, match="cannot write to"), folder.locked(tmp_path / "file"):
        pass


def test_what_a_killed_run_leaves_is_swept(sources: list[Source], settings: Settings) -> None:
    for name in (".a.parquet.12ab.part", ".a.row"):
        (settings.output / name).write_text("half")
    read(run_of(sources, settings), FakeReader())
    assert {path.name for path in settings.output.iterdir() if path.suffix != ".parquet"} == {folder.MANIFEST}


def test_progress_tells_speed_and_time_left() -> None:
    now_s, stream = [0.0], io.StringIO()
    progress = Progress(1000, 100, stream, lambda: now_s[0])
    assert progress.line() == "100 of 1,000 crops (10.0 %), 0 crops/s"
    now_s[0] = 20.0
    progress.advance(100)  # how long these took is not known
    now_s[0] = 30.0
    progress.advance(300)
    assert progress.line() == "500 of 1,000 crops (50.0 %), 30 crops/s, 17 s left"
    progress.errors = 2
    progress.tell()
    progress.tell()
    assert stream.getvalue() == "500 of 1,000 crops (50.0 %), 30 crops/s, 17 s left, 2 errors\n"
    assert [duration(seconds) for seconds in (8, 200, 7500)] == ["8 s", "3 min 20 s", "2 h 05 min"]


@pytest.mark.parametrize(("quota", "most"), [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("x", None)])
def test_workers_keep_to_the_quota_of_a_container(quota: str, most: int | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert cores.usable_cores(tmp_path / "cpu.max") == (most or cores.usable_cores(tmp_path / "none"))
