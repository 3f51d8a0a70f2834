"""The network against the reference implementation: logits, readings, losses, gradients, state dict."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from model.recognisers.parseq.config import NAMED
from model.recognisers.parseq.network import PARSeq
from tests.golden.goldens import MODELS, TOLERANCE, arrays, decode_options, description, images, network

LOGITS = [(name, key.removeprefix("logits_")) for name in MODELS for key in arrays(name) if key.startswith("logits_")]
STEPS = [(name, index) for name in MODELS for index in range(len(description(name).get("train_steps", [])))]
VALIDATION = [(name, key) for name in MODELS for key in description(name).get("validation_losses", {})]


@pytest.mark.parametrize(("name", "key"), LOGITS)
def test_logits_and_readings(name: str, key: str) -> None:
    batch, options = decode_options(key, images(name))
    with torch.inference_mode():
        logits = network(name)(batch, **options)
    torch.testing.assert_close(logits.numpy(), arrays(name)[f"logits_{key}"], atol=TOLERANCE, rtol=0)
    expected = description(name)["readings"][key]
    texts, probabilities = network(name).tokenizer.decode(logits.softmax(-1))
    assert texts == expected["strings"]
    confidences = [float(values.prod()) for values in probabilities]
    assert confidences == pytest.approx(expected["confidence"], rel=1e-3, abs=1e-12)


@pytest.mark.parametrize(("name", "index"), STEPS)
def test_training_step(name: str, index: int) -> None:
    step = description(name)["train_steps"][index]
    model = copy.deepcopy(network(name)).train()
    targets = model.tokenizer.encode(step["labels"])
    assert targets.tolist() == step["targets"]
    loss = model.permutation_loss(model.encode(images(name)), targets, torch.tensor(step["perms"]))
    assert loss.item() == pytest.approx(step["loss"], abs=1e-5)
    loss.backward()
    norms = {key: parameter.grad.norm().item() for key, parameter in model.named_parameters() if parameter.grad is not None}
    assert norms == pytest.approx(step["grad_norms"], rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(("name", "key"), VALIDATION)
def test_validation_loss(name: str, key: str) -> None:
    expected = description(name)["validation_losses"][key]
    model = network(name)
    targets = model.tokenizer.encode(expected["labels"])[:, 1:]
    _, options = decode_options(key.removeprefix("val_loss_"), images(name))
    with torch.inference_mode():
        logits = model(images(name), max_length=targets.shape[1] - 1, **options)
    assert list(logits.shape) == expected["logits_shape"]
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=model.tokenizer.pad_id)
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-4)


@pytest.mark.parametrize(("golden", "name"), [("parseq-full", "parseq"), ("parseq-tiny-full", "parseq-tiny")])
def test_state_dict_of_released_architectures(golden: str, name: str) -> None:
    expected: dict[str, Any] = description(golden)["state_shapes"]
    model = PARSeq(NAMED[name])
    assert {f"model.{key}": list(value.shape) for key, value in model.state_dict().items()} == expected
    assert sum(parameter.numel() for parameter in model.parameters()) == description(golden)["n_params"]


def test_two_decoder_layers_refine_after_an_early_end() -> None:
    # The reference raises here: it keeps the content mask at full size when decoding has stopped early. The answer must be that
    # of decoding all steps, whose superfluous ones are hidden behind the end token.
    batch, _ = decode_options("ar_r1_single2", images("parseq-dec2"))
    model = network("parseq-dec2")
    with torch.inference_mode():
        assert model(batch, decode_ar=True, refine_iters=0).shape[1] < model.config.max_label_length + 1
        early = model(batch, decode_ar=True, refine_iters=1)
        whole = model(batch, max_length=model.config.max_label_length, decode_ar=True, refine_iters=1)
    torch.testing.assert_close(early, whole, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["parseq-a", "parseq-p16"])
@pytest.mark.parametrize(("decode_ar", "refine_iters"), list(itertools.product([True, False], [0, 1, 2])))
def test_company_does_not_change_an_answer(name: str, decode_ar: bool, refine_iters: int) -> None:
    model, batch = network(name), images(name)
    options: dict[str, Any] = {"decode_ar": decode_ar, "refine_iters": refine_iters}
    limit = model.config.max_label_length
    with torch.inference_mode():
        together = model(batch, max_length=limit, **options)
        apart = torch.cat([model(one[None], max_length=limit, **options) for one in batch.flip(0)]).flip(0)
    torch.testing.assert_close(together, apart, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["parseq-a", "parseq-dec2"])
@pytest.mark.parametrize(("decode_ar", "refine_iters"), list(itertools.product([True, False], [0, 1, 2])))
def test_passes_are_the_readings_of_every_refinement(name: str, decode_ar: bool, refine_iters: int) -> None:
    model, batch = copy.copy(network(name)), images(name)
    model.config = replace(model.config, decode_ar=decode_ar, refine_iters=refine_iters)
    limit = model.config.max_label_length
    with torch.inference_mode():
        passes = model.passes(batch)
        wanted = [model(batch, limit, decode_ar, count) for count in range(refine_iters + 1)]
    assert [logits.shape[1] for logits in passes] == [limit + 1] * (refine_iters + 1)
    assert all(torch.equal(found, logits) for found, logits in zip(passes, wanted, strict=True))
    texts, _ = model.decode(passes[-1])
    assert texts == model.tokenizer.decode(wanted[-1].softmax(-1))[0]
