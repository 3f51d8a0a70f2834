"""The exported graph against PyTorch, on small networks of every kind."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from export.gate.crops import parity_crops
from export.graphs.parseq.graph import Decode, write_encoder_graph
from export.graphs.parts import fold_batch_norm
from model.recognisers.parseq.network import PARSeq
from model.recognisers.parts.normalise import normalise
from tests.export_models import (
    RESIDUAL,
    new_session,
    read_with_torch,
    run,
    run_session,
    serialised,
    small_model,
    write_graph,
)

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
# Every layer is written out for every step: more of them than these show nothing new and take ONNX Runtime seconds to open.
TWO_LAYERS: dict[str, Any] = {"dec_depth": 2, "max_label_length": 6}
NETWORKS: dict[str, dict[str, Any]] = {
    "patch": {},
    "patch-two-layers": TWO_LAYERS,
    "residual": RESIDUAL,
}
EVERY_MODE: list[tuple[Decode, int]] = [("ar", 0), ("ar", 1), ("ar", 2), ("nar", 0), ("nar", 1), ("nar", 2)]
# The stem has no part in how texts are read; layers of the decoder have one in each pass.
SOME: list[tuple[str, Decode, int]] = [("residual", "ar", 1), *(("patch-two-layers", *mode) for mode in EVERY_MODE[::2])]
MODES = pytest.mark.parametrize(("name", "decode", "refine_iters"), [*(("patch", *mode) for mode in EVERY_MODE), *SOME])
# Whatever is not here has to earn its place: no control flow, no boolean selection, no shape computed at run time.
ALLOWED = {
    "Add", "ArgMax", "Cast", "Concat", "Conv", "Equal", "Gather", "Gelu", "Identity", "LayerNormalization", "MatMul", "Max",
    "ReduceMax", "Relu", "Reshape", "Slice", "Softmax", "Split", "Sub", "Transpose",
}  # fmt: skip
ALLOWED_AROUND_A_LOOP = ALLOWED | {"Loop", "Pad", "Shape"}
ALLOWED_IN_A_LOOP = ALLOWED | {"Greater", "Min"}


def crops_for(model: PARSeq) -> NDArray[np.uint8]:
    config = model.config
    return _drawn(config.img_size, config.charset_train, config.max_label_length)


@functools.cache
def _drawn(*limits: Any) -> NDArray[np.uint8]:
    return np.stack([crop.pixels for crop in parity_crops(*limits)[:32]])


def assert_equals_pytorch(model: PARSeq, decode: Decode, refine_iters: int, **options: Any) -> None:
    pixels = crops_for(model)
    expected = read_with_torch(model, pixels, decode, refine_iters)
    session = new_session(serialised(write_graph(model, decode, refine_iters, with_logits=True, **options)))
    # The order tells the text of one crop from that of its neighbours.
    order = np.random.default_rng(1).permutation(len(pixels))
    for batch_size in (1, 2, 3, 32):
        token_ids, confidences, logits = run_session(session, pixels[order], batch_size)
        # After a near tie in an earlier pass the two may go different ways.
        decided = (expected.margins > TOLERANCE)[order]
        assert decided.sum() > len(pixels) // 2
        meaningful = (np.arange(logits.shape[1]) < expected.steps[:, None])[order] & decided[:, None]
        assert np.abs(logits - expected.logits[order])[meaningful].max() < TOLERANCE
        assert np.abs(confidences - expected.confidences[order])[meaningful].max() < TOLERANCE
        assert np.array_equal(token_ids[meaningful], expected.token_ids[order][meaningful])


@pytest.mark.parametrize(
    ("name", "refine_iters"), [("patch", 0), ("patch", 1), ("patch", 2), ("residual", 1), ("patch-two-layers", 1)]
)
def test_a_loop_that_ends_with_the_texts(name: str, refine_iters: int) -> None:
    assert_equals_pytorch(small_model(**NETWORKS[name]), "ar", refine_iters, early_exit=True)


@MODES
def test_every_mode_of_every_network(name: str, decode: Decode, refine_iters: int) -> None:
    assert_equals_pytorch(small_model(**NETWORKS[name]), decode, refine_iters)


@pytest.mark.parametrize(
    ("sizes", "early_exit"),
    [
        ({"dec_depth": 3, "max_label_length": 6}, True),
        ({"charset_train": "".join(map(chr, range(0x4E00, 0x4E00 + 7000)))}, True),
        ({"max_label_length": 28}, False),
        ({"max_label_length": 28}, True),
        ({"max_label_length": 1}, False),
        ({"max_label_length": 1}, True),
        # What the encoder alone has to do with.
        ({"img_size": (224, 224), "patch_size": (16, 16), "enc_depth": 1}, True),
        ({"img_size": (64, 16), "patch_size": (4, 8)}, True),
    ],
    ids=["three-layers", "7000-characters", "28-long", "28-long-loop", "1-long", "1-long-loop", "224x224", "tall"],
)
def test_unusual_sizes(sizes: dict[str, Any], early_exit: bool) -> None:
    assert_equals_pytorch(small_model(**sizes), "ar", 1, early_exit=early_exit)


@pytest.mark.parametrize(
    ("sizes", "refine_iters", "early_exit"),
    [({}, 0, False), ({}, 1, True), (TWO_LAYERS, 0, True), (TWO_LAYERS, 2, False)],
    ids=["one-layer", "one-layer-loop", "two-layers-loop", "two-layers"],
)
def test_keys_and_values_without_a_table(sizes: dict[str, Any], refine_iters: int, early_exit: bool) -> None:
    assert_equals_pytorch(small_model(**sizes), "ar", refine_iters, early_exit=early_exit, max_table_bytes=0)


@pytest.mark.parametrize(("refine_iters", "early_exit"), [(0, True), (1, False), (1, True)])
def test_texts_of_full_length_are_not_cut(refine_iters: int, early_exit: bool) -> None:
    model = small_model(eos_bias=-100.0)
    graph = write_graph(model, "ar", refine_iters, early_exit=early_exit, with_logits=True)  # as below: it is opened once
    token_ids, *_ = run(serialised(graph), crops_for(model), 3)
    assert (token_ids != 0).all()
    assert_equals_pytorch(model, "ar", refine_iters, early_exit=early_exit)


@pytest.mark.parametrize("refine_iters", [0, 1])
def test_texts_that_are_all_empty(refine_iters: int) -> None:
    model = small_model(eos_bias=100.0)
    token_ids, *_ = run(serialised(write_graph(model, "ar", refine_iters, early_exit=True)), crops_for(model), 3)
    assert token_ids.shape == (32, 11)
    assert (token_ids == 0).all()


def test_a_loop_ends_with_the_longest_text_of_its_batch() -> None:
    model = small_model(eos_bias=4.0)
    graph = write_graph(model, "ar", 0, early_exit=True).model("test", {}, "0")
    (loop,) = (node for node in graph.graph.node if node.op_type == "Loop")
    graph.graph.output.append(helper.make_tensor_value_info(loop.output[-2], TensorProto.INT64, None))
    session = new_session(graph.SerializeToString())
    for crop in crops_for(model):
        token_ids, _, rounds = run_session(session, crop[None], 1)
        text = token_ids[0].tolist()
        longest = text.index(0) if 0 in text else len(text) - 1
        assert len(rounds) == max(1, longest), "a round for each character, for the first step is outside and the end is read"


@pytest.mark.parametrize("early_exit", [False, True])
@pytest.mark.parametrize("refine_iters", [0, 1])
def test_texts_of_mixed_length_equal_those_of_reading_that_stops_early(refine_iters: int, early_exit: bool) -> None:
    model = small_model(eos_bias=4.0)
    pixels = crops_for(model)
    token_ids, *_ = run(serialised(write_graph(model, "ar", refine_iters, early_exit=early_exit)), pixels, 32)
    with torch.inference_mode():
        for crop, exported in zip(pixels, token_ids.tolist(), strict=True):
            stopped = model(normalise(torch.from_numpy(crop)[None]), None, True, refine_iters)[0].argmax(-1).tolist()
            text = stopped[: stopped.index(0) + 1] if 0 in stopped else stopped
            assert exported[: len(text)] == text
    lengths = {row.index(0) if 0 in row else len(row) for row in token_ids.tolist()}
    assert len(lengths) > 2


def test_a_blank_crop_reads_the_same_beside_any_other() -> None:
    model = small_model()
    pixels = crops_for(model)
    session = new_session(serialised(write_graph(model, "ar", 1, with_logits=True)))
    alone = run_session(session, pixels[:1], 1)[2]
    for other in range(1, len(pixels)):
        together = run_session(session, pixels[[other, 0]], 2)[2][1:]
        assert np.abs(together - alone).max() < TOLERANCE


@MODES
def test_only_plain_operators_and_no_dead_ends(name: str, decode: Decode, refine_iters: int) -> None:
    graph = write_graph(small_model(**NETWORKS[name]), decode, refine_iters).model("test", {}, "0").graph
    assert set(Counter(node.op_type for node in graph.node)) <= ALLOWED
    constants = {tensor.name for tensor in graph.initializer}
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    assert shapes <= constants, "every size but the batch is a constant"
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    assert {name for node in graph.node for name in node.output} <= used
    assert constants <= used
    assert len({node.name for node in graph.node}) == len(graph.node)


@pytest.mark.parametrize("sizes", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_loop_needs_few_operators_more(sizes: dict[str, Any]) -> None:
    graph = write_graph(small_model(**sizes), "ar", 1, early_exit=True).model("test", {}, "0").graph
    assert {node.op_type for node in graph.node} <= ALLOWED_AROUND_A_LOOP
    (loop,) = (node for node in graph.node if node.op_type == "Loop")
    assert {node.op_type for node in loop.attribute[0].g.node} <= ALLOWED_IN_A_LOOP


def test_the_batch_is_the_only_dynamic_size() -> None:
    model = small_model()
    proto = write_graph(model, "ar", 1, with_logits=True).model("test", {}, "0")
    sizes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    assert sizes == {
        "images": ["batch", 16, 64, 3],
        "token_ids": ["batch", 11],
        "confidences": ["batch", 11],
        "logits": ["batch", 11, 37],
    }
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    assert inferred.graph.node


def test_steps_share_their_weights() -> None:
    model = small_model(charset_train="ab")
    graph = write_graph(model, "ar", 1, max_table_bytes=0).model("test", {}, "0").graph
    stored = sum(len(tensor.raw_data) for tensor in graph.initializer)
    parameters = sum(4 * parameter.numel() for parameter in model.parameters())
    assert stored < 1.3 * parameters


def test_the_encoder_alone() -> None:
    for sizes in (NETWORKS["patch"], NETWORKS["residual"]):
        model = small_model(**sizes)
        pixels = crops_for(model)
        (memory,) = run(serialised(write_encoder_graph(model)), pixels, 8)
        with torch.inference_mode():
            expected = model.encode(normalise(torch.from_numpy(pixels))).numpy()
        assert np.abs(memory - expected).max() < TOLERANCE


def test_batch_norm_folds_into_the_convolution() -> None:
    conv, norm = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5).eval()
    with torch.no_grad():
        for values in (norm.running_mean, norm.bias):
            assert values is not None
            values.uniform_(-1, 1)
        for values in (norm.running_var, norm.weight):
            assert values is not None
            values.uniform_(0.5, 2)
        x = torch.randn(2, 3, 6, 7)
        weight, bias = fold_batch_norm(conv, norm)
        folded = nn.functional.conv2d(x.double(), weight, bias, padding=1)
        assert torch.allclose(folded, norm(conv(x)).double(), atol=1e-5)


def test_a_negative_number_of_refinements_is_refused() -> None:
    with pytest.raises(ValueError, match="refine_iters must be at least 0"):
        write_graph(small_model(), "ar", -1)
