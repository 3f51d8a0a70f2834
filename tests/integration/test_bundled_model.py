"""The model that comes with the project: weights, artifact, samples and server belong together and read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import model
from artifact.allowed import entries_of
from artifact.download import file_sha256
from artifact.files import BUNDLED_MODEL
from artifact.fit import fit
from artifact.text import text_of
from model.checkpoints.loading import weights_path
from model.recognisers.registry import named_config
from reading.readers.checkpoint import read_batches
from service.config import BUNDLED_ARTIFACT
from service.engine.runs import run_with_checked
from service.engine.types import Wanted
from service.sessions.artifact import load_artifact
from tests.fakes import PATIENCE_S, toy_settings
from tests.images import encode
from tests.integration.server import ROOT, running

SAMPLES = {"bakery": "Bakery", "harbour": "HARBOUR", "platform": "Platform", "price": "$12.50"}


def sample(name: str) -> Path:
    return ROOT / "docs" / "samples" / f"{name}.png"


def test_the_artifact_was_exported_from_the_weights_beside_it() -> None:
    metadata = load_artifact(toy_settings()).metadata
    config = named_config(BUNDLED_MODEL)
    assert metadata.weights_sha256 == file_sha256(weights_path(BUNDLED_MODEL))
    assert (metadata.model_name, metadata.charset) == (BUNDLED_MODEL, config.charset_train)
    assert (metadata.image_height, metadata.image_width) == config.img_size


def test_pytorch_and_the_artifact_read_the_samples_alike() -> None:
    network = model.load(BUNDLED_MODEL, pretrained=True)
    pixels = np.stack([fit(Image.open(sample(name)), *network.config.img_size) for name in SAMPLES])
    [readings] = read_batches(network, pixels)
    assert [reading.text for reading in readings] == list(SAMPLES.values())
    token_ids, confidences = load_artifact(toy_settings()).session.run(pixels)
    for ids, row, reading in zip(token_ids.tolist(), confidences, readings, strict=True):
        length = len(reading.text)
        assert "".join(network.config.charset_train[token - 1] for token in ids[:length]) == reading.text
        assert ids[length] == 0
        # The bundled artifact computes in 8-bit integers.
        assert float(np.prod(row[: length + 1])) == pytest.approx(reading.confidence, abs=0.05)


def page_of_samples(degrees: float) -> tuple[bytes, list[dict[str, Any]]]:
    """A page with all samples on it, turned, and where they are."""
    page, regions = Image.new("RGB", (700, 700), "white"), []
    turn = math.radians(degrees)
    for index, name in enumerate(SAMPLES):
        with Image.open(sample(name)) as crop:
            left, top = 180, 150 + 110 * index
            page.paste(crop, (left, top))
            right, bottom = left + crop.width, top + crop.height
        around = [(x - 350, y - 350) for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))]
        cos, sin = math.cos(turn), math.sin(turn)
        points = [[350 + x * cos - y * sin, 350 + x * sin + y * cos] for x, y in around]
        regions.append({"id": name, "points": points})
    turned = page.rotate(-degrees, Image.Resampling.BICUBIC, fillcolor="white")
    return encode(turned, "PNG"), regions


def test_the_server_reads_the_samples_on_a_page_however_it_is_turned(tmp_path: Path) -> None:
    with running(BUNDLED_ARTIFACT, tmp_path / "log") as server:
        for degrees in (0, 10, 90, 180, 217):
            page, regions = page_of_samples(degrees)
            files = {"file": ("page.png", page), "regions": (None, json.dumps(regions))}
            results = httpx.post(f"{server.url}/v1/regions", files=files, timeout=PATIENCE_S).json()["results"]
            assert {result["id"]: result["text"] for result in results} == SAMPLES, degrees


def test_the_server_reads_the_samples_without_being_told_of_a_model(tmp_path: Path) -> None:
    with running(BUNDLED_ARTIFACT, tmp_path / "log") as server:
        for name, text in SAMPLES.items():
            with sample(name).open("rb") as file:
                answer = httpx.post(f"{server.url}/v1/recognize", files={"file": file}).json()
            assert (answer["id"], answer["text"]) == (f"{name}.png", text)


def test_the_artifact_gives_alternatives_and_can_be_told_what_to_read() -> None:
    loaded = load_artifact(toy_settings())
    assert (loaded.metadata.top_count, loaded.metadata.has_allowed) == (5, True)
    digits = entries_of("digits", loaded.metadata.vocabulary)
    crop = fit(Image.open(sample("price")), loaded.metadata.image_height, loaded.metadata.image_width)
    outputs = run_with_checked(loaded.session, [crop, crop], Wanted(np.stack([digits, ~digits | digits]), top=True))
    readings = [
        text_of(ids, confidences, loaded.metadata.vocabulary)
        for ids, confidences in zip(outputs.token_ids.tolist(), outputs.confidences.tolist(), strict=True)
    ]
    assert readings[0].text.isdigit()
    assert readings[1].text == SAMPLES["price"]
