"""A recogniser that the exporter has never heard of becomes an artifact: registered, not built in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from artifact.metadata import CONFIDENCES_NAME, INPUT_NAME, METADATA_KEY, TOKEN_IDS_NAME, ArtifactMetadata
from artifact.session import open_cpu_session
from artifact.text import text_of
from export.gate.agreement import check_agreement
from export.gate.crops import Crop
from export.gate.parity import ParityError
from export.graphs import interface
from export.graphs.builder import GraphBuilder
from export.graphs.interface import Answer, ExportError, Graph, Reference, every_pass, largest_probability, register
from export.graphs.parts import centred_pixels
from export.to_onnx import ExportOptions, build_artifact, export_artifact, run_parity_gate

HEIGHT, WIDTH, LENGTH = 8, 24, 3
COLUMNS = 4
"""Each of 6 pixels' width is read on its own."""


@dataclass(frozen=True)
class ToyConfig:
    """Sizes."""

    RECOGNISER: ClassVar[str] = "toy"

    charset_train: str = "ab"
    max_label_length: int = LENGTH
    img_size: tuple[int, int] = (HEIGHT, WIDTH)


class Toy(nn.Module):
    """Reads every column by one linear layer; class 0 ends the text."""

    def __init__(self) -> None:
        super().__init__()
        self.config = ToyConfig()
        self.head = nn.Linear(HEIGHT * WIDTH // COLUMNS * 3, 3)
        with torch.no_grad():
            random = torch.Generator().manual_seed(3)
            self.head.weight.copy_(torch.randn(self.head.weight.shape, generator=random))

    def passes(self, images: Tensor) -> Sequence[Tensor]:
        """One: float `(B, 3, H, W)` to logits `(B, 4, 3)`."""
        columns = images.permute(0, 3, 2, 1).reshape(len(images), COLUMNS, -1)
        return [self.head(columns)]


class ToyGraph(Graph[Any]):
    """Its nodes: all that a recogniser has to add."""

    def read(self, g: GraphBuilder, network: Toy, options: Any, images: str) -> Answer:
        centred, scale = centred_pixels(g, images)
        columns = g.reshape(g.transpose(centred, (0, 2, 1, 3)), (0, COLUMNS, HEIGHT * WIDTH // COLUMNS * 3))
        head = network.head
        logits = g.linear(columns, head.weight.detach() * scale, head.bias, "toy")
        logits = g.cast(logits, TensorProto.FLOAT) if g.half else logits
        return Answer(g.node("ArgMax", [logits], axis=-1, keepdims=0), logits)


class CollapsingGraph(ToyGraph):
    """Of each column gives the class, and then an end: so much of CTC as its own steps and its own near ties."""

    def described(self, network: Toy, options: Any) -> dict[str, Any]:
        return {"decode_mode": "ctc", "refine_iters": 0, "max_label_length": COLUMNS}

    def read(self, g: GraphBuilder, network: Toy, options: Any, images: str) -> Answer:
        answer = super().read(g, network, options, images)
        assert answer.logits is not None
        best = largest_probability(g, answer.logits)
        # No column ends the text: class 0 is taken for the first character.
        shown = g.node("Max", [answer.token_ids, g.constant(np.array(1), "first_character")])
        last = g.node("ReduceMax", [shown, g.constant(np.array([1]), "steps")], keepdims=1)
        zero = g.node("Sub", [last, last])
        one = g.cast(g.node("Equal", [zero, zero]), TensorProto.FLOAT)
        return Answer(g.concat([shown, zero], 1), None, g.concat([best, one], 1))

    def reference(self, network: Toy, pixels: NDArray[np.uint8]) -> Reference:
        (logits,) = every_pass(network, pixels)
        best = logits.topk(2, -1).values
        probabilities, ids = logits.softmax(-1).max(-1)
        count = len(pixels)
        return Reference(
            token_ids=torch.cat([ids.clamp(min=1), torch.zeros(count, 1, dtype=torch.long)], 1).numpy(),
            confidences=torch.cat([probabilities, torch.ones(count, 1)], 1).numpy(),
            logits=logits.numpy(),
            steps=np.full(count, COLUMNS + 1),
            margins=(best[..., 0] - best[..., 1]).min(-1).values.numpy(),
        )


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "_registered", {})
    register("toy", ToyGraph())


@pytest.mark.usefixtures("known")
def test_it_is_exported_and_read(tmp_path: Path) -> None:
    toy = Toy().eval()
    summary = export_artifact(toy, ExportOptions("mine", "ab" * 32, with_logits=True), tmp_path / "toy.onnx")
    assert summary.parity.problem is None
    assert summary.parity.near_ties < summary.parity.crops // 4
    session = open_cpu_session(summary.path)
    properties = session.get_modelmeta().custom_metadata_map
    metadata = ArtifactMetadata.from_map(properties)
    assert (metadata.architecture, metadata.schema_version, metadata.decode_mode) == ("toy", 2, "nar")
    assert json.loads(properties[METADATA_KEY])["architecture"] == "toy"
    pixels = np.random.default_rng(0).integers(0, 256, (5, HEIGHT, WIDTH, 3), dtype=np.uint8)
    ids, confidences = session.run([TOKEN_IDS_NAME, CONFIDENCES_NAME], {INPUT_NAME: pixels})
    (logits,) = every_pass(toy, pixels)
    for row, crop_ids, crop_confidences in zip(logits.softmax(-1), ids.tolist(), confidences.tolist(), strict=True):
        reading = text_of(crop_ids, crop_confidences, metadata.vocabulary)
        best = row.argmax(-1).tolist()
        length = best.index(0) if 0 in best else len(best)
        assert reading.text == "".join("ab"[token - 1] for token in best[:length])
        assert reading.confidence == pytest.approx(float(row.max(-1).values[: length + 1].prod()), abs=1e-5)


@pytest.mark.usefixtures("known")
def test_another_network_than_the_graphs_is_refused() -> None:
    options = ExportOptions("mine", "")
    artifact = build_artifact(Toy().eval(), options).SerializeToString()
    other = Toy().eval()
    with torch.no_grad():
        other.head.weight.neg_()
    with pytest.raises(ParityError, match=r"token \d instead of \d"):
        run_parity_gate(artifact, other, options, {})


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_it_is_written_in_every_precision(precision: Any) -> None:
    toy, options = Toy().eval(), ExportOptions("mine", "", precision=precision)
    artifact = build_artifact(toy, options).SerializeToString()
    graph = ToyGraph()
    crops = [
        Crop("noise", pixels) for pixels in np.random.default_rng(1).integers(0, 256, (64, HEIGHT, WIDTH, 3), dtype=np.uint8)
    ]
    reference = graph.reference(toy, np.stack([crop.pixels for crop in crops]))
    report = check_agreement(artifact, reference, crops, precision)
    assert report.agreement > 0.9


@pytest.mark.usefixtures("known")
def test_it_may_have_steps_of_its_own() -> None:
    register("toy", CollapsingGraph())
    toy, options = Toy().eval(), ExportOptions("mine", "")
    proto = build_artifact(toy, options)
    metadata = ArtifactMetadata.from_map({entry.key: entry.value for entry in proto.metadata_props})
    assert (metadata.decode_mode, metadata.max_label_length) == ("ctc", COLUMNS)
    report = run_parity_gate(proto.SerializeToString(), toy, options, {})
    assert report.problem is None
    ids, _ = open_cpu_session(proto.SerializeToString()).run(None, {INPUT_NAME: np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)})
    assert ids.shape == (2, COLUMNS + 1)
    with pytest.raises(ExportError, match="no logits for each step"):
        build_artifact(toy, ExportOptions("mine", "", with_logits=True))


@pytest.mark.usefixtures("known")
def test_options_of_others_are_refused() -> None:
    with pytest.raises(ExportError, match="--refine-iters is no option of 'toy'"):
        build_artifact(Toy().eval(), ExportOptions("mine", "", {"refine_iters": 1}))


def test_a_recogniser_without_a_graph_is_told() -> None:
    with pytest.raises(ExportError, match=r"'toy' cannot be exported: there are graphs for parseq"):
        build_artifact(Toy().eval(), ExportOptions("mine", ""))
