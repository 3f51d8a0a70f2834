"""ABINet against the full golden set, where it lies beside the project."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export.graphs.abinet.graph import GRAPH, ABINetOptions
from export.graphs.builder import GraphBuilder
from model.recognisers.abinet.network import ABINet
from model.recognisers.parts.normalise import normalise
from model.recognisers.registry import named_config, recogniser_of
from tests.export_models import open_session, run_session, serialised
from tests.golden.goldens import FULL, description, fill_by_recipe, network

pytestmark = pytest.mark.shared
TOLERANCES = {"abinet": 1e-3, "abinet-sv": 0.02}
DOUBLE_PRECISION = 5e-4
"""So near is a network in float32 to the reference in float64, at the default size."""


@pytest.mark.parametrize("path", sorted(FULL.glob("abinet*/logits_*.npy")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_logits(path: Path) -> None:
    name, key = path.parent.name, path.stem.removeprefix("logits_")
    model = copy.copy(network(name))
    model.config = replace(model.config, iter_size=1 if key == "iter1" else model.config.iter_size)
    with torch.inference_mode():
        features, seen = model.vision(normalise(torch.from_numpy(np.load(path.parent / "input_u8.npy"))))
        language, aligned = model.iterate(features, seen)[-1]
    found = {"vision": seen, "language": language}.get(key, aligned)
    expected = np.load(path)
    np.testing.assert_allclose(found[:, : expected.shape[1]], expected, atol=TOLERANCES[name], rtol=0)


@pytest.mark.parametrize("name", TOLERANCES)
def test_weights_of_the_recipe(name: str) -> None:
    state = network(name).state_dict()
    checks = json.loads((FULL / name / "expected.json").read_text())["weight_checks"]
    # The norms' statistics were noted after a training step.
    stored = {key.removeprefix("model."): total for key, (total, _) in checks.items() if key.endswith((".weight", ".bias"))}
    assert len(stored) > 5
    found = {key: float(state[key].double().sum()) for key in stored}
    assert found == pytest.approx(stored, rel=1e-5, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOLERANCES)
def test_the_default_size_in_double_precision(name: str) -> None:
    folder = FULL / "float64" / f"{name}-full"
    about, expected = (json.loads((folder / f"{file}.json").read_text()) for file in ("config", "expected"))
    config = named_config(name)
    built = recogniser_of(config).build_network(config)
    model: ABINet = fill_by_recipe(built, "model.", about["recipe_seed"], about["recipe_opts"])
    assert {f"model.{key}": list(value.shape) for key, value in model.state_dict().items()} == expected["state_keys"]
    pixels, wanted = np.load(folder / "input_u8.npy"), np.load(folder / "logits_f64.npy")
    with torch.inference_mode():
        logits = model(normalise(torch.from_numpy(pixels)))
    np.testing.assert_allclose(logits.numpy(), wanted, atol=DOUBLE_PRECISION, rtol=0)
    texts, probabilities = model.decode(logits)
    assert texts == expected["strings"]
    confidences = [float(values.double().prod()) for values in probabilities]
    assert confidences == pytest.approx(expected["confidence"], rel=1e-2, abs=0)
    graph = GraphBuilder()
    GRAPH.write(graph, model, ABINetOptions(iterations=3), with_logits=True)
    exported = run_session(open_session(serialised(graph)), pixels, len(pixels))[2]
    np.testing.assert_allclose(exported, wanted, atol=DOUBLE_PRECISION, rtol=0)
    assert description(name)["default_size"]["n_params"] == expected["n_params"]
