"""CRNN, TRBA and TRBC from training to serving, by the commands that there are."""

from __future__ import annotations

import ast
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from export.__main__ import main as export
from export.gate.crops import word_crops
from model.checkpoints.loading import load, save_weights
from model.recognisers.interface import Config
from model.recognisers.registry import RECOGNISER, recogniser_of
from model.training.train import main as train
from reading.benchmark import main as benchmark
from reading.evaluate import main as evaluate
from service.core.runtime import Runtime
from service.http.dialects.v1_schemas import ModelList, Recognition
from service.sessions.artifact import load_artifact
from tests.archives import write_lmdb
from tests.fakes import toy_settings, with_client
from tests.golden.goldens import arrays, description, network
from tests.small_recognisers import SMALL
from tests.training_runs import whole_and_resumed, words

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]
KINDS = pytest.mark.parametrize("kind", ["crnn", "trba", "trbc"])
GOLDENS = pytest.mark.parametrize("name", ["crnn-leaky", "trba-tame", "trbc-tame"])


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_words(folder: Path, config: Config, count: int, seed: int = 1) -> Path:
    """An LMDB of drawn words."""
    crops = word_crops(config.img_size, config.charset_train, config.max_label_length, count, seed)
    texts = [str(ast.literal_eval(crop.description.removeprefix("text ").rpartition(" of ")[0])) for crop in crops]
    return write_lmdb(folder, [(png(crop.pixels), text) for crop, text in zip(crops, texts, strict=True)])


def write_config(path: Path, config: Config) -> Path:
    path.write_text(json.dumps({RECOGNISER: config.RECOGNISER, **config.to_dict()}))
    return path


def run_options(folder: Path, config: Config) -> dict[str, Any]:
    """Of a run of a few steps on drawn words in `folder`."""
    archive = write_words(folder / "words", config, 24)
    return {
        "--config": write_config(folder / "small.json", config),
        "--source": archive,
        "--validation": archive,
        "--batch-size": 6,
        "--steps": 4,
        "--lr": 1e-3,
        "--warmup-steps": 1,
        # Each writes a checkpoint, of tens of megabytes.
        "--validate-every": 4,
        "--checkpoint-every": 4,
        "--threads": 1,
        "--trainer.enable_progress_bar": "false",
    }


# A run.


