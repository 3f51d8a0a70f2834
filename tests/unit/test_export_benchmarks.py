"""The benchmarks of the export run and tell what they promise; never how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import recognisers
from export.gate import crop_sources

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_cost_of_decoding(tmp_path: Path) -> None:
    report = tmp_path / "rows.json"
    options = ["--batch", "1", "--rounds", "1", "--threads", "1", "--precision", "fp32", "--json", str(report)]
    command = [sys.executable, "-m", "benchmarks.export_cost", "--model", "parseq-mini", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "ratio to the fp32 encoder" in done.stdout
    rows = json.loads(report.read_text(encoding="utf-8"))
    found = {(row["mode"], row["precision"]) for row in rows}
    modes = ("encoder", "nar", "ar", "ar+1")
    assert found == {(mode, kind) for mode in modes for kind in ("fp32", "pytorch")} | {
        (f"{mode}, unrolled", "fp32") for mode in ("ar", "ar+1")
    }
    assert "characters in the mean" in done.stdout
    assert all(row["batch"] == 1 and row["ms"] > 0 for row in rows)
    (encoder,) = [row for row in rows if (row["mode"], row["precision"]) == ("encoder", "fp32")]
    assert encoder["ratio_to_encoder"] == 1.0


@pytest.mark.slow
def test_networks_beside_each_other(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(crop_sources, "CALIBRATION_CROPS", 8)
    options = ["--model", "parseq-nano", "--model", "crnn", "--batch", "1", "--rounds", "1", "--precision", "fp32", "int8"]
    monkeypatch.setattr(sys, "argv", ["recognisers", *options])
    assert recognisers.main() == 0
    told = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told if line.startswith("| ")]
    assert [row[0] for row in rows if row[0] not in ("network", "---")] == 2 * ["parseq-nano", "crnn"]
    for _, parameters, *_, ms, ratio in (row for row in rows if row[0] == "parseq-nano"):
        assert (parameters, ratio) == ("1.56", "1.00")
        assert float(ms) > 0
