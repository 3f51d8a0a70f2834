"""Half precision and 8-bit integers: interface, agreement with PyTorch, and what the gate makes of them."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from artifact.metadata import Precision
from export.gate import agreement
from export.gate.agreement import DEMANDS, AgreementReport, check_agreement, planned_readings
from export.gate.calibrate import observe_ranges
from export.gate.crop_sources import CropSourceError, calibration_crops, parity_data
from export.gate.crops import word_crops
from export.gate.parity import BATCH_SIZES, Failure, ParityError
from export.graphs.builder import GraphBuilder
from export.graphs.int8 import CalibrationBuilder, Int8Builder, round_weight, scale_and_zero
from export.graphs.parseq.decoder import DecoderGraph
from export.graphs.parseq.graph import Decode
from export.to_onnx import ExportOptions, Ranges, build_artifact, export_artifact, observed_ranges, run_parity_gate
from model.recognisers.parseq.network import PARSeq
from tests.export_models import RESIDUAL, export_options, read_with_torch, run, serialised, small_model, write_graph

pytestmark = pytest.mark.slow

NETWORKS: dict[str, dict[str, Any]] = {
    "patch": {},
    "residual": RESIDUAL,
    # Every layer is written out for every step: more of them show nothing new and take ONNX Runtime seconds to open.
    "two-layers": {"dec_depth": 2, "max_label_length": 6},
}
UNUSUAL: dict[str, dict[str, Any]] = {
    "28-long": {"max_label_length": 28},
    "7000-characters": {"charset_train": "".join(map(chr, range(0x4E00, 0x4E00 + 7000)))},
    "224x224": {"img_size": (224, 224), "patch_size": (16, 16), "enc_depth": 1},
}
MODES: list[tuple[Decode, int]] = [("ar", 1), ("nar", 1), ("ar", 0)]
LOGIT_ERROR: dict[str, float] = {"fp16": 0.02, "int8": 0.2}
"""Mean over the steps before which nothing differed."""
FIRST: dict[str, float] = {"fp16": 0.9, "int8": 0.7}
"""Share of crops whose first step is PyTorch's; weights of 7 bits turn more near ties of made-up networks."""
FAITHFUL: dict[str, float] = {"fp16": 0.9, "int8": 0.5}
"""Share of those steps."""


@functools.cache
def network(name: str) -> PARSeq:
    """One of `NETWORKS`, always the same object, so that its graphs are kept."""
    return small_model(**NETWORKS[name])


