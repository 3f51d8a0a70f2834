"""ViTSTR's graph against PyTorch in every precision, and what it is made of."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from artifact.metadata import Precision
from export.gate.agreement import check_agreement
from export.gate.calibrate import observe_ranges
from export.gate.crops import parity_crops, word_crops
from export.gate.parity import TIE_MARGIN, check_parity
from export.graphs.builder import GraphBuilder
from export.graphs.int8 import CalibrationBuilder
from export.graphs.interface import ExportError, NoOptions
from export.graphs.vitstr import GRAPH
from export.to_onnx import ExportOptions, build_artifact, new_builder
from model.recognisers.vitstr.network import ViTSTR
from tests.export_models import run, serialised, small_vitstr

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
NETWORKS: dict[str, dict[str, Any]] = {
    "small": {},
    "one-block": {"depth": 1},
    "every-patch-a-place": {"max_label_length": 15},
    "one-character": {"max_label_length": 1},
    "square": {"img_size": (224, 224), "patch_size": (16, 16), "depth": 2},
    "7000-characters": {"charset_train": "".join(map(chr, range(0x4E00, 0x4E00 + 7000))), "depth": 1},
}
ALLOWED = {
    "Add", "ArgMax", "Cast", "Concat", "Gelu", "Identity", "LayerNormalization", "MatMul", "ReduceMax", "Reshape", "Slice",
    "Softmax", "Split", "Sub", "Transpose",
}  # fmt: skip
LOGIT_ERROR: dict[str, float] = {"fp16": 0.02, "int8": 0.2}
"""Mean over all steps."""


@functools.cache
def network(name: str) -> ViTSTR:
    return small_vitstr(**NETWORKS[name])


def pixels_for(model: ViTSTR, count: int = 32) -> NDArray[np.uint8]:
    config = model.config
    return np.stack(
        [crop.pixels for crop in parity_crops(config.img_size, config.charset_train, config.max_label_length)][:count]
    )


def written(model: ViTSTR, builder: GraphBuilder | None = None) -> GraphBuilder:
    g = builder or GraphBuilder()
    GRAPH.write(g, model, NoOptions(), with_logits=True)
    return g


def rounded(model: ViTSTR, precision: Precision) -> bytes:
    ranges = {}
    if precision == "int8":
        ranges = observe_ranges(lambda builder: GRAPH.write(builder, model, NoOptions()), pixels_for(model))
    return serialised(written(model, new_builder(precision, ranges)))


@pytest.mark.parametrize("name", NETWORKS)
def test_it_reads_what_pytorch_reads_alone_and_in_company(name: str) -> None:
    model = network(name)
    pixels = pixels_for(model, 8 if name == "7000-characters" else 32)
    expected = GRAPH.reference(model, pixels)
    content = serialised(written(model))
    order = np.random.default_rng(1).permutation(len(pixels))
    for batch_size in (1, 2, 3, len(pixels)):
        token_ids, confidences, logits = run(content, pixels[order], batch_size)
        assert np.abs(logits - expected.logits[order]).max() < TOLERANCE
        assert np.abs(confidences - expected.confidences[order]).max() < TOLERANCE
        decided = expected.margins[order] > TIE_MARGIN
        assert decided.mean() > 0.5
        assert np.array_equal(token_ids[decided], expected.token_ids[order][decided])
    if name == "small":
        # They say something, and not all the same.
        assert len({tuple(row) for row in expected.token_ids.tolist()}) > len(pixels) // 2
        assert expected.steps.min() < expected.steps.max()


def test_near_ties_are_those_of_the_steps_up_to_the_end() -> None:
    model = network("small")
    pixels = pixels_for(model)
    reference = GRAPH.reference(model, pixels)
    best = np.sort(reference.logits, axis=-1)
    gaps = best[..., -1] - best[..., -2]
    for row, steps, margin in zip(gaps, reference.steps, reference.margins, strict=True):
        assert margin == pytest.approx(row[:steps].min(), abs=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_only_plain_operators_and_no_dead_ends(name: str) -> None:
    proto = written(network(name)).model("test", {}, "0")
    graph = proto.graph
    assert {node.op_type for node in graph.node} <= ALLOWED
    constants = {tensor.name for tensor in graph.initializer}
    assert {node.input[1] for node in graph.node if node.op_type == "Reshape"} <= constants
    used = {value for node in graph.node for value in node.input} | {output.name for output in graph.output}
    assert {value for node in graph.node for value in node.output} <= used
    assert constants <= used
    assert onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph.node


def test_the_last_block_asks_for_the_steps_alone() -> None:
    graph = onnx.shape_inference.infer_shapes(written(network("small")).model("test", {}, "0"), strict_mode=True).graph
    rows: dict[str, list[int]] = {}
    for value in graph.value_info:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if "/Gelu" in value.name:
            rows.setdefault(value.name.partition("/")[0], []).append(shape[1])
    assert rows == {"encoder.0": [17], "encoder.1": [17], "encoder.2": [11]}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("name", ["small", "one-block", "square"])
def test_rounded_graphs_read_nearly_as_pytorch(name: str, precision: Precision) -> None:
    model = network(name)
    pixels = pixels_for(model)
    expected = GRAPH.reference(model, pixels)
    content = rounded(model, precision)
    together, alone = run(content, pixels, len(pixels)), run(content, pixels, 1)
    for token_ids, confidences, logits in (together, alone):
        assert (token_ids.dtype, confidences.dtype, logits.dtype) == (np.int64, np.float32, np.float32)
        assert np.abs(logits - expected.logits).mean() < LOGIT_ERROR[precision]
        best = np.sort(expected.logits, axis=-1)
        decided = best[..., -1] - best[..., -2] > 5 * LOGIT_ERROR[precision]
        assert decided.mean() > 0.2
        assert (token_ids == expected.token_ids)[decided].mean() > 0.99
    # Scales are constants: the company of a crop moves nothing but the last digits.
    assert np.abs(together[2] - alone[2]).mean() < LOGIT_ERROR[precision] / 10


def test_half_precision_keeps_the_head_in_full() -> None:
    graph = written(network("small"), GraphBuilder(TensorProto.FLOAT16)).model("test", {}, "0").graph
    full = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    assert full == {"head.weight", "head.bias", "norm.weight", "norm.bias"}
    first = next(tensor for tensor in graph.initializer if tensor.name == "stem.weight")
    assert np.median(np.abs(numpy_helper.to_array(first))) > np.finfo(np.float16).tiny


def test_int8_multiplies_integers_and_stores_a_quarter() -> None:
    model = small_vitstr(embed_dim=96, charset_train="ab")
    content = rounded(model, "int8")
    assert len(content) < 0.5 * len(serialised(written(model)))
    graph = onnx.load_from_string(content).graph
    integers = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.INT8}
    last = {"encoder.2.query", "encoder.2.key_value", "encoder.2.proj", "encoder.2.fc1", "encoder.2.fc2"}
    assert {"encoder.0.qkv", "encoder.1.proj", *last} <= integers
    builder = CalibrationBuilder()
    GRAPH.write(builder, model, NoOptions())
    assert {"encoder.0.qkv.input", "encoder.2.query.input", "encoder.2.key_value.input"} <= builder.observed.keys()


def test_half_precision_passes_the_gate() -> None:
    model = network("small")
    config = model.config
    crops = word_crops(config.img_size, config.charset_train, config.max_label_length, 48, seed=2)
    reference = GRAPH.reference(model, np.stack([crop.pixels for crop in crops]))
    assert check_agreement(rounded(model, "fp16"), reference, crops, "fp16").problem is None
    assert check_parity(serialised(written(model)), reference, crops).problem is None
    assert check_parity(serialised(written(small_vitstr(seed=6))), reference, crops).problem is not None


def test_options_of_others_are_refused() -> None:
    for name, value in (("decode", "nar"), ("refine_iters", 1), ("early_exit", True)):
        with pytest.raises(ExportError, match=f"--{name.replace('_', '-')} is no option of 'vitstr'"):
            build_artifact(network("small"), ExportOptions("mine", "", {name: value}))
