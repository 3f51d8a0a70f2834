"""TRBA and TRBC against the reference implementation, computed in float64: logits, readings, losses, gradients, state dicts.

Where the reference answers TRBA's begin or pad token, the answer here is another one. So the logits are compared with the
reference's tokens as what each step begins with, and readings up to such an answer.
"""

from __future__ import annotations

import copy
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch

from export.graphs.builder import GraphBuilder
from export.graphs.interface import NoOptions, graph_of
from model.recognisers.registry import named_config, recogniser_of
from tests.export_models import run, serialised
from tests.golden.goldens import arrays, description, images, network
from tests.small_recognisers import FIRST_STEP, NOWHERE, text_of_row

TOLERANCE = 1e-3
SIZES = {"trba": (253, 49_820_137), "trbc": (244, 48_874_727)}
"""Tensors and parameters."""


def first_unreadable(logits: np.ndarray[Any, Any], readable: int) -> int:
    """The first step whose best class cannot be an answer; all steps where there is none."""
    answered = logits.argmax(-1) >= readable
    return int(answered.argmax()) if answered.any() else len(answered)


def test_trba_logits_after_the_references_tokens() -> None:
    model, expected = network("trba-tame"), torch.from_numpy(arrays("trba-tame")["logits"])
    begin = torch.full((len(expected), 1), model.tokenizer.bos_id)
    with torch.inference_mode():
        columns = model.columns(images("trba-tame"))
        logits = model.Prediction.follow(columns, torch.cat([begin, expected[:, :-1].argmax(-1)], 1))
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


def test_trba_readings() -> None:
    model, expected = network("trba-tame"), arrays("trba-tame")["logits"]
    readable = model.Prediction.readable
    with torch.inference_mode():
        logits = model(images("trba-tame"))
    texts, probabilities = model.decode(logits)
    readings = description("trba-tame")["readings"]
    whole = 0
    for row, (wanted, text) in enumerate(zip(readings["strings"], texts, strict=True)):
        alike = first_unreadable(expected[row], readable) + 1
        np.testing.assert_allclose(logits[row, :alike], expected[row, :alike], atol=TOLERANCE)
        if alike > len(expected[row]):
            whole += 1
            assert text == wanted
            assert float(probabilities[row].double().prod()) == pytest.approx(readings["confidence"][row], rel=1e-2, abs=0)
        else:
            assert "[B]" in wanted or "[P]" in wanted
            assert text[: alike - 1] == wanted[: alike - 1]
            best = logits[row, alike - 1, :readable].argmax()
            assert text[alike - 1 : alike] == (model.config.charset_train[best - 1] if best else "")
    assert 0 < whole < len(texts)


def test_trbc_logits_and_readings() -> None:
    model, readings = network("trbc-tame"), description("trbc-tame")["readings"]
    for max_length in (None, 7):
        with torch.inference_mode():
            logits = model(images("trbc-tame"), max_length)
        torch.testing.assert_close(logits.numpy(), arrays("trbc-tame")["logits"], atol=TOLERANCE, rtol=0)
    texts, probabilities = model.decode(logits)
    assert texts == readings["strings"]
    # Less than the smallest normal float32.
    logs = [float(values.double().log().sum()) for values in probabilities]
    assert logs == pytest.approx(np.log(readings["confidence"]).tolist(), abs=1e-2)


@pytest.mark.parametrize("name", ["trba", "trbc"])
def test_losses_and_gradients(name: str) -> None:
    model, step = copy.deepcopy(network(f"{name}-tame")).train(), description(f"{name}-tame")["train_step"]
    training = recogniser_of(model.config).build_training(model, {})
    loss, logged = training.loss(images(f"{name}-tame"), step["labels"], NOWHERE, FIRST_STEP)
    assert loss.item() == logged["loss"].item() == pytest.approx(step["loss"], rel=1e-5)
    loss.backward()
    norms = {f"model.{key}": parameter.grad.norm().item() for key, parameter in model.named_parameters()}
    assert norms == pytest.approx(step["grad_norms"], rel=0.03)
    assert median(abs(norms[key] / norm - 1) for key, norm in step["grad_norms"].items()) < 2e-3


@pytest.mark.parametrize("name", ["trba", "trbc"])
def test_state_dict_of_the_default_size(name: str) -> None:
    config, expected = named_config(name), description(f"{name}-tame")["default_size"]
    with torch.device("meta"):
        model = recogniser_of(config).build_network(config)
    assert {f"model.{key}": list(value.shape) for key, value in model.state_dict().items()} == expected["state_shapes"]
    assert (len(model.state_dict()), sum(values.numel() for values in model.parameters())) == SIZES[name]


@pytest.mark.parametrize("name", ["trba", "trbc"])
def test_the_graph_reads_as_the_network(name: str) -> None:
    model, graph = network(f"{name}-tame"), GraphBuilder()
    graph_of(model).write(graph, model, NoOptions())
    pixels = arrays(f"{name}-tame")["input_u8"]
    with torch.inference_mode():
        texts, probabilities = model.decode(model(images(f"{name}-tame")))
    for batch_size in (1, 4):
        rows = zip(*run(serialised(graph), pixels, batch_size), strict=True)
        readings = [text_of_row(row, model.config.charset_train) for row in rows]
        assert [reading.text for reading in readings] == texts
        for reading, values in zip(readings, probabilities, strict=True):
            assert reading.character_confidences == pytest.approx(values[: len(reading.text)].tolist(), rel=1e-2)
