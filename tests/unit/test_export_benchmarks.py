"""The benchmarks of the export run and tell what they promise; never how fast."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import export_cost, recognisers
from export.gate import crop_sources
from reading.latency.cost import parameters
from tests.export_models import small_model, small_vitstr


@pytest.mark.slow
def test_cost_of_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(export_cost, "load", lambda *_, **__: small_model())
    monkeypatch.setattr(export_cost, "CROPS", 16)
    monkeypatch.setattr(export_cost, "PAUSE_S", 0.0)
    report = tmp_path / "rows.json"
    options = ["--batch", "1", "--rounds", "1", "--threads", "1", "--precision", "fp32", "--json", str(report)]
    monkeypatch.setattr(sys, "argv", ["export_cost", "--model", "parseq-mini", *options])
    assert export_cost.main() == 0
    told = capsys.readouterr().out
    assert "ratio to the fp32 encoder" in told
    rows = json.loads(report.read_text(encoding="utf-8"))
    found = {(row["mode"], row["precision"]) for row in rows}
    modes = ("encoder", "nar", "ar", "ar+1")
    assert found == {(mode, kind) for mode in modes for kind in ("fp32", "pytorch")} | {
        (f"{mode}, unrolled", "fp32") for mode in ("ar", "ar+1")
    }
    assert "characters in the mean" in told
    assert all(row["batch"] == 1 and row["ms"] > 0 for row in rows)
    (encoder,) = [row for row in rows if (row["mode"], row["precision"]) == ("encoder", "fp32")]
    assert encoder["ratio_to_encoder"] == 1.0


@pytest.mark.slow
def test_networks_beside_each_other(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(crop_sources, "CALIBRATION_CROPS", 8)
    small = {"mine": small_model(max_label_length=4), "other": small_vitstr(max_label_length=4)}
    monkeypatch.setattr(recognisers, "named_config", lambda name: small[name].config)
    options = ["--model", "mine", "--model", "other", "--batch", "1", "--rounds", "1", "--precision", "fp32", "int8"]
    monkeypatch.setattr(sys, "argv", ["recognisers", *options])
    assert recognisers.main() == 0
    told = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told if line.startswith("| ")]
    assert [row[0] for row in rows if row[0] not in ("network", "---")] == 2 * ["mine", "other"]
    for name, counted, *_, ms, ratio in (row for row in rows if row[0] in small):
        assert counted == f"{parameters(small[name]) / 1e6:.2f}"
        assert name != "mine" or ratio == "1.00"
        assert float(ms) > 0
