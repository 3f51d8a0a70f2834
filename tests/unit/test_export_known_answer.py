from __future__ import annotations

import json
from pathlib import Path

import onnx

from artifact.metadata import KNOWN_ANSWER_KEY, ArtifactMetadata
from artifact.session import open_cpu_session
from export.gate.known_answer import known_answer
from service.config import BUNDLED_ARTIFACT
from service.sessions.self_check import stored_answer
from service.sessions.session import OrtSession
from tests.toy_artifact import METADATA, write_artifact


def test_the_bundled_artifact_carries_an_answer_and_reads_it() -> None:
    properties = {entry.key: entry.value for entry in onnx.load(BUNDLED_ARTIFACT).metadata_props}
    answer = stored_answer(ArtifactMetadata.from_map(properties), properties)
    assert answer is not None
    answer.check(OrtSession(open_cpu_session(BUNDLED_ARTIFACT)))


def test_it_is_the_same_every_time() -> None:
    properties = {entry.key: entry.value for entry in onnx.load(BUNDLED_ARTIFACT).metadata_props}
    again = known_answer(BUNDLED_ARTIFACT.read_bytes(), ArtifactMetadata.from_map(properties))
    assert again is not None
    assert json.loads(again)["text"] == json.loads(properties[KNOWN_ANSWER_KEY])["text"]


def test_a_network_that_is_never_sure_has_none(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "toy.onnx")  # its confidences are the green bytes of a drawn crop
    assert known_answer(artifact.read_bytes(), METADATA) is None
