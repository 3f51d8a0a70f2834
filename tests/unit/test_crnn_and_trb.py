"""CRNN, TRBA and TRBC: sizes, how their weights begin, how they read, what they learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import ConfigError
from model.recognisers.crnn.config import CRNNConfig
from model.recognisers.interface import Network
from model.recognisers.parts.recurrent import BidirectionalLSTM
from model.recognisers.parts.trb.config import TRBConfig
from model.recognisers.parts.trb.rectification import GridGenerator, Rectification, control_points
from model.recognisers.registry import recogniser_of
from model.recognisers.trba.config import TRBAConfig
from model.recognisers.trba.decoder import EMBEDDING
from model.recognisers.trba.network import TRBA
from model.recognisers.trbc.config import TRBCConfig
from tests.small_recognisers import FIRST_STEP, NOWHERE, SMALL, TRB, made_up

KINDS = ("crnn", "trba", "trbc")


def images_for(network: Network, count: int = 3) -> Tensor:
    return torch.rand((count, 3, *network.config.img_size), generator=torch.Generator().manual_seed(count)) * 2 - 1


def fresh(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = replace(SMALL[name], **changes)  # type: ignore[type-var]
    return recogniser_of(config).build_network(config)


# Sizes.


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (CRNNConfig, {"img_size": (64, 128)}, "height must be 32, of which"),
        (CRNNConfig, {"img_size": (32, 3)}, "width must be at least 4"),
        (CRNNConfig, {"hidden_size": 0}, "hidden_size must be at least 1"),
        (CRNNConfig, {"charset_train": "aa"}, "distinct characters"),
        (CRNNConfig, {"max_label_length": 34}, "more than the 33 columns of an image 128 pixels wide"),
        (CRNNConfig, {"max_label_length": 0}, "max_label_length must be at least 1"),
        (TRBCConfig, {"max_label_length": 34}, "more than the 33 columns of an image 128 pixels wide"),
        (TRBAConfig, {"max_label_length": 0}, "max_label_length must be at least 1"),
        (TRBAConfig, {"img_size": (31, 128)}, "height must be at least 32"),
        (TRBAConfig, {"img_size": (32, 7)}, "width must be at least 8"),
        (TRBAConfig, {"num_fiducial": 7}, "num_fiducial must be an even number from 4, not 7"),
        (TRBAConfig, {"num_fiducial": 2}, "num_fiducial must be an even number from 4, not 2"),
        (TRBAConfig, {"output_channel": 24}, "output_channel must be a multiple of 16"),
        (TRBCConfig, {"hidden_size": 0}, "hidden_size must be at least 1"),
        (TRBCConfig, {"charset_train": ""}, "distinct characters"),
    ],
)
def test_impossible_sizes(kind: type[CRNNConfig | TRBConfig], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)
    assert kind.from_mapping(kind().to_dict()) == kind()


@pytest.mark.parametrize(
    ("config", "rows"),
    [
        *((CRNNConfig(hidden_size=8, img_size=(32, width), max_label_length=1), 1) for width in (4, 63, 100)),
        *(
            (TRBCConfig(**{**TRB, "img_size": size, "max_label_length": 1}), rows)
            for size, rows in {(32, 8): 1, (65, 63): 3}.items()
        ),
    ],
)
def test_columns_of_odd_sizes(config: Any, rows: int) -> None:
    network: Any = recogniser_of(config).build_network(config).eval()
    images = images_for(network, 2)
    with torch.inference_mode():
        assert network(images).shape == (2, config.columns, len(config.charset_train) + 1)
        features = network.cnn(images) if isinstance(config, CRNNConfig) else network.FeatureExtraction(images)
    assert features.shape[2:] == (rows, config.columns)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_name_more_than_labels_have(kind: str) -> None:
    length = 3
    network = made_up(replace(SMALL[kind], max_label_length=length), end_bias=-50.0)  # type: ignore[type-var]
    images = images_for(network)
    with torch.inference_mode():
        logits = network(images)
        few = network(images, 2)
        many = network(images, 50)
    texts, probabilities = network.decode(logits)
    assert torch.equal(many, logits)
    if kind == "trba":
        assert logits.shape[1] == length + 1 == len(texts[0])
        assert torch.equal(few, logits[:, :3])
    else:
        assert torch.equal(few, logits)
        assert max(map(len, texts)) > length
        assert all(len(values) == len(text) + 1 for text, values in zip(texts, probabilities, strict=True))


# Weights at the beginning.


def assert_spread(values: Tensor, spread: float) -> None:
    """Of mean 0 and such a standard deviation, as far as so many values can tell."""
    count = values.numel()
    assert abs(float(values.detach().mean())) < 5 * spread / math.sqrt(count)
    assert float(values.detach().std()) == pytest.approx(spread, rel=6 / math.sqrt(2 * count) + 1e-3)


def assert_begins_as_the_reference_does(module: nn.Module) -> int:
    if isinstance(module, nn.Conv2d):
        assert_spread(module.weight, math.sqrt(2 / (module.weight.shape[0] * module.weight[0, 0].numel())))
    elif isinstance(module, nn.Linear | nn.Embedding):
        assert_spread(module.weight, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        assert (module.weight == 1).all()
    elif isinstance(module, nn.LSTM | nn.LSTMCell):
        for values in module.parameters():
            bound = 1 / math.sqrt(module.hidden_size)
            assert values.abs().max() <= bound
            assert_spread(values, bound / math.sqrt(3))
        return 1
    else:
        return 0
    bias = getattr(module, "bias", None)
    assert bias is None or not bias.any()
    return 1


@pytest.mark.parametrize(("kind", "layers"), [("crnn", 7 + 3 + 2 * 2), ("trba", 83), ("trbc", 78)])
def test_weights_begin_as_those_of_the_reference(kind: str, layers: int) -> None:
    network = fresh(kind)
    checked = 0
    for name, module in network.named_modules():
        if not name.endswith("localization_fc2"):
            checked += assert_begins_as_the_reference_does(module)
    assert checked == layers


def test_points_begin_where_those_of_the_reference_do() -> None:
    network = fresh("trba", num_fiducial=6)
    points = network.Transformation.LocalizationNetwork(images_for(network))
    wanted = torch.tensor([[-1, 0], [0, -0.5], [1, -1], [-1, 1], [0, 0.5], [1, 0]]).float()
    assert torch.equal(points, wanted.expand(3, -1, -1))
    assert not network.Transformation.LocalizationNetwork.localization_fc2.weight.any()


# Rectification.


def test_points_at_their_places_change_nothing() -> None:
    size, count = (33, 65), 8
    grid = GridGenerator(size, count)
    at = torch.from_numpy(control_points(count)).float()
    places = grid(at[None])[0].view(*size, 2)
    # The centres of pixels: the spline through points that stay is the identity.
    x = (2 * torch.arange(size[1]) + 1 - size[1]) / size[1]
    y = (2 * torch.arange(size[0]) + 1 - size[0]) / size[0]
    torch.testing.assert_close(places, torch.stack(torch.meshgrid(x, y, indexing="xy"), -1), atol=1e-4, rtol=0)
    # As far to the right as the points are.
    moved = grid((at + torch.tensor([0.25, 0]))[None])[0].view(*size, 2)
    torch.testing.assert_close(moved, places + torch.tensor([0.25, 0]), atol=1e-4, rtol=0)


def test_the_buffers_are_kept_and_their_product_is_used() -> None:
    grid = GridGenerator((32, 64), 20)
    assert list(grid.state_dict()) == ["inv_delta_C", "P_hat"]
    exact = (grid.P_hat.double() @ grid.inv_delta_C.double())[:, :20]
    torch.testing.assert_close(grid.folded.double(), exact, atol=1e-6, rtol=1e-6)
    points = torch.rand(4, 20, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    error = (grid(points).double() - exact @ points.double()).abs().max()
    unfolded = (grid.P_hat @ (grid.inv_delta_C @ F.pad(points, (0, 0, 0, 3)))).double()
    assert error < 2e-6
    assert (unfolded - exact @ points.double()).abs().max() > 4 * error


def test_rectification_is_float32_in_mixed_precision() -> None:
    torch.manual_seed(1)
    rectification = Rectification((32, 64), 6)
    places = []
    rectification.GridGenerator.register_forward_hook(lambda _module, _inputs, output: places.append(output))
    images = torch.rand(2, 3, 32, 64)
    with torch.no_grad():
        rectification(images)
        with torch.autocast("cpu", torch.bfloat16):
            rectification(images)
    assert [each.dtype for each in places] == [torch.float32] * 2
    # The convolutions before it are not.
    assert not torch.equal(*places)
    torch.testing.assert_close(*places, atol=2e-2, rtol=0)


# Reading.


def test_trba_never_answers_begin_or_pad() -> None:
    network = made_up(SMALL["trba"], end_bias=-50.0)
    with torch.no_grad():
        network.Prediction.generator.bias[-2:] += 100
    images = images_for(network, 4)
    with torch.inference_mode():
        logits = network(images)
        assert (logits.argmax(-1) >= network.Prediction.readable).all()
        begin = torch.full((4, 1), network.tokenizer.bos_id)
        tokens = torch.cat([begin, logits[:, :-1, : network.Prediction.readable].argmax(-1)], 1)
        followed = network.Prediction.follow(network.columns(images), tokens)
    # What each step began with is what was read.
    torch.testing.assert_close(logits, followed, atol=1e-5, rtol=0)
    texts, probabilities = network.decode(logits)
    assert len(set("".join(texts))) > 3
    assert set("".join(texts)) <= set(network.config.charset_train)
    # They have nearly all of the probability, and leave the answer hardly any.
    assert all(float(values.max()) < 1e-10 for values in probabilities)


@pytest.mark.parametrize("kind", KINDS)
def test_company_changes_nothing(kind: str) -> None:
    network = made_up(SMALL[kind])
    images = images_for(network, 4)
    with torch.inference_mode():
        together = network(images)
        alone = torch.cat([network(one[None]) for one in images.flip(0)]).flip(0)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_a_lstm_goes_both_ways() -> None:
    torch.manual_seed(0)
    layer = BidirectionalLSTM(5, 4, 6).eval()
    columns = torch.randn(2, 7, 5)
    changed = columns.clone()
    changed[:, 3] += 1
    with torch.inference_mode():
        differs = (layer(columns) != layer(changed)).any(-1)
    assert layer(columns).shape == (2, 7, 6)
    assert differs.all()


# Learning.


def loss_of(network: Any, labels: Sequence[str]) -> Tensor:
    training = recogniser_of(network.config).build_training(network, {})
    loss, logged = training.loss(images_for(network, len(labels)), labels, NOWHERE, FIRST_STEP)
    assert torch.equal(logged["loss"], loss)
    return loss


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_gradient(kind: str) -> None:
    network = fresh(kind).train()
    loss_of(network, ["a0z", "", "bb1"] if kind == "trba" else ["a0z", "c", "bb1"]).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients.values())
    assert all(gradient.any() for name, gradient in gradients.items() if "localization" not in name.lower())  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["crnn", "trbc"])
def test_the_loss_of_columns(kind: str) -> None:
    network = made_up(SMALL[kind])
    labels = ["a0z", "c", "bb1"]
    with torch.no_grad():
        logs = network(images_for(network, 3)).log_softmax(-1)
        charset = network.config.charset_train
        apart = [
            F.ctc_loss(row, torch.tensor([[charset.index(c) + 1 for c in label]]), (len(row),), (len(label),), reduction="sum")
            / len(label)
            for row, label in zip(logs, labels, strict=True)
        ]
    assert loss_of(network, labels).item() == pytest.approx(float(torch.stack(apart).mean()), rel=1e-5)
    # So processes with as many texts each have the loss of the joined batch in the mean.
    # Two alike want a column between them: this one has no room, and counts nothing.
    network = made_up(replace(SMALL[kind], img_size=(32, 12), max_label_length=4))
    network.zero_grad()
    loss = loss_of(network, ["aaa"])
    loss.backward()
    assert loss.item() == 0
    assert not any(parameter.grad.any() for parameter in network.parameters())


def test_the_loss_of_steps() -> None:
    network: TRBA = made_up(SMALL["trba"])
    labels = ["a0z", "c"]
    images, charset = images_for(network, 2), network.config.charset_train
    total, tokens = 0.0, 0
    with torch.no_grad():
        for image, label in zip(images, labels, strict=True):
            ids = [charset.index(character) + 1 for character in label]
            given = torch.tensor([[network.tokenizer.bos_id, *ids]])
            logs = network.Prediction.follow(network.columns(image[None]), given)[0].log_softmax(-1)
            assert logs.shape[-1] == len(charset) + 3
            total -= sum(float(row[wanted]) for row, wanted in zip(logs, [*ids, 0], strict=True))
            tokens += len(ids) + 1
    assert loss_of(network, labels).item() == pytest.approx(total / tokens, rel=1e-5)


def test_what_decays() -> None:
    network = fresh("trba")
    decayed, plain = recogniser_of(network.config).build_training(network, {}).groups(1.0, 0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    embedding = network.Prediction.char_embeddings.weight
    assert embedding.shape[1] == EMBEDDING
    assert any(parameter is embedding for parameter in plain["params"])
    assert all(parameter.dim() > 1 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(network.parameters()))
