"""Graphs that give candidates of each step, and graphs that are told which characters are allowed, beside PyTorch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from artifact.allowed import entries_of
from artifact.metadata import ALLOWED_NAME, INPUT_NAME, TOKEN_IDS_NAME, TOP_IDS_NAME, ArtifactMetadata
from artifact.session import open_cpu_session
from artifact.text import text_length
from export.gate.crops import parity_crops, restricted_crops, stacked
from export.gate.gate import RESTRICTED_CROPS
from export.gate.parity import ParityError, ParityReport, check_parity, run_artifact, wrong_candidates
from export.graphs.interface import ExportError, graph_of, write_top
from export.to_onnx import ExportOptions, build_artifact, export_artifact, run_parity_gate
from model.recognisers.interface import Network
from model.recognisers.restriction import restricted
from service.engine.runs import run_with_checked
from service.engine.types import Wanted
from service.errors import StartupError
from service.sessions.artifact import load_artifact
from service.sessions.devices import DeviceSession, SpreadSession
from tests.export_models import export_options, small_model, small_vitstr
from tests.fakes import toy_settings
from tests.small_abinet import small_abinet
from tests.small_recognisers import SMALL, made_up

NETWORKS: dict[str, Any] = {
    "parseq": small_model,
    "vitstr": small_vitstr,
    "abinet": small_abinet,
    "trba": lambda: made_up(SMALL["trba"]),
    "crnn": lambda: made_up(SMALL["crnn"]),
}


def compared(network: Network, options: ExportOptions) -> tuple[bytes, ParityReport]:
    """The artifact of a network, and what a small gate says of it: few crops, half of them restricted, at one size of batch."""
    artifact = build_artifact(network, options).SerializeToString()
    config, graph = network.config, graph_of(network)
    crops = parity_crops(config.img_size, config.charset_train, config.max_label_length)[:12]
    if options.with_allowed:
        crops = [crop for pair in zip(crops, restricted_crops(crops, config.charset_train), strict=True) for crop in pair]
    reads_so = graph.network_that_reads_so(network, graph.options(network, options.reading, options.precision))
    pixels, allowed = stacked(crops)
    reference = graph.reference(reads_so, pixels) if allowed is None else graph.reference(reads_so, pixels, allowed)
    return artifact, check_parity(artifact, reference, crops, batch_sizes=(5,))


def up_to_end(ids: NDArray[np.int64]) -> list[list[int]]:
    """The tokens of each crop before its end."""
    return [row[: text_length(row)] for row in ids.tolist()]


def check_that_only_allowed_is_read(artifact: bytes, network: Network) -> None:
    """Whatever crops show: with half of the charset, a half of its own for each crop, nothing else is read."""
    config = network.config
    crops = parity_crops(config.img_size, config.charset_train, config.max_label_length)[:12]
    pixels = np.stack([crop.pixels for crop in crops])
    allowed = np.random.default_rng(1).random((len(crops), len(config.charset_train))) < 0.5
    session = open_cpu_session(artifact)
    outputs = run_artifact(session, pixels, allowed)
    ids = outputs[TOKEN_IDS_NAME]
    assert all(allowed[crop, token - 1] for crop, row in enumerate(up_to_end(ids)) for token in row)
    assert sum(map(len, up_to_end(ids))) > 10
    assert up_to_end(run_artifact(session, pixels)[TOKEN_IDS_NAME]) != up_to_end(ids)
    # Nobody's choice is another's, and one for all is the same as one for each.
    alone = run_artifact(session, pixels[3:4], allowed[3:4])[TOKEN_IDS_NAME]
    assert up_to_end(alone) == up_to_end(ids[3:4])
    alike = run_artifact(session, pixels, np.repeat(allowed[:1], len(crops), 0))[TOKEN_IDS_NAME]
    assert up_to_end(run_artifact(session, pixels, allowed[:1])[TOKEN_IDS_NAME]) == up_to_end(alike)


@pytest.mark.parametrize("name", ["vitstr", "abinet", "trba"])
def test_recognisers_of_steps_pass_the_gate(name: str) -> None:
    network = NETWORKS[name]()
    artifact, report = compared(network, ExportOptions("mine", "", top=3, with_allowed=True))
    assert report.problem is None
    check_that_only_allowed_is_read(artifact, network)


@pytest.mark.parametrize(
    ("decode", "refine_iters", "early_exit"),
    [("ar", 1, True), ("ar", 0, True), ("ar", 0, False), ("ar", 2, False), ("nar", 1, False)],
)
def test_parseq_passes_the_gate_however_it_decodes(decode: Any, refine_iters: int, early_exit: bool) -> None:
    network = small_model()
    options = export_options(decode, refine_iters, early_exit=early_exit, top=5, with_allowed=True)
    artifact, report = compared(network, options)
    assert report.problem is None
    check_that_only_allowed_is_read(artifact, network)


def test_columns_can_be_told_what_is_allowed_and_have_no_candidates() -> None:
    network = NETWORKS["crnn"]()
    artifact, report = compared(network, ExportOptions("mine", "", with_allowed=True))
    assert report.problem is None
    check_that_only_allowed_is_read(artifact, network)
    with pytest.raises(ExportError, match="'crnn' has no candidates for each step of a text: leave --top out"):
        build_artifact(network, ExportOptions("mine", "", top=5))


def test_more_candidates_than_classes_are_refused() -> None:
    with pytest.raises(ExportError, match="--top 99 is more than"):
        build_artifact(small_model(), ExportOptions("mine", "", top=99))


def test_a_graph_that_ignores_what_is_allowed_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_vitstr()
    monkeypatch.setattr("export.graphs.builder.GraphBuilder.restrict", lambda _self, logits, _penalty: logits)
    problem = compared(network, ExportOptions("mine", "", with_allowed=True))[1].problem
    assert "characters allowed" in str(problem)


def test_a_graph_that_masks_what_was_read_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    # Masked afterwards: the refinement has seen what may not be read.
    network = small_model()
    options = export_options("ar", 1, with_allowed=True)
    artifact = build_artifact(network, options).SerializeToString()
    usual = type(network).passes

    def late(self: Any, images: torch.Tensor, allowed: torch.Tensor | None = None) -> Any:
        return [restricted(logits, allowed) for logits in usual(self, images)]

    monkeypatch.setattr(type(network), "passes", late)
    with pytest.raises(ParityError, match="characters allowed"):
        run_parity_gate(artifact, network, options, {})


def test_wrong_candidates_do_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def confused(g: Any, logits: str, probabilities: str, count: int, steps: int) -> None:
        write_top(g, g.node("Neg", [logits]), probabilities, count, steps)

    monkeypatch.setattr("export.graphs.interface.write_top", confused)
    problem = compared(small_vitstr(), ExportOptions("mine", "", top=3))[1].problem
    assert "candidates" in str(problem)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_precisions_that_round(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.gate.crop_sources.CALIBRATION_CROPS", 16)
    network = small_model()
    options = export_options("ar", 1, early_exit=True, top=5, with_allowed=True, precision=precision)
    artifact = build_artifact(network, options).SerializeToString()
    check_that_only_allowed_is_read(artifact, network)
    config = network.config
    crops = parity_crops(config.img_size, config.charset_train, config.max_label_length)[4:12]
    outputs = run_artifact(open_cpu_session(artifact), *stacked(restricted_crops(crops, config.charset_train)))
    for row in range(len(crops)):
        assert wrong_candidates(outputs, row, len(up_to_end(outputs[TOKEN_IDS_NAME])[row]) + 1) is None


def test_the_gate_reads_with_a_part_of_the_charset_too(tmp_path: Path) -> None:
    summary = export_artifact(small_model(), export_options("ar", 1, top=5, with_allowed=True), tmp_path / "a.onnx")
    plain = parity_crops(small_model().config.img_size, small_model().config.charset_train, 10)
    assert summary.parity.crops == len(plain) + RESTRICTED_CROPS
    assert (summary.metadata.top_count, summary.metadata.has_allowed, summary.metadata.schema_version) == (5, True, 2)


def test_what_is_not_asked_for_is_not_in_the_graph() -> None:
    plain = build_artifact(small_model(), ExportOptions("mine", ""))
    assert [value.name for value in plain.graph.input] == [INPUT_NAME]
    assert not {"Gemm", "TopK", "Where"} & {node.op_type for node in plain.graph.node}
    assert ArtifactMetadata.from_map({entry.key: entry.value for entry in plain.metadata_props}).schema_version == 1


def test_the_service_runs_it(tmp_path: Path) -> None:
    network = small_model()
    path = tmp_path / "a.onnx"
    path.write_bytes(build_artifact(network, ExportOptions("mine", "", top=3, with_allowed=True)).SerializeToString())
    loaded = load_artifact(toy_settings(artifact=path))
    crops = [crop.pixels for crop in parity_crops((loaded.metadata.image_height, loaded.metadata.image_width), "abc", 7)[:3]]
    row = entries_of("digits", loaded.metadata.vocabulary)
    wanted = Wanted(np.stack([row, ~row, row]), top=True)
    outputs = run_with_checked(loaded.session, crops, wanted)
    assert outputs.top_ids is not None
    assert np.array_equal(outputs.top_ids[..., 0], outputs.token_ids)
    onnx_session: Any = loaded.session
    shape = (loaded.metadata.image_height, loaded.metadata.image_width, 3)
    lane = DeviceSession(onnx_session._session, "cpu", 0, shape, (1, 2, 4))
    for got, expected in zip(SpreadSession([lane]).run_with(np.stack(crops), wanted), outputs, strict=True):
        assert np.array_equal(got, expected)
    without = run_with_checked(loaded.session, crops, Wanted(None, top=False))
    assert (without.top_ids, without.top_confidences) == (None, None)
    assert np.array_equal(without.token_ids, loaded.session.run(np.stack(crops))[0])


def test_metadata_and_graph_must_agree(tmp_path: Path) -> None:

    network = small_model()
    proto = build_artifact(network, ExportOptions("mine", ""))
    metadata = ArtifactMetadata.from_map({entry.key: entry.value for entry in proto.metadata_props})
    for claim, said in (({"has_allowed": True}, ALLOWED_NAME), ({"top_count": 2}, TOP_IDS_NAME)):
        del proto.metadata_props[:]
        for key, value in replace(metadata, **claim).to_map().items():
            proto.metadata_props.add(key=key, value=value)
        path = tmp_path / "a.onnx"
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(StartupError, match=said):
            load_artifact(toy_settings(artifact=path))
