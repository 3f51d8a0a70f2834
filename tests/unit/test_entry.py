from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from export import entry as export_entry
from model import entry
from reading import entry as reading_entry

Script = Callable[[], int]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("script", "module", "missing", "extra"),
    [
        (reading_entry.read, "reading.read", "tqdm", "`read`"),
        (reading_entry.evaluate, "reading.evaluate", "rapidfuzz", "`read`"),
        (reading_entry.bulk, "reading.bulk.command", "pyarrow", "`cpu`"),
        (reading_entry.benchmark, "reading.benchmark", "torch", "`train`"),
        (entry.convert, "model.data.convert", "lmdb", "`train`"),
        (entry.train, "model.training.train", "lightning", "`train`"),
        (entry.tune, "model.training.tune", "ray", "`tune`"),
        (export_entry.export, "export.__main__", "onnx", "`export`"),
    ],
)
def test_a_missing_extra_is_one_line(
    script: Script,
    module: str,
    missing: str,
    extra: str,
    late: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> int:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    def absent(name: str) -> object:
        assert name == module
        return SimpleNamespace(main=fail) if late else fail()

    monkeypatch.setattr("importlib.import_module", absent)
    assert script() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"the package {missing!r} is not installed" in error
    assert "make dev" in error
    assert extra in error


def test_a_module_of_ours_that_is_missing_is_a_fault() -> None:
    with pytest.raises(ModuleNotFoundError):
        entry.run("parseq-read", "reading.nothing", "an extra")


def test_an_installed_job_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["parseq-read", "no-such-file.png"])
    assert reading_entry.read() == 1
    assert "there is no such file" in capsys.readouterr().err
