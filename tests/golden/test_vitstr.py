"""ViTSTR and its exported graph against the reference implementation: logits, readings, losses, gradients, state dict."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from export.graphs.builder import GraphBuilder
from export.graphs.interface import NoOptions
from export.graphs.vitstr import GRAPH
from model.distributed import ALONE
from model.recognisers.interface import Step
from model.recognisers.parts.token_loss import token_loss
from model.recognisers.registry import named_config, recogniser_of
from model.recognisers.vitstr.training import ViTSTRTraining
from tests.export_models import open_session, run_session, serialised
from tests.golden.goldens import TOLERANCE, arrays, description, images, network

NAMES = ("vitstr", "vitstr-full")


@pytest.mark.parametrize(("name", "key"), [("vitstr", "default"), ("vitstr", "max7"), ("vitstr-full", "default")])
def test_logits_and_readings(name: str, key: str) -> None:
    model = network(name)
    with torch.inference_mode():
        logits = model(images(name), 7 if key == "max7" else None)
    assert logits.shape[1] == (8 if key == "max7" else 26)
    expected = arrays(name)["logits_default"][:, : logits.shape[1]]
    torch.testing.assert_close(logits.numpy(), expected, atol=TOLERANCE, rtol=0)
    readings = description(name)["readings"][key]
    texts, probabilities = model.decode(logits)
    assert texts == readings["strings"]
    assert [float(values.prod()) for values in probabilities] == pytest.approx(readings["confidence"], rel=1e-3, abs=0)


def test_a_length_beyond_the_longest_gives_no_more_steps() -> None:
    with torch.inference_mode():
        assert network("vitstr")(images("vitstr"), 99).shape[1] == 26


def test_training_step() -> None:
    (step,) = description("vitstr")["train_steps"]
    model = copy.deepcopy(network("vitstr")).train()
    loss, logged = ViTSTRTraining(model).loss(
        images("vitstr"), step["labels"], torch.full((4, 25, 2), torch.nan), Step(0, 1, 0, 0, ALONE)
    )
    assert loss.item() == logged["loss"].item() == pytest.approx(step["loss"], abs=1e-5)
    loss.backward()
    norms = {f"model.{key}": value.grad.norm().item() for key, value in model.named_parameters()}
    assert norms == pytest.approx(step["grad_norms"], rel=1e-4, abs=1e-7)


def test_validation_loss() -> None:
    expected = description("vitstr")["validation_losses"]["val_loss"]
    model = network("vitstr")
    targets = model.tokenizer.encode(expected["labels"])[:, 1:]
    with torch.inference_mode():
        logits = model(images("vitstr"), targets.shape[1] - 1)
    assert list(logits.shape) == expected["logits_shape"]
    assert token_loss(logits, targets, model.tokenizer.pad_id).item() == pytest.approx(expected["loss"], abs=1e-5)


def test_company_does_not_change_an_answer() -> None:
    model, batch = network("vitstr"), images("vitstr")
    with torch.inference_mode():
        together = model(batch)
        apart = torch.cat([model(one[None]) for one in batch.flip(0)]).flip(0)
    torch.testing.assert_close(together, apart, atol=TOLERANCE, rtol=0)


def test_state_dict_of_the_released_architecture() -> None:
    expected: dict[str, Any] = description("vitstr-full")["state_shapes"]
    config = named_config("vitstr")
    with torch.device("meta"):
        model = recogniser_of(config).build_network(config)
    assert {f"model.{key}": list(value.shape) for key, value in model.state_dict().items()} == expected
    assert sum(parameter.numel() for parameter in model.parameters()) == description("vitstr-full")["n_params"] == 21_418_079


@pytest.mark.parametrize("name", NAMES)
def test_the_exported_graph(name: str) -> None:
    model, graph = network(name), GraphBuilder()
    GRAPH.write(graph, model, NoOptions(), with_logits=True)
    session = open_session(serialised(graph))
    pixels, expected = arrays(name)["input_u8"], arrays(name)["logits_default"]
    readings = description(name)["readings"]["default"]
    for batch_size in (1, 2, len(pixels)):
        token_ids, confidences, logits = run_session(session, pixels, batch_size)
        np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=0)
        for ids, values, text, confidence in zip(
            token_ids.tolist(), confidences, readings["strings"], readings["confidence"], strict=True
        ):
            length = ids.index(0) if 0 in ids else len(ids)
            assert "".join(model.config.charset_train[token - 1] for token in ids[:length]) == text
            assert float(values[: length + 1].astype(np.float64).prod()) == pytest.approx(confidence, rel=1e-3, abs=0)
