"""A recogniser that only this test knows is trained, exported, served, scored and measured by the commands that there are."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from artifact.metadata import ArtifactMetadata
from artifact.session import open_cpu_session
from export.__main__ import main as export
from model.checkpoints.loading import load
from model.training.train import main as train
from reading.benchmark import main as benchmark
from reading.evaluate import main as evaluate
from reading.read import main as read
from reading.readers.interface import Picture
from reading.readers.opening import open_reader
from reading.readers.options import ReaderOptions
from service.core.runtime import Runtime
from service.http.dialects.v1_schemas import ModelList, Recognition
from service.sessions.artifact import load_artifact
from tests.archives import write_lmdb
from tests.fakes import toy_settings, with_client
from tests.toy_graph import toy_exportable
from tests.toy_recogniser import ToyConfig
from tests.training_runs import words

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]

COLUMN_PX = ToyConfig().column_width
COLUMNS = ToyConfig().max_label_length
ROWS = {"a": slice(0, 16), "b": slice(16, 32)}
"""Where a character is white."""
WORDS = 64


def write_word(text: str, spread: np.random.Generator | None = None) -> bytes:
    """A PNG file of a text: black, an `a` white above, a `b` white below.

    Args:
        text: Its characters. Without `spread` neighbours must differ.
        spread: Draws where the first character begins and how wide each is, in columns of the network, a gap behind it; without
            it they stand close together, a column each.
    """
    pixels = np.zeros((32, 128, 3), np.uint8)
    left = 0 if spread is None else int(spread.integers(3))
    for character in text:
        width = 1 if spread is None else int(spread.integers(1, 3))
        pixels[ROWS[character], left * COLUMN_PX : (left + width) * COLUMN_PX] = 255
        left += width + (spread is not None)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    with toy_exportable():
        yield


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(["a", "b"], rng.integers(1, 5))) for _ in range(WORDS)]
    return write_lmdb(tmp_path_factory.mktemp("data") / "words", [(write_word(text, rng), text) for text in texts])


@pytest.fixture(scope="module")
def weights(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "toy"
    run = {
        "--model": "toy",
        "--source": archive,
        "--validation": archive,
        "--output": output,
        "--batch-size": 16,
        "--steps": 150,
        "--lr": 0.02,
        "--warmup-steps": 5,
        "--augment": "none",
        "--validate-every": 150,
        "--checkpoint-every": 150,
        "--threads": 1,
        "--trainer.enable_progress_bar": "false",
    }
    assert train(words(run)) == 0
    return output / "toy.safetensors"


def exported(weights: Path, path: Path, *options: str) -> Path:
    assert export(["--weights", str(weights), "--output", str(path), "--name", "columns", *options]) == 0
    return path


@pytest.fixture(scope="module")
def artifact(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(weights, tmp_path_factory.mktemp("artifact") / "toy.onnx")


@pytest.mark.usefixtures("few_batches")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_it_passes_the_gate_in_every_precision(
    precision: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = exported(weights, tmp_path / "toy.onnx", "--precision", precision)
    metadata = ArtifactMetadata.from_map(open_cpu_session(path).get_modelmeta().custom_metadata_map)
    assert (metadata.architecture, metadata.decode_mode, metadata.precision) == ("toy", "ctc", precision)
    assert (metadata.max_label_length, metadata.schema_version) == (COLUMNS, 2)
    assert f"up to {COLUMNS} long, ctc with 0 refinements, {precision}" in capsys.readouterr().out
    assert export(["inspect", str(path), "--no-timing"]) == 0


def test_it_is_served(weights: Path, artifact: Path) -> None:
    crops = ["", "a", "ba", "abba", "ab" * (COLUMNS // 2)]
    files = [write_word(text, None if len(text) == COLUMNS else np.random.default_rng(7)) for text in crops]
    reader = open_reader(ReaderOptions(weights=weights, device="cpu"))
    wanted = reader.read([Picture(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    assert [reading.text for reading in wanted] == crops
    settings = toy_settings(artifact=artifact)

    async def ask(client: httpx.AsyncClient) -> tuple[httpx.Response, list[httpx.Response]]:
        answers = [await client.post("/v1/recognize?characters=true", content=file) for file in files]
        return await client.get("/v1/models"), answers

    models, answers = with_client(Runtime(settings, load_artifact(settings)), ask)
    [model] = ModelList.model_validate_json(models.content).models
    assert (model.name, model.charset, model.max_label_length, model.decode_mode) == ("columns", "ab", COLUMNS, "ctc")
    for answer, reading in zip(answers, wanted, strict=True):
        found = Recognition.model_validate_json(answer.content)
        assert (found.text, found.model) == (reading.text, "columns")
        assert found.confidence == pytest.approx(reading.confidence, abs=1e-5)
        assert found.characters is not None
        assert [item.char for item in found.characters] == list(reading.text)
        # What is missing to the confidence is the blanks' share.
        assert np.prod([item.confidence for item in found.characters]) >= found.confidence - 1e-5


def scores(archive: Path, table: Path, *model: str) -> list[dict[str, Any]]:
    assert evaluate(["--data", str(archive), "--charset", "model", "--threads", "1", "--csv", str(table), *model]) == 0
    with table.open() as file:
        return list(csv.DictReader(file))


def test_it_is_scored_alike_as_checkpoint_and_as_artifact(weights: Path, artifact: Path, archive: Path, tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    rows = [scores(archive, table, *model) for model in (["--weights", str(weights)], ["--artifact", str(artifact)])]
    assert rows[0][0]["crops"] == str(WORDS)
    assert float(rows[0][0]["accuracy"]) > 95
    for row in (*rows[0], *rows[1]):
        row["confidence"] = pytest.approx(float(row["confidence"]), abs=1e-3)
        row["ece"] = pytest.approx(float(row["ece"]), abs=1e-3)
    assert rows[0] == rows[1]


def test_a_bare_state_dict_will_do(weights: Path, archive: Path, tmp_path: Path) -> None:
    state = {f"module.model.{name}": value for name, value in load(weights=weights).state_dict().items()}
    torch.save(state, tmp_path / "bare.pt")
    # Of a charset that has no standard: the one of the network with a name is of that size.
    artifact = exported(tmp_path / "bare.pt", tmp_path / "bare.onnx")
    models = [["--weights", str(tmp_path / "bare.pt")], ["--artifact", str(artifact)], ["--weights", str(weights)]]
    accuracies = [scores(archive, tmp_path / "scores.csv", *model)[0]["accuracy"] for model in models]
    assert len(set(accuracies)) == 1
    assert float(accuracies[0]) > 95


def test_it_is_read_with(weights: Path, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "word.png").write_bytes(write_word("abab"))
    for model in (["--weights", str(weights)], ["--artifact", str(artifact)]):
        capsys.readouterr()
        assert read([str(tmp_path / "word.png"), "--json", "--threads", "1", *model]) == 0
        assert json.loads(capsys.readouterr().out)["text"] == "abab"


def test_it_is_measured(weights: Path, artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.json"
    options = ["--batch", "1", "2", "--length", "1", str(COLUMNS), "--repeats", "1", "--threads", "1", "--json", str(output)]
    assert benchmark(["--weights", str(weights), "--artifact", str(artifact), *options]) == 0
    content = json.loads(output.read_text())
    wanted = {(against, value) for against, values in (("batch", (1, 2)), ("length", (1, COLUMNS))) for value in values}
    assert list(content["subjects"]) == ["PyTorch toy", "ONNX Runtime toy.onnx"]
    for subject in content["subjects"]:
        assert {(row["against"], row["value"]) for row in content["latencies"] if row["subject"] == subject} == wanted
    assert content["subjects"]["ONNX Runtime toy.onnx"]["decode"] == "ctc"
    network = load(weights=weights)
    assert content["parameters"] == sum(values.numel() for values in network.parameters())
    # Every column's product with the one matrix, two operations for each of its numbers.
    assert [cost["gflops"] * 1e9 for cost in content["flops"]] == pytest.approx([2 * COLUMNS * 3 * 3 * 32 * COLUMN_PX])


def test_options_of_others_are_one_line(
    weights: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in (["--decode", "ar"], ["--refine-iters", "1"]):
        assert evaluate(["--data", str(archive), "--weights", str(weights), *option]) == 2
        assert f"{option[0]} is no option of 'toy': leave it out" in capsys.readouterr().err
    assert export(["--weights", str(weights), "--output", str(tmp_path / "toy.onnx"), "--decode", "nar"]) == 2
    assert "--decode is no option of 'toy'" in capsys.readouterr().err
    run = ["--model", "toy", "--source", str(archive), "--validation", str(archive), "--output", str(tmp_path / "run")]
    assert train([*run, "--max-label-length", "5"]) == 2
    assert "max_label_length of a 'toy' follows from its other sizes: leave --max-label-length out" in capsys.readouterr().err
