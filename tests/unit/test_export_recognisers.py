"""Exported graphs of the recognisers beside PARSeq against PyTorch, on small networks."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from export.gate import gate
from export.gate.calibrate import observe_ranges
from export.gate.crops import parity_crops, word_crops
from export.graphs.builder import GraphBuilder
from export.graphs.ctc import CtcGraph
from export.graphs.int8 import Int8Builder
from export.graphs.interface import BATCH, ExportError, NoOptions, graph_of
from export.to_onnx import ExportOptions, artifact_metadata, build_artifact, observed_ranges, run_parity_gate
from model.recognisers.parts.normalise import normalise
from tests.export_models import new_session, run, run_session, serialised
from tests.small_recognisers import SMALL, made_up

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
NAMES = pytest.mark.parametrize("name", SMALL)
# Whatever is not here has to earn its place: no control flow, no boolean selection, no shape computed at run time.
EVERYWHERE = {
    "Add", "ArgMax", "Cast", "Conv", "Identity", "LSTM", "MatMul", "MaxPool", "ReduceMax", "Relu", "Reshape", "Sub",
    "Transpose",
}  # fmt: skip
COLLAPSE = {"CumSum", "Equal", "Exp", "Gather", "LogSoftmax", "Mul", "Not", "Or", "ReduceSum", "Where"}
RECTIFICATION = {"GlobalAveragePool", "GridSample", "ReduceMean"}
STEPS = {"Concat", "Gather", "Mul", "Sigmoid", "Slice", "Softmax", "Split", "Tanh"}
ALLOWED = {
    "crnn": EVERYWHERE | COLLAPSE,
    "crnn-leaky": (EVERYWHERE | COLLAPSE | {"LeakyRelu"}) - {"Relu"},
    "trba": EVERYWHERE | RECTIFICATION | STEPS,
    "trba-high": EVERYWHERE | RECTIFICATION | STEPS,
    "trbc": EVERYWHERE | RECTIFICATION | COLLAPSE,
}
LOCALISATION_CONVOLUTIONS = 4


@functools.cache
def network(name: str) -> Any:
    return made_up(SMALL[name])


@functools.cache
def crops_for(name: str) -> NDArray[np.uint8]:
    config = SMALL[name]
    crops = parity_crops(config.img_size, config.charset_train, config.max_label_length)[:32]
    return np.stack([crop.pixels for crop in crops])


def written(name: str, builder: GraphBuilder | None = None, **options: Any) -> GraphBuilder:
    graph = builder or GraphBuilder()
    graph_of(network(name)).write(graph, network(name), NoOptions(), **options)
    return graph


def logits_graph(name: str, builder: GraphBuilder) -> bytes:
    """The graph of what decisions rest on, without the decisions."""
    model, graph = network(name), graph_of(network(name))
    images = builder.input("images", TensorProto.UINT8, (BATCH, *model.config.img_size, 3))
    if isinstance(graph, CtcGraph):
        value = graph.name_columns(builder, model, NoOptions(), images)
    else:
        value = graph.read(builder, model, NoOptions(), images).logits or ""
    builder.output(value, "logits", TensorProto.FLOAT, (BATCH, None, None))
    return serialised(builder)


@pytest.fixture
def few_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """An int8 graph takes its scales from fewer crops, and one that rounds is read with fewer."""
    monkeypatch.setattr("export.gate.crop_sources.CALIBRATION_CROPS", 16)
    monkeypatch.setattr("export.gate.gate.AGREEMENT_CROPS", 16)
    monkeypatch.setattr("export.gate.agreement.IN_COMPANY", 16)
    drawn = gate.parity_crops
    monkeypatch.setattr(gate, "parity_crops", lambda *limits: drawn(*limits)[::4])
    monkeypatch.setattr("export.gate.agreement.BATCH_SIZES", (1, 8))


@NAMES
def test_it_reads_as_pytorch_alone_and_in_company(name: str) -> None:
    pixels = crops_for(name)
    expected = graph_of(network(name)).reference(network(name), pixels)
    with_logits = name.startswith("trba")
    session = new_session(serialised(written(name, with_logits=with_logits)))
    decided = expected.margins > TOLERANCE
    assert decided.sum() > len(pixels) // 2
    assert len({tuple(row) for row in expected.token_ids.tolist()}) > len(pixels) // 4
    # The order tells the text of one crop from that of its neighbours.
    order = np.random.default_rng(1).permutation(len(pixels))
    meaningful = ((np.arange(expected.token_ids.shape[1]) < expected.steps[:, None]) & decided[:, None])[order]
    for batch_size in (1, 2, 3, 32):
        token_ids, confidences, *logits = run_session(session, pixels[order], batch_size)
        assert token_ids.shape == expected.token_ids.shape
        assert np.array_equal(token_ids[meaningful], expected.token_ids[order][meaningful])
        assert np.abs(confidences - expected.confidences[order])[meaningful].max() < TOLERANCE
        if with_logits:
            assert np.abs(logits[0] - expected.logits[order])[meaningful].max() < TOLERANCE


@NAMES
def test_only_plain_operators_and_no_dead_ends(name: str) -> None:
    graph = written(name).model("test", {}, "0").graph
    operators = set(Counter(node.op_type for node in graph.node))
    assert operators <= ALLOWED[name]
    assert operators >= {"LSTM", "Conv"}
    constants = {tensor.name for tensor in graph.initializer}
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    assert shapes <= constants, "every size but the batch is a constant"
    used = {value for node in graph.node for value in node.input} | {output.name for output in graph.output}
    # The first step of a recurrent cell has nothing to forget.
    assert {value for node in graph.node if node.op_type != "Split" for value in node.output} <= used
    assert constants <= used
    assert len({node.name for node in graph.node}) == len(graph.node)


@NAMES
def test_the_batch_is_the_only_dynamic_size(name: str) -> None:
    proto, config = written(name).model("test", {}, "0"), SMALL[name]
    sizes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    steps = config.max_label_length + 1 if name.startswith("trba") else config.columns + 1
    wanted = {"images": ["batch", *config.img_size, 3], "token_ids": ["batch", steps], "confidences": ["batch", steps]}
    assert sizes == wanted
    assert onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph.node
    metadata = artifact_metadata(network(name), ExportOptions("mine", ""))
    assert metadata.max_label_length + 1 == steps
    kind = name.partition("-")[0]
    assert (metadata.architecture, metadata.decode_mode) == (kind, "ar" if kind == "trba" else "ctc")


@pytest.mark.usefixtures("few_batches", "few_crops")
@pytest.mark.parametrize("name", ["crnn", "trba", "trbc"])
def test_it_passes_the_gate_and_another_network_does_not(name: str) -> None:
    options = ExportOptions("mine", "")
    artifact = build_artifact(network(name), options).SerializeToString()
    report = run_parity_gate(artifact, network(name), options, {})
    assert report.near_ties < report.crops // 4
    with pytest.raises(RuntimeError, match="does not read as PyTorch does"):
        run_parity_gate(artifact, made_up(SMALL[name], seed=8), options, {})


@pytest.mark.usefixtures("few_batches", "few_crops")
@pytest.mark.parametrize(
    ("kind", "precision", "end_bias"),
    [("crnn", "fp16", 1.0), ("crnn", "int8", 2.0), ("trba", "int8", 2.0), ("trbc", "fp16", 2.0), ("trbc", "int8", 4.0)],
)
def test_other_precisions_pass_the_gate(kind: str, precision: Any, end_bias: float) -> None:
    # Two letters, and an end that is well liked: made-up weights decide nothing else by such a margin as int8 is asked for.
    model = made_up(replace(SMALL[kind], charset_train="ab", max_label_length=4), end_bias=end_bias)  # type: ignore[type-var]
    options = ExportOptions("mine", "", precision=precision)
    ranges = observed_ranges(model, options)
    report = run_parity_gate(build_artifact(model, options, ranges).SerializeToString(), model, options, ranges)
    assert report.near_ties < report.crops
    assert report.problem is None


def test_a_near_tie_of_trba_is_one_of_what_can_be_read() -> None:
    model = made_up(SMALL["trba"])
    pixels = crops_for("trba")
    usual = graph_of(model).reference(model, pixels)
    with torch.no_grad():
        # Begin, which is no answer, as good as the end, which often is.
        model.Prediction.generator.weight[-2] = model.Prediction.generator.weight[0]
        model.Prediction.generator.bias[-2] = model.Prediction.generator.bias[0]
        reference = graph_of(model).reference(model, pixels)
        logits = model(normalise(torch.from_numpy(pixels)))
    np.testing.assert_allclose(reference.margins, usual.margins, atol=TOLERANCE)
    assert np.array_equal(reference.token_ids, usual.token_ids)
    gaps = logits[..., :-2].sort(-1).values.diff(dim=-1)[..., -1].numpy()
    meaningful = np.arange(gaps.shape[1]) < reference.steps[:, None]
    np.testing.assert_allclose(reference.margins, np.where(meaningful, gaps, np.inf).min(1), atol=TOLERANCE)
    # Nor does it get the probability: half of what the end had.
    ends = reference.token_ids == 0
    assert ends.any()
    assert (reference.confidences[ends] <= 0.5 + TOLERANCE).all()
    token_ids, confidences = run(serialised(_graph_of(model)), pixels, 8)
    assert np.array_equal(token_ids[meaningful], reference.token_ids[meaningful])
    np.testing.assert_allclose(confidences[meaningful], reference.confidences[meaningful], atol=TOLERANCE)


def _graph_of(model: Any) -> GraphBuilder:
    graph = GraphBuilder()
    graph_of(model).write(graph, model, NoOptions())
    return graph


def test_texts_of_trba_that_never_end_are_not_cut() -> None:
    model = made_up(SMALL["trba"], end_bias=-100.0)
    token_ids, _ = run(serialised(_graph_of(model)), crops_for("trba")[:4], 4)
    assert (token_ids != 0).all()


def test_columns_have_no_logits_for_each_step() -> None:
    with pytest.raises(ExportError, match="'crnn' has no logits for each step"):
        written("crnn", with_logits=True)


@pytest.mark.parametrize(("option", "value"), [("decode", "ar"), ("refine_iters", 1), ("early_exit", True)])
def test_options_of_others_are_refused(option: str, value: object) -> None:
    with pytest.raises(ExportError, match=f"--{option.replace('_', '-')} is no option of 'trba'"):
        build_artifact(network("trba"), ExportOptions("mine", "", {option: value}))


@pytest.mark.parametrize("name", ["crnn", "trba"])
def test_half_precision_moves_logits_little(name: str) -> None:
    pixels = crops_for(name)
    (wanted,) = run(logits_graph(name, GraphBuilder()), pixels, 8)
    content = logits_graph(name, GraphBuilder(TensorProto.FLOAT16))
    (found,) = run(content, pixels, 8)
    steps = 1 if name.startswith("trba") else None
    assert np.median(np.abs(found - wanted)[:, :steps]) < 0.01
    types = {tensor.data_type for tensor in onnx.load_from_string(content).graph.initializer if np.prod(tensor.dims) > 1000}
    assert TensorProto.FLOAT16 in types


def test_rectification_is_float32_in_half_precision() -> None:
    proto = written("trba", GraphBuilder(TensorProto.FLOAT16)).model("test", {}, "0")
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    parts = Counter[tuple[str, int]]()
    for node in inferred.node:
        if node.op_type in ("GridSample", "Conv", "LSTM", "Tanh"):
            parts[node.op_type, types[node.output[0]]] += 1
    assert parts["GridSample", TensorProto.FLOAT] == 1
    assert parts["Conv", TensorProto.FLOAT] == LOCALISATION_CONVOLUTIONS
    assert parts["Conv", TensorProto.FLOAT16] > 20
    assert parts["LSTM", TensorProto.FLOAT16] == 2
    assert parts["Tanh", TensorProto.FLOAT] == 3 * SMALL["trba"].max_label_length + 3


def optimised(content: bytes, path: Path) -> onnx.GraphProto:
    """What ONNX Runtime makes of a graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return onnx.load(path).graph


@pytest.mark.parametrize("name", ["crnn", "crnn-leaky", "trba", "trbc"])
def test_integers_are_used_for_every_convolution_but_those_of_the_localisation(name: str, tmp_path: Path) -> None:
    config, model = SMALL[name], network(name)
    seen = word_crops(config.img_size, config.charset_train, config.max_label_length, 16, seed=1)
    ranges = observe_ranges(
        lambda builder: graph_of(model).write(builder, model, NoOptions()), np.stack([crop.pixels for crop in seen])
    )
    content = logits_graph(name, Int8Builder(ranges))
    operators = Counter(node.op_type for node in optimised(content, tmp_path / "optimised.onnx").node)
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())
    kept = LOCALISATION_CONVOLUTIONS if name.startswith("trb") else 0
    assert operators["QLinearConv"] == convolutions - kept
    assert operators["Conv"] + operators["FusedConv"] == kept
    assert operators["LSTM"] == 2
    pixels = crops_for(name)
    (wanted,), (found,) = run(logits_graph(name, GraphBuilder()), pixels, 8), run(content, pixels, 8)
    steps = 1 if name.startswith("trba") else None
    assert np.median(np.abs(found - wanted)[:, :steps]) < 0.15 * wanted.std()
