"""A recogniser that the exporter has never heard of becomes an artifact: registered, not built in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from artifact.metadata import CONFIDENCES_NAME, INPUT_NAME, METADATA_KEY, TOKEN_IDS_NAME, ArtifactMetadata
from artifact.session import open_cpu_session
from artifact.text import text_of
from export.gate.agreement import check_agreement
from export.gate.crops import GateCrop
from export.gate.parity import ParityError
from export.graphs.builder import GraphBuilder
from export.graphs.interface import Answer, ExportError, Graph, NoOptions, every_pass
from export.to_onnx import ExportOptions, build_artifact, export_artifact, run_parity_gate
from tests.toy_graph import ToyGraph, toy_exportable, write_columns
from tests.toy_recogniser import Toy, ToyConfig, random_toy

HEIGHT, WIDTH, COLUMNS = 8, 24, 4
CONFIG = ToyConfig(img_size=(HEIGHT, WIDTH), column_width=WIDTH // COLUMNS)


class StepsGraph(Graph[NoOptions]):
    """The same network taken for one that reads in steps, of which class 0 ends the text: the defaults of `Graph`."""

    def described(self, network: Toy, options: NoOptions) -> dict[str, Any]:
        return {**super().described(network, options), "max_label_length": COLUMNS - 1}

    def read(self, g: GraphBuilder, network: Toy, options: NoOptions, images: str, penalty: str | None = None) -> Answer:
        logits = write_columns(g, network, images)
        logits = g.cast(logits, TensorProto.FLOAT) if g.half else logits
        return Answer(g.node("ArgMax", [logits], axis=-1, keepdims=0), logits)


GRAPHS = pytest.mark.parametrize("known", [StepsGraph(), ToyGraph()], indirect=True, ids=["steps", "columns"])


@pytest.fixture
def known(request: pytest.FixtureRequest) -> Iterator[Graph[NoOptions]]:
    graph = getattr(request, "param", ToyGraph())
    with toy_exportable(graph):
        yield graph


def drawn(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(count).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize("known", [StepsGraph()], indirect=True)
@pytest.mark.usefixtures("known")
def test_steps_are_exported_and_read(tmp_path: Path) -> None:
    toy = random_toy(CONFIG)
    summary = export_artifact(toy, ExportOptions("mine", "ab" * 32, with_logits=True), tmp_path / "toy.onnx")
    assert summary.parity.problem is None
    assert summary.parity.near_ties < summary.parity.crops // 4
    session = open_cpu_session(summary.path)
    properties = session.get_modelmeta().custom_metadata_map
    metadata = ArtifactMetadata.from_map(properties)
    assert (metadata.architecture, metadata.schema_version, metadata.decode_mode) == ("toy", 2, "nar")
    assert json.loads(properties[METADATA_KEY])["architecture"] == "toy"
    pixels = drawn(5)
    ids, confidences = session.run([TOKEN_IDS_NAME, CONFIDENCES_NAME], {INPUT_NAME: pixels})
    (logits,) = every_pass(toy, pixels)
    for row, crop_ids, crop_confidences in zip(logits.softmax(-1), ids.tolist(), confidences.tolist(), strict=True):
        reading = text_of(crop_ids, crop_confidences, metadata.vocabulary)
        best = row.argmax(-1).tolist()
        length = best.index(0) if 0 in best else len(best)
        assert reading.text == "".join("ab"[token - 1] for token in best[:length])
        assert reading.confidence == pytest.approx(float(row.max(-1).values[: length + 1].prod()), abs=1e-5)


@pytest.mark.usefixtures("known")
def test_columns_are_exported_and_read(tmp_path: Path) -> None:
    toy = random_toy(CONFIG)
    summary = export_artifact(toy, ExportOptions("mine", ""), tmp_path / "toy.onnx")
    assert summary.parity.problem is None
    assert summary.parity.near_ties < summary.parity.crops // 4
    metadata = summary.metadata
    assert (metadata.decode_mode, metadata.max_label_length, metadata.schema_version) == ("ctc", COLUMNS, 2)
    pixels = drawn(64)
    rows = open_cpu_session(summary.path).run([TOKEN_IDS_NAME, CONFIDENCES_NAME], {INPUT_NAME: pixels})
    assert rows[0].shape == rows[1].shape == (len(pixels), COLUMNS + 1)
    (logits,) = every_pass(toy, pixels)
    texts, probabilities = toy.decode(logits)
    # Empty ones among them, and some that fill all columns.
    assert {len(text) for text in texts} == set(range(COLUMNS + 1))
    for text, values, ids, confidences in zip(texts, probabilities, *(row.tolist() for row in rows), strict=True):
        reading = text_of(ids, confidences, metadata.vocabulary)
        assert reading.text == text
        assert reading.character_confidences == pytest.approx(values[:-1].tolist(), abs=1e-5)
        assert reading.confidence == pytest.approx(float(values.prod()), abs=1e-5)


def test_a_near_tie_in_any_column_counts() -> None:
    toy, pixels = random_toy(CONFIG), drawn(16)
    (logits,) = every_pass(toy, pixels)
    best = logits.sort(-1).values
    reference = ToyGraph().reference(toy, pixels)
    assert reference.margins.tolist() == pytest.approx((best[..., -1] - best[..., -2]).amin(-1).tolist(), abs=1e-5)
    assert (reference.steps == (reference.token_ids > 0).sum(-1) + 1).all()


@GRAPHS
@pytest.mark.usefixtures("known")
def test_another_network_than_the_graphs_is_refused() -> None:
    options = ExportOptions("mine", "")
    artifact = build_artifact(random_toy(CONFIG), options).SerializeToString()
    with pytest.raises(ParityError, match=r"token \d instead of \d"):
        run_parity_gate(artifact, random_toy(CONFIG, seed=4), options, {})


@GRAPHS
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_it_is_written_in_every_precision(known: Graph[NoOptions], precision: Any) -> None:
    toy, options = random_toy(CONFIG), ExportOptions("mine", "", precision=precision)
    artifact = build_artifact(toy, options).SerializeToString()
    crops = [GateCrop("noise", pixels) for pixels in drawn(64)]
    reference = known.reference(toy, np.stack([crop.pixels for crop in crops]))
    report = check_agreement(artifact, reference, crops, precision)
    assert report.agreement > 0.9


def test_a_recogniser_without_a_graph_is_told() -> None:
    with pytest.raises(ExportError, match=r"'toy' cannot be exported: there are graphs for .*parseq"):
        build_artifact(random_toy(CONFIG), ExportOptions("mine", ""))
