"""`parseq-export inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export import __main__ as cli
from export import inspect
from export.graphs.parseq.graph import write_encoder_graph
from export.inspect import describe, inspect_artifact
from export.to_onnx import ExportSummary, export_artifact
from tests.export_models import export_options, serialised, small_model


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ExportSummary:
    return export_artifact(small_model(), export_options("nar", 0), tmp_path_factory.mktemp("artifact") / "a.onnx")


def test_json_has_everything(written: ExportSummary, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(written.path), "--no-timing", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["metadata"]["model_name"] == "mine"
    assert values["metadata"]["schema_version"] == 1
    assert values["metadata"]["charset"] == small_model().config.charset_train
    assert values["parity"] == json.loads(json.dumps(written.parity.to_dict()))
    assert values["size_bytes"] == written.path.stat().st_size
    assert sum(values["nodes"].values()) == written.nodes
    assert values["timings"] == []


def test_text_tells_the_same(written: ExportSummary, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(written.path), "--no-timing"]) == 0
    said = capsys.readouterr().out
    for part in ("mine, fp32, nar with 0 refinements", "16x64 pixels", "36 characters", "ab" * 32, "MatMul", "texts equal"):
        assert part in said
    assert "crops/s" not in said


def test_nodes_in_a_loop_are_counted(tmp_path: Path) -> None:
    summary = export_artifact(small_model(), export_options("ar", 0, early_exit=True), tmp_path / "a.onnx")
    found = inspect_artifact(summary.path, timing=False)
    assert sum(found.nodes.values()) == summary.nodes
    assert found.nodes["Loop"] == 1
    assert found.nodes["ArgMax"] == 2  # the first step, and the one in the loop
    assert "early exit" in describe(found)


def test_timing(written: ExportSummary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "MIN_SECONDS", 0.0)
    found = inspect_artifact(written.path)
    assert [timing.batch for timing in found.timings] == [1, 8, 32]
    assert all(timing.ms > 0 for timing in found.timings)
    assert "batch 32" in describe(found)


def test_what_is_no_artifact(written: ExportSummary, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(written.path.read_bytes()[:1000])
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"\xff" * 100)
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(serialised(write_encoder_graph(small_model())))
    named_otherwise = tmp_path / "garbage.json"
    named_otherwise.write_text('{"no": "graph"}')
    said = {
        damaged: "",
        garbage: "damaged or is no ONNX",
        named_otherwise: "damaged or is no ONNX",
        foreign: "no artifact metadata",
        tmp_path / "none": "No such file",
    }
    for path, part in said.items():
        assert cli.main(["inspect", str(path), "--no-timing"]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert part in captured.err


def test_a_report_of_another_precision_is_told() -> None:
    report = {"comparisons": 9, "crops": 3, "agreement": 0.99, "floor": 0.97, "near_ties": 1, "calibration": "256 drawn crops"}
    said = inspect._parity({**report, "mean_confidence_difference": 0.01})
    assert "99.00% of the texts equal (at least 97.00%), 1 near ties apart" in said
    assert "scales from 256 drawn crops" in said
    assert "not written by parseq-export" in inspect._parity(None)
