"""TRBA and TRBC against the full golden set, where it lies beside the project: default sizes, and steps of rectification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.checkpoints.choose import choose_config
from model.recognisers.parts.normalise import normalise
from model.recognisers.registry import named_config, recogniser_of
from tests.golden.goldens import FULL, fill_by_recipe
from tests.small_recognisers import FIRST_STEP, NOWHERE

pytestmark = [pytest.mark.shared, pytest.mark.slow]
OLD = {"trba": 1e-3, "trbc": 4e-3}
"""Weights of a gain that makes 1e-3 of 1e-7."""


def read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def network(about: dict[str, Any], name: str) -> Any:
    """In evaluation mode, with the recipe's weights."""
    kind = recogniser_of(named_config(name))
    arguments = {key: value for key, value in about["system_args"].items() if key != "name"}
    built = kind.build_network(kind.config.from_mapping(arguments))
    return fill_by_recipe(built, "model.", about["recipe_seed"], about["recipe_opts"])


def logits_after_the_references_tokens(model: Any, pixels: NDArray[np.uint8], expected: NDArray[np.float64]) -> torch.Tensor:
    images = normalise(torch.from_numpy(pixels))
    with torch.inference_mode():
        if model.config.RECOGNISER == "trbc":
            logits: torch.Tensor = model(images)
            return logits
        begin = torch.full((len(expected), 1), model.tokenizer.bos_id)
        tokens = torch.cat([begin, torch.from_numpy(expected[:, :-1].argmax(-1))], 1)
        followed: torch.Tensor = model.Prediction.follow(model.columns(images), tokens)
        return followed


@pytest.mark.parametrize("name", ["trba", "trbc"])
def test_the_default_size(name: str) -> None:
    folder = FULL / "float64" / f"{name}-full"
    model, expected = network(read_json(folder / "config.json"), name), np.load(folder / "logits_f64.npy")
    assert model.config == named_config(name)
    logits = logits_after_the_references_tokens(model, np.load(folder / "input_u8.npy"), expected)
    np.testing.assert_allclose(logits.numpy(), expected, atol=5e-4)
    about = read_json(folder / "expected.json")
    if name == "trba":
        assert model.decode(logits)[0] == about["strings"]
    step = read_json(folder / "train_step_f64.json")
    model.train()
    images = normalise(torch.from_numpy(np.load(folder / "input_u8.npy")[: len(step["labels"])]))
    loss, _ = recogniser_of(model.config).build_training(model, {}).loss(images, step["labels"], NOWHERE, FIRST_STEP)
    assert loss.item() == pytest.approx(step["loss"], rel=1e-5)
    loss.backward()
    norms = {f"model.{key}": parameter.grad.norm().item() for key, parameter in model.named_parameters()}
    assert norms == pytest.approx(step["grad_norms"], rel=0.03)


@pytest.mark.parametrize("name", ["trba", "trbc"])
def test_weights_that_enlarge_rounding(name: str) -> None:
    about, expected = read_json(FULL / name / "config.json"), np.load(FULL / "float64" / name / "logits_f64.npy")
    logits = logits_after_the_references_tokens(network(about, name), np.load(FULL / name / "input_u8.npy"), expected)
    np.testing.assert_allclose(logits.numpy(), expected, atol=OLD[name])
    assert (logits.argmax(-1).numpy() == expected.argmax(-1)).all()


def test_rectification_step_by_step() -> None:
    folder = FULL / "trba"
    model = network(read_json(folder / "config.json"), "trba")
    images = normalise(torch.from_numpy(np.load(folder / "input_u8.npy")))
    rectification = model.Transformation
    assert np.array_equal(rectification.GridGenerator.P_hat[::97].numpy(), np.load(folder / "P_hat_rows_every_97.npy"))
    assert np.array_equal(rectification.GridGenerator.inv_delta_C.numpy(), np.load(folder / "inv_delta_C.npy"))
    with torch.inference_mode():
        points = rectification.LocalizationNetwork(images)
        np.testing.assert_allclose(points.numpy(), np.load(folder / "tps_control_points.npy"), atol=1e-5)
        grid = rectification.GridGenerator(points)[0].numpy()
        np.testing.assert_allclose(grid.reshape(-1), np.load(folder / "tps_grid_img0.npy").reshape(-1), atol=1e-4)
        rectified = rectification(images)[0].numpy()
        np.testing.assert_allclose(rectified.reshape(-1), np.load(folder / "tps_rectified_img0.npy").reshape(-1), atol=5e-3)


@pytest.mark.parametrize("name", ["crnn", "crnn-leaky", "trba", "trbc"])
def test_configuration_files_tell_the_recogniser(name: str) -> None:
    config = choose_config(None, FULL / name / "config.json")
    assert config is not None
    assert name.partition("-")[0] == config.RECOGNISER
    assert config.img_size == (32, 128)
