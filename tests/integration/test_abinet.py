"""ABINet by the commands: exported from its golden and served, trained in two phases, resumed, fine-tuned, scored, measured."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from artifact.metadata import ArtifactMetadata
from artifact.session import open_cpu_session
from export.__main__ import main as export
from export.gate import gate
from model.checkpoints.loading import load, read_weights, save_weights
from model.recognisers.abinet.config import ABINetConfig
from model.recognisers.registry import named_config
from model.training.train import main as train
from model.training.train import network_config, parse_args
from reading.benchmark import main as benchmark
from reading.evaluate import main as evaluate
from service.core.runtime import Runtime
from service.http.dialects.v1_schemas import ModelList, Recognition
from service.sessions.artifact import load_artifact
from tests.archives import write_lmdb
from tests.fakes import toy_settings, with_client
from tests.golden.goldens import COMPACT, arrays, description, network
from tests.small_abinet import small_abinet
from tests.training_runs import whole_and_resumed, words

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]

TINY: dict[str, Any] = {
    "recogniser": "abinet",
    "charset_train": "ab",
    "max_label_length": 5,
    "d_model": 32,
    "nhead": 2,
    "d_inner": 32,
    "v_num_layers": 1,
    "l_num_layers": 1,
}
ROWS = {"a": slice(0, 16), "b": slice(16, 32)}
"""Where a character is white."""
SWITCH = 2
"""Of five steps so many train the parts apart."""


def png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_word(text: str) -> bytes:
    """A PNG file of a text: black, an `a` white above, a `b` white below; dim noise over all."""
    pixels = np.random.default_rng(list(text.encode())).integers(0, 40, (32, 128, 3)).astype(np.uint8)
    for index, character in enumerate(text):
        pixels[ROWS[character], 20 * index + 4 : 20 * index + 20] += 200
    return png(pixels)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [f"{number:b}".replace("1", "a").replace("0", "b") for number in range(1, 32)]
    return write_lmdb(tmp_path_factory.mktemp("data") / "words", [(write_word(text), text) for text in texts])


def options(folder: Path, archive: Path, **changes: Any) -> dict[str, Any]:
    (folder / "tiny.json").write_text(json.dumps(TINY))
    return {
        "--config": folder / "tiny.json",
        "--source": archive,
        "--validation": archive,
        "--output": folder / "run",
        "--batch-size": 6,
        "--steps": 9,
        "--warmup-steps": 1,
        "--validate-every": 100,
        "--augment": "none",
        "--threads": 1,
        "--trainer.enable_progress_bar": "false",
        **changes,
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network that decides without hesitating, whatever it is that it reads."""
    decided = small_abinet(gain=0.6, charset_train="ab", max_label_length=5)
    decided.alignment.cls.weight.data.mul_(5)
    path = tmp_path_factory.mktemp("made-up") / "w.safetensors"
    save_weights(decided, path)
    return path


def scores(archive: Path, table: Path, *model: str) -> tuple[str, float, float]:
    """Crops, and how near the readings are to the labels and how sure."""
    assert evaluate(["--data", str(archive), "--charset", "model", "--threads", "1", "--csv", str(table), *model]) == 0
    with table.open() as file:
        row = next(csv.DictReader(file))
    return row["crops"], float(row["one_minus_ned"]), float(row["confidence"])


@pytest.mark.usefixtures("small_gate", "few_batches")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_it_passes_the_gate_in_every_precision(
    precision: str, weights: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "AGREEMENT_CROPS", 16)
    monkeypatch.setattr("export.gate.agreement.IN_COMPANY", 8)
    path = tmp_path / "tiny.onnx"
    more = {"fp32": ["--iterations", "2"], "fp16": ["--float32-features"], "int8": ["--calibration", str(archive)]}[precision]
    assert export(["--weights", str(weights), "--output", str(path), "--precision", precision, *more]) == 0
    metadata = ArtifactMetadata.from_map(open_cpu_session(path).get_modelmeta().custom_metadata_map)
    assert (metadata.architecture, metadata.decode_mode, metadata.precision) == ("abinet", "nar", precision)
    assert metadata.refine_iters == (1 if precision == "fp32" else 2)
    if precision == "fp16":
        found = [
            scores(archive, tmp_path / "s.csv", *model) for model in (["--artifact", str(path)], ["--weights", str(weights)])
        ]
        assert found[0] == (found[1][0], *(pytest.approx(value, abs=0.5) for value in found[1][1:]))
        assert found[0][0] == "31"


