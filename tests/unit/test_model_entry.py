from __future__ import annotations

import sys

import pytest

from export import entry as export_entry
from model import entry
from reading import entry as reading_entry


@pytest.mark.parametrize(
    ("script", "module", "missing"),
    [
        (reading_entry.read, "reading.read", "torch"),
        (reading_entry.evaluate, "reading.evaluate", "rapidfuzz"),
        (reading_entry.benchmark, "reading.benchmark", "matplotlib"),
        (entry.convert, "model.data.convert", "lmdb"),
        (entry.train, "model.training.train", "lightning"),
        (entry.tune, "model.training.tune", "lightning"),
        (export_entry.export, "export.__main__", "onnx"),
    ],
)
def test_a_missing_extra_is_one_line(
    script: object, module: str, missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> None:
        assert name == module
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr("importlib.import_module", absent)
    assert callable(script)
    assert script() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"the package {missing!r} is not installed" in error
    assert "make dev" in error


def test_an_installed_job_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["parseq-read", "no-such-file.png"])
    assert export_entry.read() == 1
    assert "there is no such file" in capsys.readouterr().err
