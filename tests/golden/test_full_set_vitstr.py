"""ViTSTR against the full golden set, where it lies beside the project."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.recognisers.parts.normalise import normalise
from tests.golden.goldens import FULL, TOLERANCE, network

pytestmark = pytest.mark.shared
FLOAT64 = FULL / "float64" / "vitstr-full"


@pytest.mark.parametrize(("file", "length"), [("logits_default", None), ("logits_max7", 7)])
def test_logits(file: str, length: int | None) -> None:
    pixels = torch.from_numpy(np.load(FULL / "vitstr" / "input_u8.npy"))
    with torch.inference_mode():
        logits = network("vitstr")(normalise(pixels), length)
    np.testing.assert_allclose(logits.numpy(), np.load(FULL / "vitstr" / f"{file}.npy"), atol=TOLERANCE, rtol=0)


def test_weights_of_the_recipe_are_the_stored_ones() -> None:
    stored = load_file(FULL / "vitstr" / "weights.safetensors")
    built = {f"model.{key}": value for key, value in network("vitstr").state_dict().items()}
    assert built.keys() == stored.keys()
    assert all(torch.equal(built[key], stored[key]) for key in stored)


def test_the_default_size_in_double_precision() -> None:
    pixels = torch.from_numpy(np.load(FLOAT64 / "input_u8.npy"))
    model = network("vitstr-full")
    with torch.inference_mode():
        logits = model(normalise(pixels))
    np.testing.assert_allclose(logits.numpy(), np.load(FLOAT64 / "logits_f64.npy"), atol=TOLERANCE, rtol=0)
    expected = json.loads((FLOAT64 / "expected.json").read_text(encoding="utf-8"))
    texts, probabilities = model.decode(logits)
    assert texts == expected["strings"]
    confidences = [float(values.double().prod()) for values in probabilities]
    assert confidences == pytest.approx(expected["confidence"], rel=1e-3, abs=0)
