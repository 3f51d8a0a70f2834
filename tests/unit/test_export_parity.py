"""The parity gate: what it lets through and what it does not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from artifact.allowed import Allowed
from export.gate import parity
from export.gate.crops import BATCH, GateCrop, Pixels, parity_crops
from export.gate.parity import BATCH_SIZES, ParityReport, batches, check_parity
from export.graphs.interface import Reference, graph_of
from export.graphs.parseq.graph import Decode
from model.recognisers.parseq.network import PARSeq
from tests.export_models import parity_of, read_with_torch, serialised, small_model, small_vitstr, write_graph
from tests.small_abinet import small_abinet
from tests.small_recognisers import SMALL, made_up

SIZES = (1, 3, 32)
NETWORKS: dict[str, Callable[[], Any]] = {
    "parseq": small_model,
    "vitstr": small_vitstr,
    "abinet": small_abinet,
    **{name: partial(made_up, SMALL[name]) for name in ("crnn", "trba", "trbc")},
}


def crops_for(model: PARSeq) -> list[GateCrop]:
    config = model.config
    return parity_crops(config.img_size, config.charset_train, config.max_label_length)


def sabotaged(content: bytes, named: str, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    proto = onnx.load_from_string(content)
    (tensor,) = [tensor for tensor in proto.graph.initializer if tensor.name == named]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), named))
    return bytes(proto.SerializeToString())


def other_tokens_at(position: int, table: np.ndarray) -> np.ndarray:
    """Keys and values, in which the tokens of one position have changed places."""
    classes = (len(table) - 1) // 10
    rows = slice((position - 1) * classes, position * classes)
    table[rows] = np.roll(table[rows], 1, 0)
    return table


@pytest.fixture(scope="module")
def model() -> PARSeq:
    return small_model()


@pytest.fixture(scope="module")
def artifact(model: PARSeq) -> bytes:
    return serialised(write_graph(model, "ar", 1, with_logits=True))


def test_a_faithful_graph_passes(model: PARSeq, artifact: bytes) -> None:
    crops = crops_for(model)
    seen: list[int] = []
    report = parity_of(artifact, model, crops, "ar", 1, batch_sizes=SIZES, progress=seen.append)
    assert report.problem is None
    assert report.failures == []
    assert report.crops == len(crops) == 32
    # Batch 1 once, the others in two companies.
    assert report.comparisons == 32 * 5 == sum(seen)
    assert 0 < report.max_confidence_difference < 1e-4
    assert report.max_logit_difference is not None
    assert report.max_logit_difference < 1e-4
    stored = json.loads(json.dumps(report.to_dict()))
    assert stored["torch_version"] == torch.__version__
    assert stored["batch_sizes"] == [1, 3, 32]
    assert stored["failures"] == []


@pytest.mark.parametrize(
    ("named", "change"),
    [
        ("head.weight", lambda weight: -weight),
        ("head.bias", lambda bias: np.roll(bias, 1)),
        ("decoder.0.linear1.weight", lambda weight: weight * np.nan),
        ("decoder.0.table", lambda table: other_tokens_at(7, table)),
    ],
    ids=["flipped", "rolled", "nan", "one-position"],
)
def test_a_sabotaged_graph_fails(
    model: PARSeq, artifact: bytes, named: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    broken = sabotaged(artifact, named, change)
    report = parity_of(broken, model, crops_for(model), "ar", 1, batch_sizes=SIZES)
    assert report.problem is not None
    failure = report.failures[0]
    assert failure.crop in {crop.description for crop in crops_for(model)}
    assert failure.batch_size == 1
    assert f"step {failure.step}" in report.problem
    assert "batch size 1" in report.problem


def test_the_first_step_that_differs_is_told(model: PARSeq) -> None:
    # Position 7 is seen from step 7 on, in reading; in the refinement everything sees it.
    plain = serialised(write_graph(model, "ar", 0))
    broken = sabotaged(plain, "decoder.0.table", lambda table: other_tokens_at(7, table))
    report = parity_of(broken, model, crops_for(model), "ar", 0, batch_sizes=(1,))
    assert report.failures
    assert all(failure.step >= 7 for failure in report.failures)


@pytest.mark.parametrize(("decode", "refine_iters"), [("nar", 1), ("ar", 0)])
def test_another_way_of_decoding_fails(model: PARSeq, artifact: bytes, decode: Decode, refine_iters: int) -> None:
    assert parity_of(artifact, model, crops_for(model), decode, refine_iters, batch_sizes=(1,)).problem


def test_a_graph_that_gives_fewer_steps_fails(model: PARSeq) -> None:
    short = serialised(write_graph(small_model(max_label_length=5), "nar", 0))
    report = parity_of(short, model, crops_for(model), "nar", 0, batch_sizes=(1,))
    assert report.problem is not None
    assert "gives 6 steps, the network 11" in report.problem


def test_confidences_alone_can_fail(model: PARSeq) -> None:
    # Twice the logits: the same text with other confidences.
    plain = serialised(write_graph(model, "nar", 0))
    broken = sabotaged(plain, "head.weight", lambda w: w * 2)
    broken = sabotaged(broken, "head.bias", lambda b: b * 2)
    report = parity_of(broken, model, crops_for(model), "nar", 0, batch_sizes=(1,))
    assert report.problem is not None
    assert "confidence differs" in report.problem


def test_a_network_that_cannot_decide_is_refused() -> None:
    undecided = small_model()
    with torch.no_grad():
        undecided.head.weight.zero_()
        undecided.head.bias.zero_()
    content = serialised(write_graph(undecided, "nar", 0))
    report = parity_of(content, undecided, crops_for(undecided), "nar", 0, batch_sizes=(1,))
    assert report.near_ties == report.crops
    assert report.problem is not None
    assert "are the weights trained?" in report.problem


def test_near_ties_may_differ_but_not_many(monkeypatch: pytest.MonkeyPatch, model: PARSeq) -> None:
    plain = serialised(write_graph(model, "nar", 0))
    crops = crops_for(model)
    margins = np.sort(read_with_torch(model, np.stack([crop.pixels for crop in crops]), "nar", 0).margins)
    monkeypatch.setattr(parity, "TIE_MARGIN", float(margins[2] + margins[3]) / 2)
    rolled = sabotaged(plain, "head.bias", lambda bias: np.roll(bias, 1))
    report = parity_of(rolled, model, crops, "nar", 0, batch_sizes=(1, 3))
    assert report.near_ties == 3
    # Each crop counts once, however often it was read.
    assert report.near_ties_differing <= 3
    assert report.failures


def test_no_near_tie_excuses_what_is_no_number(monkeypatch: pytest.MonkeyPatch, model: PARSeq, artifact: bytes) -> None:
    monkeypatch.setattr(parity, "TIE_MARGIN", 1e9)
    monkeypatch.setattr(parity, "MAX_NEAR_TIES", 1.0)
    monkeypatch.setattr(parity, "MAX_DIFFERING", 1.0)
    crops = crops_for(model)
    rolled = sabotaged(artifact, "head.bias", lambda bias: np.roll(bias, 1))
    assert parity_of(rolled, model, crops, "ar", 1, batch_sizes=(1,)).problem is None
    broken = sabotaged(artifact, "decoder.0.linear1.weight", lambda weight: weight * np.nan)
    problem = parity_of(broken, model, crops, "ar", 1, batch_sizes=(1,)).problem
    assert problem is not None
    assert "confidences are no numbers" in problem


@pytest.mark.parametrize(("ties", "differing", "refused"), [(16, 3, False), (17, 0, True), (8, 4, True), (0, 0, False)])
def test_limits_on_near_ties(ties: int, differing: int, refused: bool) -> None:
    report = ParityReport(crops=32, batch_sizes=[1], near_ties=ties, near_ties_differing=differing)
    assert (report.problem is not None) is refused


def test_every_crop_is_read_at_every_size_in_two_companies() -> None:
    formed = list(batches(64, BATCH_SIZES))
    assert {size for size, _ in formed} == {1, 2, 3, 8, 32}
    for size in BATCH_SIZES:
        members = [chosen for formed_size, chosen in formed if formed_size == size]
        times = 1 if size == 1 else 2
        assert sorted(np.concatenate(members)) == sorted(list(range(64)) * times)
        assert max(map(len, members)) == size
        if size > 1:
            half = len(members) // 2
            assert any(not np.array_equal(a, b) for a, b in zip(members[:half], members[half:], strict=True))


def test_crops_cover_every_length_and_are_the_same_every_time() -> None:
    charset = "0123456789abcdefghijklmnopqrstuvwxyz"
    first, second = (parity_crops((32, 128), charset, 25) for _ in range(2))
    assert len(first) % BATCH == 0
    assert len({crop.pixels.tobytes() for crop in first}) == len(first)
    lengths = {int(crop.description.rpartition(" ")[2]) for crop in first if crop.description.startswith("text")}
    assert lengths == set(range(1, 26))
    for a, b in zip(first, second, strict=True):
        assert a.description == b.description
        assert np.array_equal(a.pixels, b.pixels)
        assert a.pixels.shape == (32, 128, 3)
        assert a.pixels.dtype == np.uint8


@pytest.mark.parametrize("length", [1, 70])
def test_crops_for_other_charsets_and_lengths(length: int) -> None:
    crops = parity_crops((16, 48), "日本語", length)
    assert len(crops) % BATCH == 0
    assert len(crops) <= 64
    assert any(crop.description.endswith(f" of {length}") for crop in crops)


def test_a_crop_that_the_network_reads_otherwise_without_rounding_is_a_near_tie(model: PARSeq, artifact: bytes) -> None:
    crops = crops_for(model)
    exact = read_with_torch(model, np.stack([crop.pixels for crop in crops]), "ar", 1)
    rounded = replace(exact, token_ids=exact.token_ids.copy(), margins=np.ones_like(exact.margins))
    rounded.token_ids[7, 0] += 1
    asked: list[int] = []

    def unrounded(pixels: Pixels, _allowed: Allowed | None) -> Reference:
        asked.append(len(pixels))
        assert (pixels[0] == crops[7].pixels).all()
        return replace(exact, token_ids=exact.token_ids[7:8], confidences=exact.confidences[7:8])

    report = check_parity(artifact, rounded, crops, batch_sizes=(1, 8), unrounded=unrounded)
    assert (report.problem, report.near_ties, report.near_ties_differing, asked) == (None, 1, 1, [1])

    def the_same(_pixels: Pixels, _allowed: Allowed | None) -> Reference:
        return replace(rounded, token_ids=rounded.token_ids[7:8], confidences=rounded.confidences[7:8])

    # Where the network reads the same without rounding the graph is to blame.
    refused = check_parity(artifact, rounded, crops, batch_sizes=(1,), unrounded=the_same)
    assert (refused.near_ties, len(refused.failures)) == (0, 1)
    assert (refused.problem or "").startswith("the exported graph does not read as PyTorch does")


@pytest.mark.parametrize(
    ("without_rounding", "with_rounding", "excused"), [(0.0007, 0.0013, True), (0.0018, 0.0019, False), (0.0, 0.0011, True)]
)
def test_the_rounding_of_the_network_is_no_fault_of_the_graph(
    without_rounding: float, with_rounding: float, excused: bool, model: PARSeq, artifact: bytes
) -> None:
    crops = crops_for(model)
    read = read_with_torch(model, np.stack([crop.pixels for crop in crops]), "ar", 1)
    rounded = replace(read, confidences=read.confidences.copy(), margins=np.ones_like(read.margins))
    rounded.confidences[7, 0] += with_rounding

    def unrounded(_pixels: Pixels, _allowed: Allowed | None) -> Reference:
        confidences = read.confidences[7:8].astype(np.float64)
        confidences[0, 0] += without_rounding
        rows = {name: getattr(read, name)[7:8] for name in ("token_ids", "logits", "steps")}
        return replace(read, confidences=confidences, **rows)

    report = check_parity(artifact, rounded, crops, batch_sizes=(1, 8), unrounded=unrounded)
    assert (report.problem is None, report.near_ties_differing, len(report.failures)) == (
        excused,
        int(excused),
        0 if excused else 3,
    )


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_reads_in_float64(name: str) -> None:
    network = NETWORKS[name]()
    pixels = np.stack([crop.pixels for crop in crops_for(network)[:2]])
    graph = graph_of(network)
    found = graph.reference(copy.deepcopy(network).double(), pixels)
    assert found.confidences.dtype == np.float64
    np.testing.assert_allclose(found.confidences, graph.reference(network, pixels).confidences, atol=1e-4)