@pytest.fixture
def few_crops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate draws fewer crops, for problems that each of many shows, and opens a graph that it is given again only once."""
    request.getfixturevalue("small_gate")
    monkeypatch.setattr("export.gate.gate.AGREEMENT_CROPS", 32)
    monkeypatch.setattr("export.gate.crop_sources.CALIBRATION_CROPS", 32)
    monkeypatch.setattr(agreement, "open_cpu_session", functools.cache(agreement.open_cpu_session))
    monkeypatch.setattr("export.gate.parity.open_cpu_session", agreement.open_cpu_session)


def pixels_for(model: PARSeq, count: int = 16) -> NDArray[np.uint8]:
    config = model.config
    crops = word_crops(config.img_size, config.charset_train, config.max_label_length, count, seed=1)
    return np.stack([crop.pixels for crop in crops])


def builder_for(model: PARSeq, precision: Precision, decode: Decode, refine_iters: int) -> GraphBuilder:
    if precision == "fp16":
        return GraphBuilder(TensorProto.FLOAT16)
    return Int8Builder(drawn_ranges(model, decode, refine_iters))


@functools.cache
def drawn_ranges(model: PARSeq, decode: Decode, refine_iters: int) -> Ranges:
    return ranges_of(model, pixels_for(model), decode, refine_iters)


def ranges_of(model: PARSeq, pixels: NDArray[np.uint8], decode: Decode, refine_iters: int) -> Ranges:
    return observe_ranges(lambda builder: write_graph(model, decode, refine_iters, builder=builder), pixels)


@functools.cache
def rounded(
    model: PARSeq, precision: Precision, decode: Decode = "ar", refine_iters: int = 1, *, early_exit: bool = False
) -> bytes:
    builder = builder_for(model, precision, decode, refine_iters)
    return serialised(write_graph(model, decode, refine_iters, early_exit=early_exit, with_logits=True, builder=builder))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize(("name", "refine_iters"), [("patch", 0), ("patch", 1), ("residual", 1), ("two-layers", 1)])
def test_a_loop_rounds_as_the_steps_written_out_do(name: str, refine_iters: int, precision: Precision) -> None:
    model = network(name)
    pixels = pixels_for(model)
    written = run(rounded(model, precision, "ar", refine_iters), pixels, 4)
    loop = run(rounded(model, precision, "ar", refine_iters, early_exit=True), pixels, 4)
    ends = [row.index(0) + 1 if 0 in row else len(row) for row in written[0].tolist()]
    assert min(ends) < len(written[0][0])
    for crop, end in enumerate(ends):
        assert np.array_equal(loop[0][crop, :end], written[0][crop, :end])
        assert np.abs(loop[2][crop, :end] - written[2][crop, :end]).max() < LOGIT_ERROR[precision]


def test_the_steps_of_a_loop_multiply_integers() -> None:
    # What is rounded once outside would be multiplied as floats inside: ONNX Runtime fuses within one graph only.
    graph = onnx.load_from_string(rounded(network("patch"), "int8", early_exit=True)).graph
    (loop,) = (node for node in graph.node if node.op_type == "Loop")
    body = loop.attribute[0].g
    made = {name: node.op_type for node in body.node for name in node.output}
    products = [node for node in body.node if node.op_type == "MatMul" and made.get(node.input[1]) == "DequantizeLinear"]
    assert len(products) == 5  # two projections to the memory, one from the tokens, two of the feed-forward network


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize(
    ("name", "decode", "refine_iters"),
    # Of the others the pass that has all parts in it, from the graphs that are made for the loop.
    [*(("patch", *mode) for mode in MODES), ("residual", "ar", 1), ("two-layers", "ar", 1)],
)
def test_rounded_graphs_read_nearly_as_pytorch(name: str, decode: Decode, refine_iters: int, precision: Precision) -> None:
    model = network(name)
    pixels = pixels_for(model)
    expected = read_with_torch(model, pixels, decode, refine_iters)
    content = rounded(model, precision, decode, refine_iters)
    together, alone = run(content, pixels, 16), run(content, pixels, 1)
    for token_ids, confidences, logits in (together, alone):
        assert (token_ids.dtype, confidences.dtype, logits.dtype) == (np.int64, np.float32, np.float32)
        same = (token_ids == expected.token_ids).cumprod(1).astype(bool)
        assert np.abs(logits - expected.logits)[same].mean() < LOGIT_ERROR[precision]
        # Made-up weights decide narrowly, so late steps may differ, and the first where two characters were near.
        first, second = np.sort(expected.logits[:, 0], axis=-1)[:, :-3:-1].T
        decided = first - second > 3 * LOGIT_ERROR[precision]
        assert same[:, 0].mean() >= FIRST[precision]
        assert decided.sum() >= 4
        assert same[decided, 0].all()
        assert same.mean() >= FAITHFUL[precision]
    # Scales are constants: the company of a crop moves nothing but the last digits.
    assert np.abs(together[2] - alone[2])[:, 0].max() < LOGIT_ERROR[precision]


@pytest.mark.parametrize(
    ("name", "precision"),
    [("28-long", "fp16"), ("28-long", "int8"), ("7000-characters", "fp16"), ("7000-characters", "int8"), ("224x224", "int8")],
)
def test_unusual_sizes(name: str, precision: Precision) -> None:
    model = small_model(**UNUSUAL[name])
    pixels = pixels_for(model, 8)
    expected = read_with_torch(model, pixels, "ar", 1)
    token_ids, confidences, logits = run(rounded(model, precision), pixels, 8)
    same = (token_ids == expected.token_ids).cumprod(1).astype(bool)
    assert np.abs(logits - expected.logits)[same].mean() < LOGIT_ERROR[precision]
    assert np.isfinite(confidences).all()
    assert same[:, 0].mean() >= 0.5


@pytest.mark.parametrize("sizes", [{}, RESIDUAL], ids=["patch", "residual"])
def test_half_precision_keeps_types_and_the_head_in_full(sizes: dict[str, Any]) -> None:
    model = small_model(**sizes)
    graph = write_graph(model, "ar", 1, builder=GraphBuilder(TensorProto.FLOAT16)).model("test", {}, "0").graph
    assert [value.type.tensor_type.elem_type for value in graph.input] == [TensorProto.UINT8]
    assert [value.type.tensor_type.elem_type for value in graph.output] == [TensorProto.INT64, TensorProto.FLOAT]
    full = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    assert full == {"head.weight", "head.bias", "decoder.norm.weight", "decoder.norm.bias"}
    first = next(tensor for tensor in graph.initializer if tensor.name in ("stem.weight", "stem.0.weight"))
    values = np.abs(numpy_helper.to_array(first))
    assert np.median(values) > np.finfo(np.float16).tiny, "no weight loses its digits to pixel normalisation"


def test_int8_stores_a_quarter() -> None:
    model = small_model(embed_dim=96, charset_train="ab")
    whole = len(serialised(write_graph(model, "nar", 0)))
    small = len(rounded(model, "int8", "nar", 0))
    assert small < 0.5 * whole
    graph = onnx.load_from_string(rounded(model, "int8", "nar", 0)).graph
    integers = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.INT8}
    assert {"encoder.0.qkv", "decoder.0.linear1", "decoder.0.cross.key", "decoder.0.cross.value"} <= integers


def test_calibration_observes_what_is_rounded_and_covers_it() -> None:
    model = small_model(**RESIDUAL)
    calibration = CalibrationBuilder()
    write_graph(model, "ar", 1, builder=calibration)
    pixels = pixels_for(model, 8)
    ranges = ranges_of(model, pixels[:4], "ar", 1)
    assert set(ranges) == set(calibration.observed)
    assert ranges["stem.input"][0] >= -127.5
    assert ranges["stem.2"][0] == 0.0
    assert len(calibration.observed["decoder.0.linear1.input"]) == model.config.max_label_length + 1
    wider = ranges_of(model, pixels, "ar", 1)
    assert all(wider[key][0] <= low and high <= wider[key][1] for key, (low, high) in ranges.items())


@pytest.mark.parametrize(
    ("seen", "zero"), [((0.0, 5.1), 0), ((-1.0, 1.0), 128), ((-2.0, -1.0), 255), ((1.0, 2.0), 0), ((0.0, 0.0), 0)]
)
def test_zero_is_met_exactly_and_the_range_is_covered(seen: tuple[float, float], zero: int) -> None:
    scale, found = scale_and_zero(seen)
    assert found in (zero, zero - 1)
    assert scale > 0
    assert (0 - found) * scale <= min(seen[0], 0) + scale
    assert (255 - found) * scale >= max(seen[1], 0) - scale


def test_weights_are_rounded_per_output() -> None:
    weight = torch.tensor([[1.0, -0.5], [100.0, 50.0], [0.0, 0.0]])
    integers, scales = round_weight(weight)
    assert integers.tolist() == [[63, -31], [63, 31], [0, 0]]
    assert np.allclose(integers * scales[:, None], weight.numpy(), atol=0.8)


@pytest.mark.parametrize("early_exit", [False, True])
def test_two_products_fit_into_sixteen_bits(early_exit: bool) -> None:
    """Processors without VNNI keep no more of them; values that they multiply go up to 255."""
    graph = onnx.load_from_string(rounded(network("residual"), "int8", early_exit=early_exit)).graph
    bodies = [
        attribute.g for node in graph.node if node.op_type == "Loop" for attribute in node.attribute if attribute.HasField("g")
    ]
    constants = [constant for part in (graph, *bodies) for constant in part.initializer]
    weights = [numpy_helper.to_array(constant) for constant in constants if constant.data_type == TensorProto.INT8]
    assert len(weights) > 10
    assert max(int(np.abs(weight).max()) for weight in weights) * 255 * 2 < 2**15


def agreement_of(content: bytes, model: PARSeq, precision: Precision, count: int = 48) -> AgreementReport:
    config = model.config
    crops = word_crops(config.img_size, config.charset_train, config.max_label_length, count, seed=2)
    reference = read_with_torch(model, np.stack([crop.pixels for crop in crops]), "ar", 1)
    return check_agreement(content, reference, crops, precision)


def test_the_gate_lets_a_faithful_graph_through() -> None:
    model = network("patch")
    report = agreement_of(rounded(model, "fp16"), model, "fp16")
    assert report.problem is None
    assert report.agreement >= report.floor == 0.995
    assert report.comparisons == sum(len(chosen) for _, chosen in planned_readings(48))
    assert 0 < report.mean_confidence_difference < 0.005
    assert "near ties apart" in report.summary


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_gate_refuses_another_network(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "DEMANDS", {precision: replace(DEMANDS[precision], tie_margin=0.01)})
    model = network("patch")
    report = agreement_of(rounded(small_model(seed=6), precision), model, precision)
    assert report.problem is not None
    assert "agrees with PyTorch on" in report.problem
    assert "are demanded; crop text" in report.problem
    assert report.failures


def cut_short(artifact: bytes, rounds: int) -> bytes:
    """The artifact with a loop that ends after `rounds` rounds, whatever the texts say."""
    proto = onnx.load_from_string(artifact)
    (loop,) = (node for node in proto.graph.node if node.op_type == "Loop")
    proto.graph.initializer.append(numpy_helper.from_array(np.array(rounds), "fewer"))
    loop.input[0] = "fewer"
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize(("precision", "refine_iters"), [("fp16", 1), ("int8", 0)])
@pytest.mark.usefixtures("few_crops")
def test_the_gate_refuses_a_loop_that_cuts_long_texts(precision: Precision, refine_iters: int) -> None:
    model = small_model(eos_bias=1.0, max_label_length=6)
    options = export_options("ar", refine_iters, precision=precision, early_exit=True)
    ranges = observed_ranges(model, options)
    artifact = build_artifact(model, options, ranges).SerializeToString()
    faithful = gate(artifact, model, options, ranges)
    assert faithful is None or "reads otherwise" not in faithful
    refused = gate(cut_short(artifact, 4), model, options, ranges)
    assert refused is not None
    assert "the early exit reads otherwise than every step written out: crop" in refused


def gate(artifact: bytes, model: PARSeq, options: ExportOptions, ranges: Ranges) -> str | None:
    """What the gate says against an artifact."""
    try:
        return run_parity_gate(artifact, model, options, ranges).problem
    except ParityError as error:
        return str(error)


@pytest.mark.usefixtures("few_crops")
def test_rounding_excuses_no_wrong_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    # Steps that forget the last token: PyTorch and the float32 graph differ, and near ties must not hide it.
    monkeypatch.setattr(DecoderGraph, "_token_key_value", lambda self, *_: self.begin().caches[0])
    model = small_model(max_label_length=6)
    options = export_options("ar", 0, precision="fp16")
    said = gate(build_artifact(model, options).SerializeToString(), model, options, {})
    assert said is not None
    assert said.startswith("without any rounding")


def report_with(**values: Any) -> AgreementReport:
    base: dict[str, Any] = {
        "precision": "int8",
        "crops": 100,
        "batch_sizes": [1],
        "floor": 0.97,
        "tie_margin": 0.5,
        "agreement": 1.0,
        "mean_confidence_difference": 0.001,
    }
    return AgreementReport(**{**base, **values})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, None),
        ({"agreement": 0.97}, None),
        ({"agreement": 0.96, "failures": [Failure("x", 1, 2, "another token")]}, "96.00% of the readings, 97.00% are demanded"),
        ({"agreement": float("nan")}, "agrees with PyTorch on"),
        ({"mean_confidence_difference": 0.06}, "confidences differ from PyTorch's by 0.06"),
        ({"mean_confidence_difference": float("nan")}, "confidences differ"),
        ({"structure_problem": "cut short"}, "cut short"),
        ({"near_ties": 80}, None),
        ({"near_ties": 81}, "are the weights trained?"),
    ],
)
def test_limits_of_the_gate(values: dict[str, Any], said: str | None) -> None:
    problem = report_with(**values).problem
    assert (problem is None) is (said is None)
    assert said is None or said in str(problem)


def test_some_crops_are_read_at_every_size_and_all_at_the_largest() -> None:
    plan = planned_readings(100)
    assert {size for size, _ in plan} == set(BATCH_SIZES)
    read = np.concatenate([chosen for size, chosen in plan if size == 32])
    assert set(read.tolist()) == set(range(100))


def test_the_calibration_crops_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def draw(*args: Any) -> tuple[NDArray[np.uint8], str]:
        pixels, said = calibration_crops(*args)
        drawn.append(said)
        return pixels[:8], "8 crops"

    monkeypatch.setattr("export.to_onnx.calibration_crops", draw)
    monkeypatch.setattr("export.gate.gate.AGREEMENT_CROPS", 8)
    monkeypatch.setattr("export.gate.agreement.AgreementReport.problem", None)
    summary = export_artifact(small_model(), export_options("nar", 0, precision="int8"), tmp_path / "a.onnx")
    assert drawn == ["256 drawn crops"]
    assert isinstance(summary.parity, AgreementReport)
    assert summary.parity.calibration == "8 crops"


def test_crops_from_folders(tmp_path: Path) -> None:
    config = small_model().config
    drawn, said = calibration_crops((), config)
    assert drawn.shape == (256, 16, 64, 3)
    assert said == "256 drawn crops"
    with pytest.raises(CropSourceError, match="no LMDB archive"):
        calibration_crops([tmp_path], config)
    with pytest.raises(CropSourceError, match="no LMDB archive"):
        parity_data(tmp_path, config)
