"""`parseq-benchmark` in the small: counts by hand, fair turns, and what is written."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor, nn

from export.to_onnx import ExportOptions, build_artifact
from reading import benchmark
from reading.latency.cost import costs, parameters
from reading.latency.measure import Run, measure
from tests import export_models

# Each step of reading is counted by running it, slowly.
STEPS = 5
SIZES = {**export_models.SIZES, "max_label_length": STEPS - 1}
small_model = functools.partial(export_models.small_model, max_label_length=STEPS - 1)
small_vitstr = functools.partial(export_models.small_vitstr, max_label_length=STEPS - 1)


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
    steps, classes = STEPS, len(SIZES["charset_train"]) + 1
    macs += 2 * tokens * width**2 + 2 * width**2
    macs += steps * (4 * width**2 + 2 * (1 + tokens) * width + 2 * SIZES["dec_mlp_ratio"] * width**2 + width * classes)
    assert found["nar"] == pytest.approx(2 * macs, rel=1e-9)
    assert found["encoder"] < found["nar"] < found["ar"] < found["ar + 1 refinement"]
    assert all(values.requires_grad for values in network.parameters())


def test_activations_by_hand() -> None:
    found = {cost.what: cost.mactivations * 1e6 for cost in costs(small_model())}
    tokens, width, heads = 16, SIZES["embed_dim"], SIZES["enc_num_heads"]
    # Queries, keys, values, scores, what they are used for, the output, the two layers of the perceptron.
    block = tokens * width * (3 + 1 + 1 + SIZES["enc_mlp_ratio"] + 1) + heads * tokens**2
    assert found["encoder"] == tokens * width + SIZES["enc_depth"] * block
    [reading] = costs(small_vitstr(), all_ways=False)
    tokens = 17
    block = tokens * width * (3 + 1 + 1 + 2 + 1) + 4 * tokens**2
    assert reading.mactivations * 1e6 == 16 * width + 3 * block + STEPS * 37


def test_recurrent_layers_count() -> None:
    class Recurrent(nn.Module):
        config = small_model().config

        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(5, 7, batch_first=True, bidirectional=True)

        def forward(self, images: Tensor, _length: int | None = None) -> Tensor:
            output: Tensor = self.lstm(images.new_zeros(1, 9, 5))[0]
            return output

    [cost] = costs(Recurrent().eval(), all_ways=False)  # type: ignore[arg-type]
    assert cost.gflops * 1e9 == pytest.approx(2 * 2 * 9 * 4 * 7 * (5 + 7))


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
    options = ["--batch", "1", "2", "--length", "1", "4", "5", "--repeats", "2", "--threads", "1"]
    files = ["--json", str(output), "--plot", str(plot), "--artifact", str(artifact)]
    assert benchmark.main(["--config", str(tmp_path / "c.json"), *options, *files]) == 0
    content: dict[str, Any] = json.loads(output.read_text())
    names = ["PyTorch c (fresh weights)", "ONNX Runtime small.onnx"]
    assert list(content["subjects"]) == names
    assert content["subjects"][names[1]]["threads"] == 1
    wanted = {(name, *axis) for name in names for axis in (("batch", 1), ("batch", 2), ("length", 1), ("length", 4))}
    assert {(row["subject"], row["against"], row["value"]) for row in content["latencies"]} == wanted
    assert all(row["ms"] > 0 for row in content["latencies"])
    assert content["parameters"] == parameters(small_model())
    printed = capsys.readouterr().out
    assert "GFLOPs" in printed
    assert all(printed.count(name) == 2 for name in names)
    with Image.open(plot) as drawn:
        assert drawn.format == "PNG"


def few_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"small": small_model().config, "vitstr-small": small_vitstr().config}
    monkeypatch.setattr("model.recognisers.registry.named_configs", lambda: few)


@pytest.mark.parametrize("named", [["--model", "small", "--model", "vitstr-small"], ["--all"]])
def test_networks_side_by_side(
    named: list[str], artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_networks(monkeypatch)
    output = tmp_path / "b.json"
    options = ["--repeats", "1", "--threads", "1", "--json", str(output), "--artifact", str(artifact)]
    assert benchmark.main([*named, *options]) == 0
    content: dict[str, Any] = json.loads(output.read_text())
    names = [f"PyTorch {name} (fresh weights)" for name in ("small", "vitstr-small")]
    assert [network["name"] for network in content["networks"]] == names
    assert [network["parameters"] for network in content["networks"]] == [parameters(small_model()), parameters(small_vitstr())]
    for network, model in zip(content["networks"], (small_model(), small_vitstr()), strict=True):
        [cost] = network["flops"]
        assert cost["gflops"] == costs(model, all_ways=False)[0].gflops
    assert content["parameters"] is None
    # One crop each, unless asked for more.
    assert {(row["against"], row["value"]) for row in content["latencies"]} == {("batch", 1)}
    printed = capsys.readouterr().out.splitlines()
    assert "GFLOPs" in printed[1]
    assert [line.split("  ")[0] for line in printed[2:]] == [*names, "ONNX Runtime small.onnx"]
    assert printed[-1].split()[-5:-1] == ["-"] * 4


def test_several_networks_and_more_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few_networks(monkeypatch)
    assert benchmark.main(["--all", "--batch", "1", "2", "--length", "3", "4", "--repeats", "1", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"ms, batch 1 +ms, batch 2\n", printed)
    assert "against label length" in printed
    assert printed.count("PyTorch small") == 2


def test_a_network_named_twice_is_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few_networks(monkeypatch)
    options = ["--batch", "1", "--length", "1", "--repeats", "1", "--threads", "1"]
    assert benchmark.main(["--model", "small", "--model", "small", *options]) == 0
    assert "encoder" in capsys.readouterr().out


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
        (["--all", "--model", "parseq"], "give --all or --model"),
        (["--model", "parseq", "--model", "vitstr", "--weights", "x.pt"], "--weights is of one network"),
        (["--all", "--config", "x.json"], "--config is of one network"),
        (["--model", "vitstr", "--decode", "ar"], "--decode is no option of 'vitstr'"),
    ],
)
def test_wrong_calls_are_one_line(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(options) == 2
    error = capsys.readouterr().err
    assert error.startswith("parseq-benchmark: ")
    assert told in error
