"""`parseq-benchmark` in the small: counts by hand, fair turns, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from export.to_onnx import ExportOptions, build_artifact
from reading import benchmark
from reading.latency.cost import costs, parameters
from reading.latency.measure import Run, measure
from tests.export_models import SIZES, small_model


class FakeRuns:
    """Each run moves a clock by what it costs."""

    about: dict[str, object] = {}  # noqa: RUF012
    max_label_length = 9

    def __init__(self, name: str, clock: list[float], log: list[str]) -> None:
        self.name, self.clock, self.log = name, clock, log

    def _run(self, what: str, seconds: float) -> Run:
        def run() -> None:
            self.log.append(f"{self.name} {what}")
            # Every third round something else disturbs: a median does not mind.
            self.clock[0] += seconds if len(self.log) % 3 else 50 * seconds

        return run

    def of_batch(self, size: int) -> Run:
        return self._run(f"batch {size}", 0.01 * size)

    def of_length(self, length: int) -> Run:
        return self._run(f"length {length}", 0.001 * length)


def test_runs_take_turns_and_medians_count() -> None:
    clock, log = [0.0], list[str]()
    told: list[tuple[int, int]] = []
    found = measure(
        [FakeRuns("a", clock, log), FakeRuns("b", clock, log)],
        [1, 4],
        [5, 10],
        repeats=20,
        clock=lambda: clock[0],
        progress=lambda done, total: told.append((done, total)),
    )
    rounds = [sorted(log[start : start + 6]) for start in range(0, len(log), 6)]
    assert len(rounds) == 21
    assert all(each == rounds[0] for each in rounds)
    assert len({tuple(log[start : start + 6]) for start in range(0, len(log), 6)}) > 5
    assert told[-1] == (126, 126)
    # Nine characters at most: a length of ten is left out.
    assert {(entry.subject, entry.against, entry.value) for entry in found} == {
        (name, *axis) for name in "ab" for axis in (("batch", 1), ("batch", 4), ("length", 5))
    }
    batch = next(entry for entry in found if entry.against == "batch" and entry.value == 4)
    assert (batch.ms, batch.crops_per_s) == (pytest.approx(40), pytest.approx(100))


def test_flops_by_hand() -> None:
    network = small_model()
    found = {cost.what: cost.gflops * 1e9 for cost in costs(network)}
    tokens, width, ratio = 16, SIZES["embed_dim"], SIZES["enc_mlp_ratio"]
    macs = tokens * width * 3 * 8 * 8  # patches
    # Queries, keys, values and the output; scores and their use; the two layers of the perceptron.
    macs += SIZES["enc_depth"] * (tokens * 4 * width**2 + 2 * tokens**2 * width + 2 * tokens * ratio * width**2)
    assert found["encoder"] == pytest.approx(2 * macs, rel=1e-9)
    # Decoding all at once: keys and values of the image and of the begin token, then every step's way through the layer.
    steps, classes = SIZES["max_label_length"] + 1, len(SIZES["charset_train"]) + 1
    macs += 2 * tokens * width**2 + 2 * width**2
    macs += steps * (4 * width**2 + 2 * (1 + tokens) * width + 2 * SIZES["dec_mlp_ratio"] * width**2 + width * classes)
    assert found["nar"] == pytest.approx(2 * macs, rel=1e-9)
    assert found["encoder"] < found["nar"] < found["ar"] < found["ar + 1 refinement"]
    assert all(values.requires_grad for values in network.parameters())


def test_parameters_of_the_reference() -> None:
    from model.checkpoints.loading import load

    # Its paper says 23.8 and 6.0 million.
    assert round(parameters(load("parseq")) / 1e6, 1) == 23.8
    assert round(parameters(load("parseq-tiny")) / 1e6, 1) == 6.0


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(build_artifact(small_model(), ExportOptions("small", "")).SerializeToString())
    return path


def test_a_checkpoint_and_an_artifact_side_by_side(tmp_path: Path, artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.json").write_text(json.dumps(SIZES))
    output, plot = tmp_path / "b.json", tmp_path / "b.png"
    options = ["--batch", "1", "2", "--length", "1", "10", "11", "--repeats", "2", "--threads", "1"]
    files = ["--json", str(output), "--plot", str(plot), "--artifact", str(artifact)]
    assert benchmark.main(["--config", str(tmp_path / "c.json"), *options, *files]) == 0
    content: dict[str, Any] = json.loads(output.read_text())
    names = ["PyTorch c (fresh weights)", "ONNX Runtime small.onnx"]
    assert list(content["subjects"]) == names
    assert content["subjects"][names[1]]["threads"] == 1
    wanted = {(name, *axis) for name in names for axis in (("batch", 1), ("batch", 2), ("length", 1), ("length", 10))}
    assert {(row["subject"], row["against"], row["value"]) for row in content["latencies"]} == wanted
    assert all(row["ms"] > 0 for row in content["latencies"])
    assert content["parameters"] == parameters(small_model())
    printed = capsys.readouterr().out
    assert "GFLOPs" in printed
    assert all(printed.count(name) == 2 for name in names)
    with Image.open(plot) as drawn:
        assert drawn.format == "PNG"


def test_an_artifact_alone(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--artifact", str(artifact), "--batch", "1", "--length", "2", "--repeats", "1"]) == 0
    printed = capsys.readouterr().out
    assert "PyTorch" not in printed
    assert "parameters" not in printed


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--artifact", "none.onnx"], "no artifact none.onnx"),
        (["--model", "nope"], "unknown model"),
        (["--weights", "x.pt"], "x.pt"),
    ],
)
def test_wrong_calls_are_one_line(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(options) == 2
    error = capsys.readouterr().err
    assert error.startswith("parseq-benchmark: ")
    assert told in error
