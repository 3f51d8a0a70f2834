"""The full golden set, where it lies beside the project."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from model.recognisers.parts.normalise import normalise
from tests.golden.goldens import FULL, MODELS, TOLERANCE, decode_options, description, images, network

pytestmark = pytest.mark.shared
LOGITS = [path for name in MODELS for path in sorted((FULL / name).glob("logits_*.npy"))]
STEPS = [(name, index) for name in MODELS if (FULL / name / "train_step.json").is_file() for index in range(4)]
WEIGHTS = [name for name in MODELS if (FULL / name / "weights.safetensors").is_file()]
PICTURES = sorted((FULL / "preprocess").glob("*.npy"))


@pytest.mark.parametrize("path", LOGITS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_logits(path: Path) -> None:
    name = path.parent.name
    batch, options = decode_options(path.stem.removeprefix("logits_"), images(name))
    with torch.inference_mode():
        logits = network(name)(batch, **options)
    torch.testing.assert_close(logits.numpy(), np.load(path), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_the_recipe_are_the_stored_ones(name: str) -> None:
    stored = load_file(FULL / name / "weights.safetensors")
    built = network(name).state_dict()
    assert built.keys() == stored.keys()
    assert all(torch.equal(built[key], stored[key]) for key in stored)


@pytest.mark.parametrize(("name", "index"), STEPS)
def test_training_losses(name: str, index: int) -> None:
    step = json.loads((FULL / name / "train_step.json").read_text(encoding="utf-8"))[index]
    model = network(name)
    targets = model.tokenizer.encode(step["labels"])
    with torch.inference_mode():
        loss = model.permutation_loss(model.encode(images(name)), targets, torch.tensor(step["perms"]))
    assert loss.item() == pytest.approx(step["loss"], abs=1e-5)
    assert description(name)["system_args"]["dropout"] == 0.0


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_normalised_pictures(path: Path) -> None:
    expected = np.load(path)
    about = json.loads((path.parent / "expected.json").read_text(encoding="utf-8"))["images"][path.stem]
    channels_first = np.rint((expected * 0.5 + 0.5) * 255).astype(np.uint8)
    assert hashlib.sha256(channels_first.tobytes()).hexdigest() == about["u8_sha256"]
    pixels = channels_first.transpose(1, 2, 0).copy()
    assert np.array_equal(normalise(torch.from_numpy(pixels)[None])[0].numpy(), expected)


def test_pictures_of_224_pixels() -> None:
    pictures = sorted((FULL / "preprocess").glob("*_224x224_u8.png"))
    assert pictures
    about = json.loads((FULL / "preprocess" / "expected.json").read_text(encoding="utf-8"))["images"]
    for picture in pictures:
        pixels = np.asarray(Image.open(picture))
        expected = about[picture.stem.removesuffix("_u8")]
        assert hashlib.sha256(pixels.transpose(2, 0, 1).copy().tobytes()).hexdigest() == expected["u8_sha256"]
        assert float(normalise(torch.from_numpy(pixels.copy())[None]).double().mean()) == pytest.approx(
            expected["mean"], abs=1e-5
        )
