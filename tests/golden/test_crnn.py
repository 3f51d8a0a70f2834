"""CRNN against the reference implementation: logits, readings, losses, gradients, state dict, exported graph."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from export.graphs.builder import GraphBuilder
from export.graphs.crnn import GRAPH
from export.graphs.interface import NoOptions
from model.recognisers.crnn.config import NAMED, CRNNConfig
from model.recognisers.crnn.network import CRNN
from model.recognisers.crnn.training import CRNNTraining
from tests.export_models import run, serialised
from tests.golden.goldens import arrays, description, images, network
from tests.small_recognisers import FIRST_STEP, NOWHERE, text_of_row

NAMES = ("crnn", "crnn-leaky")
TOLERANCE = 1e-3
"""With another version of PyTorch the reference itself is 6e-5 beside its stored logits."""


@pytest.mark.parametrize("max_length", [None, 7])
@pytest.mark.parametrize("name", NAMES)
def test_logits_and_readings(name: str, max_length: int | None) -> None:
    with torch.inference_mode():
        logits = network(name)(images(name), max_length)
    torch.testing.assert_close(logits.numpy(), arrays(name)["logits"], atol=TOLERANCE, rtol=0)
    texts, probabilities = network(name).decode(logits)
    expected = description(name)["readings"]
    assert texts == expected["strings"]
    assert [float(values.double().prod()) for values in probabilities] == pytest.approx(expected["confidence"], rel=1e-2, abs=0)


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients(name: str) -> None:
    model = copy.deepcopy(network(name))
    validation, step = description(name)["validation"], description(name)["train_step"]
    loss, _ = CRNNTraining(model).loss(images(name), validation["labels"], NOWHERE, FIRST_STEP)
    assert loss.item() == pytest.approx(validation["loss"], rel=1e-5)
    model.train()
    loss, logged = CRNNTraining(model).loss(images(name), step["labels"], NOWHERE, FIRST_STEP)
    assert loss.item() == logged["loss"].item() == pytest.approx(step["loss"], rel=1e-5)
    loss.backward()
    norms = {f"model.{key}": parameter.grad.norm().item() for key, parameter in model.named_parameters()}
    assert norms == pytest.approx(step["grad_norms"], rel=1e-3)


def test_state_dict_of_the_released_network() -> None:
    with torch.device("meta"):
        model = CRNN(NAMED["crnn"])
    assert {f"model.{key}": list(value.shape) for key, value in model.state_dict().items()} == description("crnn")[
        "state_shapes"
    ]
    assert [len(model.state_dict()), sum(values.numel() for values in model.parameters())] == [46, 8_360_927]
    assert CRNNConfig.from_mapping(description("crnn")["system_args"]) == NAMED["crnn"]
    leaky = replace(NAMED["crnn"], hidden_size=48, leaky_relu=True)
    assert CRNNConfig.from_mapping(description("crnn-leaky")["system_args"]) == leaky


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_reads_as_the_reference(name: str) -> None:
    graph = GraphBuilder()
    GRAPH.write(graph, network(name), NoOptions())
    expected = description(name)["readings"]
    for batch_size in (1, 4):
        rows = zip(*run(serialised(graph), arrays(name)["input_u8"], batch_size), strict=True)
        readings = [text_of_row(row, network(name).config.charset_train) for row in rows]
        assert [reading.text for reading in readings] == expected["strings"]
        assert [reading.confidence for reading in readings] == pytest.approx(expected["confidence"], rel=1e-2, abs=0)
