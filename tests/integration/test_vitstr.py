"""ViTSTR by the commands: exported from its golden and served, trained, resumed, fine-tuned, scored."""

from __future__ import annotations

import csv
import io
import json
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
from model.checkpoints.loading import load, read_weights
from model.recognisers.vitstr.config import ViTSTRConfig
from model.training.train import main as train
from reading.evaluate import main as evaluate
from service.core.runtime import Runtime
from service.http.dialects.v1_schemas import ModelList, Recognition
from service.sessions.artifact import load_artifact
from tests.archives import write_lmdb
from tests.fakes import toy_settings, with_client
from tests.golden.goldens import COMPACT, arrays, description, network
from tests.training_runs import whole_and_resumed, words

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]

TINY: dict[str, Any] = {
    "recogniser": "vitstr",
    "charset_train": "ab",
    "max_label_length": 5,
    "patch_size": [16, 16],
    "embed_dim": 32,
    "num_heads": 2,
    "depth": 2,
    "mlp_ratio": 2,
}
"""Two rows of eight patches."""
ROWS = {"a": slice(0, 16), "b": slice(16, 32)}
"""Where a character is white."""


def write_word(text: str) -> bytes:
    """A PNG file of a text: black, for each character a patch that is white, an `a` above, a `b` below; dim noise over all."""
    pixels = np.random.default_rng(list(text.encode())).integers(0, 40, (32, 128, 3)).astype(np.uint8)
    for index, character in enumerate(text):
        pixels[ROWS[character], 16 * index : 16 * (index + 1)] += 200
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [f"{number:b}".replace("1", "a").replace("0", "b") for number in range(1, 32)]
    return write_lmdb(tmp_path_factory.mktemp("data") / "words", [(write_word(text), text) for text in texts * 2])


def options(folder: Path, archive: Path, **changes: Any) -> dict[str, Any]:
    (folder / "tiny.json").write_text(json.dumps(TINY))
    return {
        "--config": folder / "tiny.json",
        "--source": archive,
        "--validation": archive,
        "--output": folder / "run",
        "--batch-size": 31,
        "--steps": 6,
        "--augment": "none",
        "--threads": 1,
        "--trainer.enable_progress_bar": "false",
        **changes,
    }


@pytest.fixture(scope="module")
def weights(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    changes = {"--steps": 300, "--lr": 0.002, "--warmup-steps": 20, "--validate-every": 300, "--checkpoint-every": 300}
    assert train(words(options(folder, archive, **changes))) == 0
    return folder / "run" / "tiny.safetensors"


@pytest.mark.usefixtures("few_batches")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_was_trained_passes_the_gate_in_every_precision(
    precision: str, weights: Path, archive: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.onnx"
    more = ["--parity-data", str(archive)] if precision == "fp32" else []
    assert export(["--weights", str(weights), "--output", str(path), "--precision", precision, *more]) == 0
    metadata = ArtifactMetadata.from_map(open_cpu_session(path).get_modelmeta().custom_metadata_map)
    assert (metadata.architecture, metadata.decode_mode, metadata.precision) == ("vitstr", "nar", precision)
    assert (metadata.max_label_length, metadata.schema_version, metadata.early_exit) == (5, 2, False)
    for model in (["--artifact", str(path)], ["--weights", str(weights)]):
        assert scores(archive, tmp_path / "s.csv", *model)[0] == ("words", "62", "100.0")


def scores(archive: Path, table: Path, *model: str) -> list[tuple[str, str, str]]:
    assert evaluate(["--data", str(archive), "--charset", "model", "--threads", "1", "--csv", str(table), *model]) == 0
    with table.open() as file:
        return [(row["dataset"], row["crops"], row["accuracy"]) for row in csv.DictReader(file)]


@pytest.mark.usefixtures("small_gate", "few_batches")
def test_the_golden_is_exported_by_its_config_and_served(tmp_path: Path) -> None:
    model, about = network("vitstr"), description("vitstr")
    torch.save({f"model.{key}": value for key, value in model.state_dict().items()}, tmp_path / "w.pt")
    path = tmp_path / "vitstr.onnx"
    config = ["--config", str(COMPACT / "vitstr.json"), "--weights", str(tmp_path / "w.pt")]
    assert export([*config, "--output", str(path)]) == 0
    files = []
    for pixels in arrays("vitstr")["input_u8"]:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files.append(file.getvalue())
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
        assert found.confidence == pytest.approx(confidence, rel=1e-3, abs=1e-9)
        assert found.characters is not None
        assert [item.char for item in found.characters] == list(text)


def test_an_interrupted_run_ends_as_one_that_was_not(archive: Path, tmp_path: Path) -> None:
    run = options(tmp_path, archive, **{"--average": "swa", "--average-from": 0.5, "--checkpoint-every": 4})
    one, other = (read_weights(left / "tiny.safetensors")[0] for left in whole_and_resumed(run, tmp_path / "run", 4))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.usefixtures("small_gate", "few_batches")
def test_more_characters_and_longer_labels(
    weights: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = options(tmp_path, archive, **{"--weights": weights, "--add-characters": "cdé", "--max-label-length": 9, "--steps": 2})
    del run["--config"]
    assert train(words(run)) == 0
    told = capsys.readouterr().err
    assert "2 characters keep their rows of the embedding and the head; 3 new ones begin at random: 'cdé'" in told
    network = load(weights=tmp_path / "run" / "weights.safetensors")
    assert isinstance(network.config, ViTSTRConfig)
    assert (network.config.charset_train, network.config.max_label_length) == ("abcdé", 9)
    assert export(["--weights", str(tmp_path / "run" / "weights.safetensors"), "--output", str(tmp_path / "new.onnx")]) == 0
    # Sixteen patches: a text of sixteen has no place for its end.
    assert train(words({**run, "--output": tmp_path / "long", "--max-label-length": 16})) == 2
    assert "max_label_length 16 is too long" in capsys.readouterr().err