# TRBC has the columns of the one and the network of the other.
@pytest.mark.parametrize("kind", ["crnn", "trba"])
def test_a_run_of_mixed_precision_that_averages_is_resumed_exactly_finetuned_and_scored(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = run_options(tmp_path, SMALL[kind])
    mixed = {"--checkpoint-every": 2, "--average": "swa", "--average-from": 0.25, "--trainer.precision": "bf16-mixed"}
    whole, parts = whole_and_resumed({**options, **mixed}, tmp_path / "run", 2)
    states = [load(weights=output / "last.ckpt").state_dict() for output in (whole, parts)]
    assert all(torch.isfinite(value).all() and torch.equal(value, states[1][name]) for name, value in states[0].items())

    capsys.readouterr()
    more = {**options, "--output": tmp_path / "more", "--weights": whole / "small.safetensors", "--add-characters": "ÄÖü"}
    del more["--config"]
    assert train(words({**more, "--steps": 1})) == 0
    assert "36 characters keep their rows of the embedding and the head; 3 new ones begin at random: 'ÄÖü'" in (
        capsys.readouterr().err
    )
    finetuned = load(weights=tmp_path / "more" / "last.ckpt")
    assert finetuned.config == replace(SMALL[kind], charset_train=SMALL[kind].charset_train + "ÄÖü")  # type: ignore[type-var]

    table = tmp_path / "scores.csv"
    scored = ["--data", str(tmp_path / "words"), "--charset", "model", "--threads", "1", "--csv", str(table)]
    assert evaluate([*scored, "--weights", str(whole / "last.ckpt")]) == 0
    with table.open() as file:
        assert {row["crops"] for row in csv.DictReader(file)} == {"24"}


@KINDS
def test_options_of_parseq_are_told(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = recogniser_of(SMALL[kind]).build_network(SMALL[kind])
    save_weights(model, tmp_path / "w.safetensors")
    archive = write_words(tmp_path / "words", SMALL[kind], 4)
    for option in (["--decode", "ar"], ["--refine-iters", "1"]):
        assert evaluate(["--data", str(archive), "--weights", str(tmp_path / "w.safetensors"), *option]) == 2
        assert f"{option[0]} is no option of '{kind}': leave it out" in capsys.readouterr().err


# The goldens as artifacts.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("goldens")


def golden_artifact(name: str, folder: Path) -> Path:
    """Exported as a state dict of the reference would be, under the name of its class."""
    path = folder / f"{name}.onnx"
    if path.is_file():
        return path
    about = description(name)
    (folder / f"{name}.json").write_text(json.dumps({"cls": about["cls"], "system_args": about["system_args"]}))
    state = {f"model.{key}": value for key, value in network(name).state_dict().items()}
    torch.save(state, folder / f"{name}.pt")
    arguments = ["--config", str(folder / f"{name}.json"), "--weights", str(folder / f"{name}.pt"), "--name", name]
    assert export([*arguments, "--output", str(path)]) == 0
    return path


@GOLDENS
@pytest.mark.usefixtures("small_gate", "few_batches")
def test_the_goldens_over_http(name: str, folder: Path) -> None:
    pixels = arrays(name)["input_u8"]
    model, settings = network(name), toy_settings(artifact=golden_artifact(name, folder))
    columns = name != "trba-tame"

    async def ask(client: httpx.AsyncClient) -> tuple[httpx.Response, list[httpx.Response]]:
        answers = [await client.post("/v1/recognize?characters=true", content=png(crop)) for crop in pixels]
        return await client.get("/v1/models"), answers

    models, answers = with_client(Runtime(settings, load_artifact(settings)), ask)
    [told] = ModelList.model_validate_json(models.content).models
    wanted = (name, 33, "ctc") if columns else (name, 25, "ar")
    assert (told.name, told.max_label_length, told.decode_mode) == wanted
    with torch.inference_mode():
        texts, probabilities = model.decode(model(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1))
    if columns:
        assert texts == description(name)["readings"]["strings"]
    for answer, text, values in zip(answers, texts, probabilities, strict=True):
        found = Recognition.model_validate_json(answer.content)
        assert found.text == text
        assert found.confidence == pytest.approx(float(values.prod()), abs=1e-5)
        assert found.characters is not None
        assert [item.char for item in found.characters] == list(text)
        assert [item.confidence for item in found.characters] == pytest.approx(values[: len(text)].tolist(), abs=1e-4)


@pytest.mark.parametrize("name", ["crnn-leaky", "trba-tame"])
@pytest.mark.usefixtures("small_gate", "few_batches")
def test_the_goldens_are_measured(name: str, folder: Path) -> None:
    artifact, output = golden_artifact(name, folder), folder / f"{name}-benchmark.json"
    measured = ["--batch", "2", "--length", "3", "--repeats", "1", "--threads", "1", "--json", str(output)]
    which = ["--config", str(folder / f"{name}.json"), "--weights", str(folder / f"{name}.pt"), "--artifact", str(artifact)]
    assert benchmark([*which, *measured]) == 0
    content = json.loads(output.read_text())
    model = network(name)
    assert content["parameters"] == sum(values.numel() for values in model.parameters())
    counted = {cost["what"]: cost["gflops"] * 1e9 for cost in content["flops"]}
    assert list(counted) == (["columns", "reading"] if name == "trba-tame" else ["reading"])
    # The recurrent layers are counted too.
    recurrent = [module for module in model.modules() if isinstance(module, torch.nn.LSTM)]
    theirs = sum(2 * 33 * 2 * each.weight_ih_l0.shape[0] * (each.input_size + each.hidden_size) for each in recurrent)
    assert counted["reading"] > convolutions(model) + theirs
    assert {row["subject"] for row in content["latencies"]} == {*content["subjects"]}


def convolutions(model: Any) -> float:
    """Operations of all convolutions for a crop, two for a multiply-add."""
    found = 0.0

    def count(module: torch.nn.Conv2d, _inputs: object, output: torch.Tensor) -> None:
        nonlocal found
        found += 2 * module.weight[0].numel() * output[0].numel()

    hooks = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    with torch.inference_mode():
        model(torch.zeros(1, 3, *model.config.img_size))
    for hook in hooks:
        hook.remove()
    return found
