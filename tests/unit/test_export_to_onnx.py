"""Writing artifacts: metadata, refusal, atomicity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from artifact import files
from artifact.metadata import METADATA_KEY, PARITY_KEY, ArtifactError, ArtifactMetadata, Precision
from export import to_onnx
from export.gate import agreement, gate
from export.gate.agreement import Demand
from export.gate.parity import ParityError
from export.graphs.builder import OPSET
from export.graphs.interface import ExportError
from export.graphs.parseq.graph import ParseqGraph
from export.to_onnx import ExportOptions, artifact_metadata, build_artifact, export_artifact, weights_digest
from model.recognisers.parseq.network import PARSeq
from tests.export_models import export_options, run, small_model


@pytest.fixture(scope="module")
def model() -> PARSeq:
    return small_model()


def options(**changes: Any) -> ExportOptions:
    return export_options(changes.pop("decode", "nar"), changes.pop("refine_iters", 1), **changes)


def test_when_reading_ends_early(model: PARSeq) -> None:
    def loops(**changes: Any) -> bool:
        return artifact_metadata(model, options(**changes)).early_exit

    assert [loops(decode="ar", precision=precision) for precision in ("fp32", "fp16", "int8")] == [False, False, True]
    assert loops(decode="ar", early_exit=True)
    assert not loops(decode="ar", precision="int8", early_exit=False)
    assert not loops(decode="nar", precision="int8")


def test_what_is_not_chosen_is_the_networks_own_way() -> None:
    own = artifact_metadata(small_model(decode_ar=False, refine_iters=2), ExportOptions("mine", "ab" * 32))
    assert (own.decode_mode, own.refine_iters, own.schema_version) == ("nar", 2, 1)


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        ({"iterations": 3}, "--iterations is no option of 'parseq'"),
        ({"decode": "nar", "early_exit": True}, "--early-exit is for --decode ar"),
        ({"refine_iters": -1}, "refine_iters must be at least 0"),
    ],
)
def test_what_cannot_be_chosen(model: PARSeq, reading: dict[str, Any], said: str) -> None:
    with pytest.raises(ExportError, match=said):
        build_artifact(model, ExportOptions("mine", "", reading))


def test_an_artifact_says_all_about_itself(model: PARSeq, tmp_path: Path) -> None:
    output = tmp_path / "a.onnx"
    seen: list[tuple[int, int]] = []
    summary = export_artifact(model, options(with_logits=True), output, progress=lambda done, total: seen.append((done, total)))
    props = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    metadata = ArtifactMetadata.from_map(props)
    assert metadata == summary.metadata
    assert metadata == ArtifactMetadata(
        model_name="mine",
        charset=model.config.charset_train,
        image_height=16,
        image_width=64,
        max_label_length=10,
        decode_mode="nar",
        refine_iters=1,
        precision="fp32",
        weights_sha256="ab" * 32,
        exporter_version=to_onnx.exporter_version(),
        opset=OPSET,
        has_logits=True,
    )
    report = json.loads(props[PARITY_KEY])
    assert report == json.loads(json.dumps(summary.parity.to_dict()))
    assert report["failures"] == []
    assert report["onnxruntime_version"] == onnxruntime.__version__
    assert seen[-1] == (summary.parity.comparisons, summary.parity.comparisons)
    proto = onnx.load(output)
    assert [entry.version for entry in proto.opset_import] == [OPSET]
    assert summary.nodes == len(proto.graph.node)
    assert summary.size_bytes == output.stat().st_size
    token_ids, confidences, logits = run(output.read_bytes(), np.zeros((2, 16, 64, 3), np.uint8), 2)
    assert (token_ids.dtype, confidences.dtype, logits.dtype) == (np.int64, np.float32, np.float32)
    assert logits.shape == (2, 11, 37)
    assert np.array_equal(logits.argmax(-1), token_ids)


def test_logits_only_on_request(model: PARSeq) -> None:
    names = [output.name for output in build_artifact(model, options()).graph.output]
    assert names == ["token_ids", "confidences"]


def test_the_same_weights_give_the_same_bytes(model: PARSeq) -> None:
    first, second = (build_artifact(model, options()).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_metadata_of_another_schema_is_refused(model: PARSeq) -> None:
    props = {entry.key: entry.value for entry in build_artifact(model, options()).metadata_props}
    ArtifactMetadata.from_map(props)
    values = json.loads(props[METADATA_KEY])
    with pytest.raises(ArtifactError, match="schema version 99"):
        ArtifactMetadata.from_map({METADATA_KEY: json.dumps({**values, "schema_version": 99})})
    with pytest.raises(ArtifactError, match="incomplete"):
        ArtifactMetadata.from_map({METADATA_KEY: json.dumps({"schema_version": 1})})
    for text in ("{", "[]"):
        with pytest.raises(ArtifactError, match="not"):
            ArtifactMetadata.from_map({METADATA_KEY: text})
    with pytest.raises(ArtifactError, match="no artifact metadata"):
        ArtifactMetadata.from_map({})


def test_a_failing_artifact_is_not_written(model: PARSeq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = small_model(seed=6)
    read = ParseqGraph.read
    monkeypatch.setattr(ParseqGraph, "read", lambda self, g, _network, *args: read(self, g, other, *args))
    output = tmp_path / "a.onnx"
    output.write_bytes(b"the old one")
    with pytest.raises(ParityError, match=r"crop .*, batch size 1, step \d+: token \d+ instead of \d+") as caught:
        export_artifact(model, options(), output, force=True)
    assert caught.value.report.failures
    assert output.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [output]


def test_a_file_is_replaced_only_if_told_to(model: PARSeq, tmp_path: Path) -> None:
    output = tmp_path / "a.onnx"
    output.write_bytes(b"precious")
    with pytest.raises(ExportError, match="exists: add --force"):
        export_artifact(model, options(), output)
    assert output.read_bytes() == b"precious"
    export_artifact(model, options(refine_iters=0), output, force=True)
    assert onnx.load(output).graph.node
    assert list(tmp_path.iterdir()) == [output]


def test_a_file_that_appears_meanwhile_is_kept(model: PARSeq, tmp_path: Path) -> None:
    output = tmp_path / "a.onnx"
    with pytest.raises(ExportError, match="exists"):
        export_artifact(model, options(), output, progress=lambda _done, _total: output.write_bytes(b"precious"))
    assert output.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [output]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is a folder"):
        to_onnx.check_writable(tmp_path, force=True)
    with pytest.raises(ExportError, match="does not exist"):
        to_onnx.check_writable(tmp_path / "none" / "a.onnx", force=False)


def test_a_full_disk_leaves_nothing_behind(model: PARSeq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(ExportError, match="No space left"):
        export_artifact(model, options(), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_say_so(model: PARSeq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision) -> None:
    # Made-up weights decide narrowly: what is tested here is not how well they agree.
    demands = {"fp16": Demand(0.9, 0.0, 0.1), "int8": Demand(0.1, 0.0, 0.5)}
    monkeypatch.setattr(agreement, "DEMANDS", demands)
    monkeypatch.setattr(gate, "AGREEMENT_CROPS", 16)
    output = tmp_path / "a.onnx"
    summary = export_artifact(model, options(precision=precision), output)
    props = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    assert ArtifactMetadata.from_map(props).precision == precision
    report = json.loads(props[PARITY_KEY])
    assert report == json.loads(json.dumps(summary.parity.to_dict()))
    assert report["crops"] == 48
    assert report["calibration"] == (None if precision == "fp16" else "256 drawn crops")
    monkeypatch.setattr(agreement, "DEMANDS", {precision: Demand(1.01, 0.0, 0.1)})
    with pytest.raises(ParityError, match=r"are demanded"):
        export_artifact(model, options(precision=precision), tmp_path / "b.onnx")
    assert list(tmp_path.iterdir()) == [output]


def test_what_cannot_be_exported(model: PARSeq, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="call eval"):
        build_artifact(small_model().train(), options())
    monkeypatch.setattr(to_onnx, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ExportError, match="too large"):
        export_artifact(model, options(), tmp_path / "a.onnx")


def test_a_digest_of_weights_without_a_file() -> None:
    assert weights_digest(small_model()) == weights_digest(small_model())
    assert weights_digest(small_model()) != weights_digest(small_model(seed=6))
