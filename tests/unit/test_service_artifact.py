from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact.metadata import METADATA_KEY
from service.engine.types import InferenceError
from service.errors import StartupError
from service.sessions.artifact import load_artifact
from service.sessions.session import warm_up
from service.sessions.topology import plan_topology
from tests.fakes import FakeClock, FakeSession, read_toy, toy_settings
from tests.toy_artifact import HEIGHT, METADATA, STEPS, WIDTH, pixels_of, write_artifact


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(StartupError) as caught:
        load_artifact(toy_settings(artifact=path, **settings))
    return str(caught.value)


def test_an_artifact_is_loaded_and_reads(tmp_path: Path) -> None:
    artifact = load_artifact(toy_settings(artifact=write_artifact(tmp_path / "toy.onnx")))
    assert artifact.metadata == METADATA
    assert artifact.provider == "cpu"
    ids, confidences = artifact.session.run(np.stack([pixels_of("abc"), pixels_of("")]))
    assert ids.shape == confidences.shape == (2, STEPS)
    assert (str(ids.dtype), str(confidences.dtype)) == ("int64", "float32")
    assert ids[0, :4].tolist() == [11, 12, 13, 0]


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    assert "there is no artifact at" in refusal(tmp_path / "none.onnx")
    assert "PARSEQ_ARTIFACT" in refusal(tmp_path)


def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("hello")
    message = refusal(path)
    assert "is not an ONNX file" in message
    assert str(path) in message


def test_an_onnx_file_without_metadata_is_refused(tmp_path: Path) -> None:
    message = refusal(write_artifact(tmp_path / "toy.onnx", metadata={}))
    assert "carries no artifact metadata" in message
    assert "toy.onnx" in message


def test_an_unknown_schema_is_refused(tmp_path: Path) -> None:
    metadata = {METADATA_KEY: METADATA.to_map()[METADATA_KEY].replace('"schema_version": 1', '"schema_version": 99')}
    assert "schema version 99" in refusal(write_artifact(tmp_path / "toy.onnx", metadata=metadata))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"image_height": 32', '"image_height": 64', "images has shape"),
        ('"max_label_length": 25', '"max_label_length": 20', "token_ids has shape"),
        ('"has_logits": false', '"has_logits": true', "outputs are"),
    ],
)
def test_a_graph_that_differs_from_its_metadata_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    text = METADATA.to_map()[METADATA_KEY]
    assert old in text
    path = write_artifact(tmp_path / "toy.onnx", metadata={METADATA_KEY: text.replace(old, new)})
    assert complaint in refusal(path)


def test_a_fixed_batch_axis_is_refused(tmp_path: Path) -> None:
    assert "images has shape" in refusal(write_artifact(tmp_path / "toy.onnx", batch=1))


def test_a_named_provider_that_is_absent_is_refused(tmp_path: Path) -> None:
    assert "PARSEQ_PROVIDER=cuda" in refusal(write_artifact(tmp_path / "toy.onnx"), provider="cuda")


def test_a_graph_that_fails_every_run_is_refused_by_the_sweep(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "toy.onnx", broken=True)
    assert "failed its warm-up" in refusal(path, tune=True)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("cap", "sizes"), [(1, (1,)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))])
def test_warm_up_runs_growing_batches_up_to_the_largest_on_every_session(cap: int, sizes: tuple[int, ...]) -> None:
    topology = plan_topology(toy_settings(max_batch_size=cap), "cpu", budget=1)
    clock, sessions = FakeClock(), [FakeSession(), FakeSession()]
    for session in sessions:
        session.answer = lambda crops: (clock.advance(len(crops)), read_toy(crops))[1]
    assert warm_up(sessions, HEIGHT, WIDTH, topology.warm_up_sizes, clock) == {size: size for size in sizes}
    assert [tuple(session.batches) for session in sessions] == [(1, *sizes)] * 2


def test_warm_up_notices_answers_of_the_wrong_shape() -> None:
    session = FakeSession()
    session.answer = lambda _crops: (np.zeros((1, STEPS), np.int64), np.zeros((1, STEPS), np.float32))
    with pytest.raises(InferenceError):
        warm_up([session], HEIGHT, WIDTH, (1, 2))