@pytest.mark.usefixtures("small_gate")
@pytest.mark.parametrize("name", ["abinet"])
def test_the_golden_is_exported_by_its_config_and_served(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a network as wide as the published one each crop takes a while.
    monkeypatch.setattr(gate, "check_parity", partial(gate.check_parity, batch_sizes=(4,)))
    model, about = network(name), description(name)
    torch.save({f"model.{key}": value for key, value in model.state_dict().items()}, tmp_path / "w.pt")
    path = tmp_path / "golden.onnx"
    config = ["--config", str(COMPACT / f"{name}.json"), "--weights", str(tmp_path / "w.pt")]
    assert export([*config, "--output", str(path)]) == 0
    files = [png(pixels) for pixels in arrays(name)["input_u8"]]
    settings = toy_settings(artifact=path)

    async def ask(client: httpx.AsyncClient) -> tuple[httpx.Response, list[httpx.Response]]:
        answers = [await client.post("/v1/recognize?characters=true", content=file) for file in files]
        return await client.get("/v1/models"), answers

    models, answers = with_client(Runtime(settings, load_artifact(settings)), ask)
    [served] = ModelList.model_validate_json(models.content).models
    assert (served.max_label_length, served.decode_mode) == (25, "nar")
    expected = about["readings"]["default"]
    for answer, text, confidence in zip(answers, expected["strings"], expected["confidence"], strict=True):
        found = Recognition.model_validate_json(answer.content)
        assert found.text == text
        assert found.confidence == pytest.approx(confidence, rel=1e-2, abs=1e-9)
        assert found.characters is not None
        assert [item.char for item in found.characters] == list(text)


def state(run: Path) -> dict[str, Tensor]:
    return read_weights(run / "tiny.safetensors")[0]


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_goes_on_exactly_before_at_and_after_the_change_of_phases(archive: Path, tmp_path: Path) -> None:
    steps = {"--steps": 5, "--checkpoint-every": 1, "--batch-size": 2, "--trainer.accumulate_grad_batches": 2}
    stops = (SWITCH - 1, SWITCH, SWITCH + 1)
    whole, *parts = whole_and_resumed(options(tmp_path, archive, **steps), tmp_path / "run", *stops)
    for stop, part in zip(stops, parts, strict=True):
        assert equal(state(whole), state(part)), stop


def test_more_characters_and_longer_labels(
    weights: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = options(tmp_path, archive, **{"--weights": weights, "--add-characters": "cdé", "--max-label-length": 9, "--steps": 2})
    del run["--config"]
    assert train(words(run)) == 0
    told = capsys.readouterr().err
    assert "2 characters keep their rows of the embedding and the head; 3 new ones begin at random: 'cdé'" in told
    tuned = load(weights=tmp_path / "run" / "weights.safetensors")
    assert isinstance(tuned.config, ABINetConfig)
    assert (tuned.config.charset_train, tuned.config.max_label_length) == ("abcdé", 9)


def test_it_is_measured(weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.json"
    run = ["--batch", "1", "--length", "1", "5", "--repeats", "1", "--threads", "1", "--json", str(output)]
    assert benchmark(["--weights", str(weights), *run]) == 0
    content = json.loads(output.read_text())
    assert [cost["what"] for cost in content["flops"]] == ["vision", "1 iteration", "3 iterations"]
    vision, once, thrice = (cost["gflops"] for cost in content["flops"])
    # Each iteration costs the same.
    assert thrice - vision == pytest.approx(3 * (once - vision), rel=1e-6)
    assert content["parameters"] == sum(values.numel() for values in load(weights=weights).parameters())


def test_the_language_part_alone(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = options(tmp_path, archive, **{"--lm-only": True, "--steps": 2})
    assert train(words(run)) == 0
    written = load(weights=tmp_path / "run" / "tiny.safetensors")
    again = options(tmp_path, archive, **{"--weights": tmp_path / "run" / "tiny.safetensors", "--steps": 1, "--lr": 0})
    assert train(words({**again, "--output": tmp_path / "again", "--language-lr": 0, "--weight-decay": 0})) == 0
    begun = load(weights=tmp_path / "again" / "tiny.safetensors")
    for name, values in written.language.named_parameters():
        assert torch.equal(begun.language.get_parameter(name), values), name
    capsys.readouterr()
    assert train(words({**run, "--output": tmp_path / "x", "--apart-fraction": 2})) == 2
    assert "--apart-fraction must be between 0 and 1, not 2.0" in capsys.readouterr().err
    assert train(words({**run, "--output": tmp_path / "y", "--glyph-weight": 0})) == 2
    assert "--glyph-weight" in capsys.readouterr().err


def test_recipes_say_what_there_is() -> None:
    for recipe, model, own in (
        ("abinet", "abinet", {"language_lr": 3e-4}),
        ("abinet", "abinet-sv", {"language_lr": 3e-4}),
        ("abinet-lm", "abinet", {"lm_only": True}),
    ):
        args, _ = parse_args(["--run", recipe, "--model", model, "--output", "x"])
        assert (args.model, args.of_recogniser, args.beta2, args.scale_lr) == (model, own, 0.999, True)
        assert args.lr == (3.4e-4 if recipe == "abinet" else 3e-4)
        assert network_config(args, None) == named_config(model)


def test_options_of_others_are_one_line(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(["--weights", str(weights), "--output", str(tmp_path / "x.onnx"), "--decode", "ar"]) == 2
    assert "--decode is no option of 'abinet': leave it out" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        export(["--weights", str(weights), "--output", str(tmp_path / "x.onnx"), "--iterations", "0"])
    assert "must be a whole number from 1, not '0'" in capsys.readouterr().err
    mini = ["--model", "parseq-mini", "--output", str(tmp_path / "x.onnx")]
    assert export([*mini, "--iterations", "2"]) == 2
    assert "--iterations is no option of 'parseq': leave it out" in capsys.readouterr().err
