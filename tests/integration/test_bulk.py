"""`parseq-bulk` as a command: what is killed, refused or full loses and doubles no row."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reading.bulk import command
from reading.bulk.folder import MANIFEST, locked
from tests.bulk_sources import KINDS, results, words, write_folder, write_source
from tests.toy_artifact import png_of, write_artifact

ROOT = Path(__file__).parents[2]
TEXTS = words(40)
MANY = words(300)
"""So many that a run of them lasts, some milliseconds each, until somebody has been killed."""
PATIENCE_S = 60


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("artifact") / "toy.onnx")


@pytest.fixture(scope="module")
def slow_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some milliseconds for a crop, so that there is time to kill somebody."""
    return write_artifact(tmp_path_factory.mktemp("slow") / "toy.onnx", work=6)


def options(artifact: Path, output: Path, *others: object) -> list[str]:
    return ["--artifact", str(artifact), "--output", str(output), *map(str, others)]


def start(*arguments: object, limit_bytes: int | None = None) -> subprocess.Popen[str]:
    def limit() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs, and what they start, ignore it
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    line = [sys.executable, "-m", "reading.bulk.command", *map(str, arguments)]
    return subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=limit, start_new_session=True)


def wait_for(condition: Callable[[], object], driver: subprocess.Popen[str]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < end_s
        time.sleep(0.01)


def workers_of(driver: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def texts_in(output: Path) -> list[str | None]:
    return [row["text"] for row in results(output)]


def test_sources_of_all_kinds_give_the_same_rows(tmp_path: Path, artifact: Path) -> None:
    sources = []
    for index, kind in enumerate(KINDS):
        (tmp_path / str(index)).mkdir()
        sources.append(str(write_source(kind, tmp_path / str(index), words(7))))
    assert command.main([*sources, *options(artifact, tmp_path / "out", "--workers", 1, "--rows-per-part", 3)]) == 0
    rows = results(tmp_path / "out")
    assert len(rows) == 7 * len(KINDS)
    read = {source: [(row["text"], row["confidence"]) for row in rows if row["source"] == source] for source in sources}
    assert {tuple(values) for values in read.values()} == {tuple(read[sources[0]])}
    assert [text for text, _ in read[sources[0]]] == words(7)


def test_a_worker_that_is_killed_costs_no_row(tmp_path: Path, slow_artifact: Path) -> None:
    folder, out = write_folder(tmp_path / "crops", MANY), tmp_path / "out"
    driver = start(folder, *options(slow_artifact, out, "--workers", 2, "--rows-per-part", 4, "--batch-size", 1))
    wait_for(lambda: any(out.glob("*.parquet")), driver)
    os.kill(workers_of(driver)[0], signal.SIGKILL)
    error = driver.communicate(timeout=PATIENCE_S)[1]
    assert driver.returncode == 0, error
    assert "its worker has ended by signal SIGKILL; reading them again" in error
    assert texts_in(out) == MANY


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path, slow_artifact: Path) -> None:
    folder, out = write_folder(tmp_path / "crops", MANY), tmp_path / "out"
    arguments = [folder, *options(slow_artifact, out, "--workers", 1, "--rows-per-part", 4, "--batch-size", 1)]
    driver = start(*arguments)
    wait_for(lambda: any(out.glob("*.parquet")), driver)
    workers = workers_of(driver)
    driver.kill()
    driver.communicate(timeout=PATIENCE_S)
    end_s = time.monotonic() + PATIENCE_S
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers):
        assert time.monotonic() < end_s, "workers outlive the run that started them"
        time.sleep(0.01)
    assert json.loads((out / MANIFEST).read_text())["complete"] is False
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert 0 < len(before) < len(MANY) // 4
    again = start(*arguments)
    assert "300 of 300 crops" in again.communicate(timeout=PATIENCE_S)[1]
    assert again.returncode == 0
    assert texts_in(out) == MANY
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert json.loads((out / MANIFEST).read_text())["complete"] is True


def test_ctrl_c_and_a_full_disk_end_a_run_that_can_go_on(tmp_path: Path, slow_artifact: Path) -> None:
    texts = words(300)
    folder, out = write_folder(tmp_path / "crops", texts), tmp_path / "out"
    arguments = [folder, *options(slow_artifact, out, "--workers", 1, "--rows-per-part", 10, "--batch-size", 1)]
    driver = start(*arguments, limit_bytes=1500)  # enough for the manifest as it begins, and not for a part
    error = driver.communicate(timeout=PATIENCE_S)[1]
    assert driver.returncode == 3, error
    assert f"cannot write to {out}" in error
    assert "Traceback" not in error
    assert list(out.glob("*.parquet")) == list(out.glob(".*.part")) == []
    driver = start(*arguments)
    wait_for(lambda: any(out.glob("*.parquet")), driver)
    os.killpg(driver.pid, signal.SIGINT)
    error = driver.communicate(timeout=PATIENCE_S)[1]
    assert driver.returncode == 3, error
    assert "stopped; what is finished is kept" in error
    assert "Traceback" not in error
    assert command.main([str(each) for each in arguments]) == 0
    assert texts_in(out) == texts


def test_crops_with_errors_and_what_the_exit_status_says(
    tmp_path: Path, artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_folder(tmp_path / "crops", words(4)), tmp_path / "out"
    (folder / "w001.png").write_bytes(b"no picture")
    (folder / "w002.png").write_bytes(png_of("w002", poisoned=True))
    arguments = [str(folder), *options(artifact, out, "--workers", 1)]
    assert command.main(arguments) == 0
    assert "2 crops could not be read" in capsys.readouterr().err
    rows = results(out)
    assert [row["text"] for row in rows] == ["w000", None, None, "w003"]
    assert rows[1]["error"] == "not a readable image"
    assert rows[2]["error"]
    assert command.main([*arguments, "--strict"]) == 1
    (folder / "w001.png").write_bytes(png_of("w001"))
    assert command.main([*arguments, "--retry-errors", "--strict"]) == 1
    assert texts_in(out) == ["w000", "w001", None, "w003"]


def test_a_dry_run_reads_and_writes_nothing(tmp_path: Path, artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "crops", words(5))
    assert command.main([str(folder), *options(artifact, tmp_path / "out", "--dry-run", "--rows-per-part", 2)]) == 0
    assert "5 crops in 3 parts, of which 3 are left to read" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_what_is_refused(tmp_path: Path, artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = write_folder(tmp_path / "crops", words(2)), tmp_path / "out"

    def refused(*arguments: object) -> str:
        assert command.main([*map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("parseq-bulk: ")
        assert error.count("\n") == 1
        return error

    assert "there is no artifact" in refused(folder, *options(tmp_path / "none.onnx", out))
    assert "there is no such file" in refused(tmp_path / "none", *options(artifact, out))
    assert "gives no alternatives" in refused(folder, *options(artifact, out, "--alternatives", 2))
    assert "add that" in refused(folder, *options(artifact, out, "--address", "auto"))
    assert "must be a folder of this machine" in refused(folder, "--artifact", artifact, "--output", "s3://bucket/out")
    with locked(out):
        assert "another run writes to" in refused(folder, *options(artifact, out))
    (out / "other.parquet").write_bytes(b"")
    assert "holds 1 Parquet files of other sources" in refused(folder, *options(artifact, out))
    assert command.main([str(folder), *options(artifact, out, "--overwrite", "--workers", 1)]) == 0
    assert texts_in(out) == words(2)
