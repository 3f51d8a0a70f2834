"""The exported graph of ABINet against PyTorch, on small networks of every kind."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from artifact.metadata import INPUT_NAME, ArtifactMetadata
from export.gate.agreement import check_agreement
from export.gate.calibrate import observe_ranges
from export.gate.crops import GateCrop
from export.gate.parity import check_parity
from export.graphs.abinet.graph import GRAPH, ABINetOptions
from export.graphs.abinet.language import LanguageGraph
from export.graphs.builder import GraphBuilder
from export.graphs.int8 import Int8Builder
from export.graphs.interface import ExportError
from export.to_onnx import ExportOptions, build_artifact
from model.recognisers.abinet.network import ABINet
from tests.export_models import open_session, run, run_session, serialised
from tests.small_abinet import KINDS, small_abinet, small_crops

pytestmark = pytest.mark.slow

TOLERANCE = 1e-3
"""Made-up weights make much of little: the network itself is 2e-4 beside what it is in float64."""
# Whatever is not here has to earn its place: no control flow, no boolean selection, no shape computed at run time.
ALLOWED = {
    "Add", "ArgMax", "Cast", "Conv", "Equal", "Gelu", "Identity", "LayerNormalization", "MatMul", "Max", "Mul", "ReduceMax",
    "Relu", "Reshape", "Resize", "Sigmoid", "Softmax", "Split", "Sub", "Tanh", "Transpose",
}  # fmt: skip


@functools.cache
def network(**sizes: Any) -> ABINet:
    """One that no test changes, of the arguments of `small_abinet`."""
    return small_abinet(**sizes)


def written(model: ABINet, builder: GraphBuilder | None = None, **options: Any) -> bytes:
    graph = builder or GraphBuilder()
    chosen = ABINetOptions(**{"iterations": model.config.iter_size, **options})
    GRAPH.write(graph, model, chosen, with_logits=True)
    return serialised(graph)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_reads_as_pytorch_does(kind: str, iterations: int) -> None:
    model, pixels = network(**KINDS[kind]), small_crops()
    options = ABINetOptions(iterations)
    expected = GRAPH.reference(GRAPH.network_that_reads_so(model, options), pixels)
    assert (expected.margins > TOLERANCE).mean() > 0.7
    session = open_session(written(model, iterations=iterations))
    order = np.random.default_rng(1).permutation(len(pixels))
    for batch_size in (1, 3, len(pixels)):
        token_ids, confidences, logits = run_session(session, pixels[order], batch_size)
        decided = (expected.margins > TOLERANCE)[order]
        assert np.abs(logits - expected.logits[order])[decided].max() < TOLERANCE
        meaningful = (np.arange(logits.shape[1]) < expected.steps[:, None])[order] & decided[:, None]
        assert np.abs(confidences - expected.confidences[order])[meaningful].max() < TOLERANCE
        assert np.array_equal(token_ids[meaningful], expected.token_ids[order][meaningful])


def test_texts_differ_in_length_and_some_have_no_end() -> None:
    token_ids, *_ = run(written(network()), small_crops(32), 16)
    lengths = {row.index(0) if 0 in row else len(row) for row in token_ids.tolist()}
    assert len(lengths) >= 3
    assert 8 in lengths


@pytest.mark.parametrize("own", [False, True])
def test_an_iteration_on_texts_of_every_length(own: bool) -> None:
    model = network(l_use_self_attn=own)
    random = np.random.default_rng(3)
    ids = np.stack([np.r_[random.integers(1, 37, length), 0, random.integers(0, 37, 8)][:8] for length in range(9)])
    logits = random.standard_normal((9, 8, 37)).astype(np.float32) + 9 * np.eye(37, dtype=np.float32)[ids]
    features = random.standard_normal((9, 8, 32)).astype(np.float32)
    with torch.no_grad():
        [(_, expected)] = model.iterate(torch.from_numpy(features), torch.from_numpy(logits), 1)
    g = GraphBuilder()
    names = g.input("features", TensorProto.FLOAT, ("batch", 8, 32)), g.input("logits", TensorProto.FLOAT, ("batch", 8, 37))
    g.output(LanguageGraph(g, model, names[0]).iterate(names[1]), "next", TensorProto.FLOAT, ("batch", 8, 37))
    (found,) = open_session(serialised(g)).run(None, {"features": features, "logits": logits})
    assert np.abs(found - expected.numpy()).max() < 1e-4


def test_a_near_tie_in_any_pass_counts() -> None:
    model, pixels = network(), small_crops()
    reference = GRAPH.reference(model, pixels)
    alone = GRAPH.reference(GRAPH.network_that_reads_so(model, ABINetOptions(1)), pixels)
    assert (reference.margins <= alone.margins).all()
    assert (reference.margins < alone.margins).any()


@pytest.mark.parametrize("kind", KINDS)
def test_only_plain_operators_and_no_dead_ends(kind: str) -> None:
    graph = onnx.load_from_string(written(network(**KINDS[kind]))).graph
    assert {node.op_type for node in graph.node} <= ALLOWED
    constants = {tensor.name for tensor in graph.initializer}
    assert {node.input[1] for node in graph.node if node.op_type == "Reshape"} <= constants
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    assert {name for node in graph.node for name in node.output} <= used
    assert constants <= used
    assert len({node.name for node in graph.node}) == len(graph.node)
    assert [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == ["batch", 32, 128, 3]


def test_iterations_share_their_weights() -> None:
    sizes = [sum(len(tensor.raw_data) for tensor in graph.initializer) for graph in (
        onnx.load_from_string(written(network(), iterations=count)).graph for count in (1, 5)
    )]  # fmt: skip
    assert sizes[0] == sizes[1]


def rms(values: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.square(values).mean()))


@pytest.mark.parametrize("kind", ["position", "additive", "self-attention", "resnet-only"])
@pytest.mark.parametrize(("precision", "error"), [("fp16", 0.01), ("int8", 0.25)])
def test_other_precisions_read_nearly_the_same(kind: str, precision: Any, error: float) -> None:
    model, pixels = network(gain=0.6, **KINDS[kind]), small_crops(32)
    options = ABINetOptions(model.config.iter_size)
    if precision == "int8":
        builder: GraphBuilder = Int8Builder(observe_ranges(lambda g: GRAPH.write(g, model, options), pixels))
    else:
        builder = GraphBuilder(TensorProto.FLOAT16)
    artifact, expected = written(model, builder), GRAPH.reference(model, pixels)
    token_ids, _, logits = run(artifact, pixels, 8)
    # Of what differs from crop to crop and from step to step.
    assert rms(logits - expected.logits) < error * rms(expected.logits - expected.logits.mean((0, 1)))
    assert (token_ids == expected.token_ids).mean() > 0.95
    operators = {node.op_type for node in onnx.load_from_string(artifact).graph.node}
    assert operators <= ALLOWED | ({"QuantizeLinear", "DequantizeLinear"} if precision == "int8" else set())


def test_of_int8_all_convolutions_and_layers_are_rounded() -> None:
    model, options = network(), ABINetOptions(3)
    builder = Int8Builder(observe_ranges(lambda g: GRAPH.write(g, model, options), small_crops()))
    graph = onnx.load_from_string(written(model, builder)).graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "Conv":
            assert [made_by[name] for name in node.input] == ["DequantizeLinear"] * 3, node.name
    rounded = sum(made_by.get(node.input[1]) == "DequantizeLinear" for node in graph.node if node.op_type == "MatMul")
    # Four in a layer of vision; of the language part four in three iterations of two, besides two in the first for its keys.
    layers = 2 * 4 + 3 * 2 * 4 + 3 * 1
    assert rounded == layers + 1 + 3


LARGE = 1e4


def overflowing(**sizes: Any) -> ABINet:
    """A network whose features are too large for half precision, and which reads as before otherwise."""
    model = small_abinet(**sizes)
    backbone = model.vision.backbone
    for block in backbone.resnet.layer5:
        block.bn2.weight.data.mul_(LARGE)
        block.bn2.bias.data.mul_(LARGE)
    for values in backbone.resnet.layer5[0].downsample[1].parameters():
        values.data.mul_(LARGE)
    first = backbone.transformer.layers[0].self_attn
    first.in_proj_weight.data[: 2 * model.config.d_model].div_(LARGE)
    return model


@pytest.mark.parametrize("kind", ["position", "additive"])
def test_what_half_precision_cannot_hold_is_refused_unless_kept_in_float32(kind: str) -> None:
    model, pixels = overflowing(**KINDS[kind]), small_crops(8)
    reference, crops = GRAPH.reference(model, pixels), [GateCrop("drawn", crop) for crop in pixels]
    problems, found = [], []
    for chosen in ({}, {"float32_features": True}):
        artifact = build_artifact(
            model, ExportOptions("mine", "", chosen, with_logits=True, precision="fp16")
        ).SerializeToString()
        problems.append(check_agreement(artifact, reference, crops, "fp16").problem)
        found.append(run(artifact, pixels, 8)[2])
    assert problems[0] is not None
    assert "confidences are no numbers (nan or infinite)" in problems[0]
    assert "no numbers" not in (problems[1] or "")
    assert rms(found[1] - reference.logits) < 0.15 * rms(reference.logits)


def test_no_number_is_refused_in_float32_too() -> None:
    model, pixels = small_abinet(), small_crops(8)
    reference, crops = GRAPH.reference(model, pixels), [GateCrop("drawn", crop) for crop in pixels]
    model.language.model.layers[0].linear1.bias.data[0] = float("nan")
    report = check_parity(written(model), reference, crops, batch_sizes=(1, 4))
    assert report.problem is not None
    assert "no numbers" in report.problem


def test_what_the_artifact_says() -> None:
    model = network()
    proto = build_artifact(model, ExportOptions("mine", "ab" * 32, {"iterations": 2}))
    told = ArtifactMetadata.from_map({entry.key: entry.value for entry in proto.metadata_props})
    assert (told.architecture, told.decode_mode, told.refine_iters, told.max_label_length) == ("abinet", "nar", 1, 7)
    assert (told.image_height, told.image_width, told.schema_version) == (32, 128, 2)
    assert ExportOptions("mine", "").reading == {}
    assert GRAPH.options(model, {}, "fp32") == ABINetOptions(3)


@pytest.mark.parametrize(
    ("chosen", "precision", "message"),
    [
        ({"decode": "ar"}, "fp32", "--decode is no option of 'abinet'"),
        ({"refine_iters": 1}, "fp32", "--refine-iters is no option of 'abinet'"),
        ({"float32_features": True}, "int8", "--float32-features is for --precision fp16"),
    ],
)
def test_options_that_are_refused(chosen: dict[str, Any], precision: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        GRAPH.options(network(), chosen, precision)


def test_another_number_of_iterations_is_told_from_the_networks_own() -> None:
    model, pixels = network(), small_crops()
    crops = [GateCrop("drawn", crop) for crop in pixels]
    once = GRAPH.reference(GRAPH.network_that_reads_so(model, ABINetOptions(1)), pixels)
    assert check_parity(written(model, iterations=1), once, crops, batch_sizes=(8,)).problem is None
    assert check_parity(written(model, iterations=3), once, crops, batch_sizes=(8,)).problem is not None
    assert model.config.iter_size == 3
    assert open_session(written(model, iterations=1)).get_inputs()[0].name == INPUT_NAME
