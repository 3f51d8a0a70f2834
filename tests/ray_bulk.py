"""`parseq-bulk --engine ray`, and `BatchReader` in Ray Data, with a real Ray on this machine.

    make verify-ray

Not part of `make test`: Ray is half a gigabyte that nothing else needs.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import ray

from reading.batch_reader import BatchReader
from reading.bulk import command
from reading.bulk.parts import Settings
from reading.bulk.ray_actors import RayActors
from reading.readers.options import ReaderOptions
from tests.bulk_sources import results, table_of, words, write_folder, write_parquet, write_tar
from tests.integration.test_bulk import PATIENCE_S, TEXTS, options, start, texts_in, wait_for
from tests.toy_artifact import write_artifact

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def slow_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("slow") / "toy.onnx", work=20)


def actors() -> list[int]:
    """The processes of actors that read a part."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::_Actor.do"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_the_same_rows_as_with_processes(tmp_path: Path, slow_artifact: Path) -> None:
    sources = [str(write_parquet(tmp_path / "t.parquet", words(30))), str(write_tar(tmp_path / "t.tar", words(30)))]
    for engine in ("local", "ray"):
        arguments = options(slow_artifact, tmp_path / engine, "--engine", engine, "--workers", 2, "--rows-per-part", 7)
        assert command.main([*sources, *arguments]) == 0
    assert results(tmp_path / "ray") == results(tmp_path / "local")
    names = [sorted(path.name for path in (tmp_path / engine).glob("*.parquet")) for engine in ("local", "ray")]
    assert names[0] == names[1]


def test_an_actor_and_a_driver_that_are_killed_cost_no_row(tmp_path: Path, slow_artifact: Path) -> None:
    folder, out = write_folder(tmp_path / "crops", TEXTS), tmp_path / "out"
    engine = ("--engine", "ray", "--workers", 2, "--rows-per-part", 4, "--batch-size", 1)
    arguments = [folder, *options(slow_artifact, out, *engine)]
    driver = start(*arguments)
    wait_for(lambda: any(out.glob("*.parquet")) and actors(), driver)
    os.kill(actors()[0], signal.SIGKILL)
    count = len(list(out.glob("*.parquet")))
    wait_for(lambda: len(list(out.glob("*.parquet"))) > count, driver)
    driver.kill()
    driver.communicate(timeout=PATIENCE_S)
    end_s = time.monotonic() + PATIENCE_S
    while actors():
        assert time.monotonic() < end_s, "actors outlive the run that started them"
        time.sleep(0.1)
    assert 0 < len(list(out.glob("*.parquet"))) < 10
    again = start(*arguments)
    error = again.communicate(timeout=4 * PATIENCE_S)[1]
    assert again.returncode == 0, error
    assert texts_in(out) == TEXTS


def test_an_actor_that_is_killed_is_replaced(tmp_path: Path, slow_artifact: Path) -> None:
    folder, out = write_folder(tmp_path / "crops", TEXTS), tmp_path / "out"
    engine = ("--engine", "ray", "--workers", 1, "--rows-per-part", 10, "--batch-size", 1)
    driver = start(folder, *options(slow_artifact, out, *engine))
    wait_for(actors, driver)
    os.kill(actors()[0], signal.SIGKILL)
    error = driver.communicate(timeout=4 * PATIENCE_S)[1]
    assert driver.returncode == 0, error
    assert "its actor has ended" in error
    assert texts_in(out) == TEXTS


def test_not_all_cpus_are_reserved(tmp_path: Path, slow_artifact: Path) -> None:
    engine = RayActors(Settings(ReaderOptions(artifact=slow_artifact), tmp_path, "0" * 64), 4, 9, None)
    try:
        end_s = time.monotonic() + PATIENCE_S
        while engine.free() < 4:
            engine.wait(1.0)
            assert time.monotonic() < end_s
        assert ray.available_resources()["CPU"] >= 1
        assert ray.get(ray.remote(lambda: 7).remote(), timeout=PATIENCE_S) == 7
    finally:
        engine.close()


def test_batch_reader_in_ray_data(slow_artifact: Path) -> None:
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    try:
        dataset = ray.data.from_arrow(table_of(words(20)))
        for read in (
            dataset.map_batches(BatchReader(slow_artifact), batch_size=8),
            dataset.map_batches(BatchReader, fn_constructor_args=[slow_artifact], batch_size=8, concurrency=1, num_cpus=0.5),
        ):
            rows = read.select_columns(["id", "text", "error"]).take_all()
            assert sorted(row["text"] for row in rows) == words(20)
            assert all(row["id"] == row["text"] and row["error"] is None for row in rows)
    finally:
        ray.shutdown()
