from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from artifact.metadata import KNOWN_ANSWER_KEY, ArtifactError
from service.sessions.self_check import WrongAnswerError, learned_answer, stored_answer
from tests.fakes import FakeSession, read_toy
from tests.toy_artifact import METADATA, pixels_of


def entry_of(text: str = "abc", size: tuple[int, int] | None = None) -> dict[str, str]:
    file = io.BytesIO()
    image = Image.fromarray(pixels_of("abc"))
    (image.resize(size) if size else image).save(file, "PNG")
    return {KNOWN_ANSWER_KEY: json.dumps({"png": base64.b64encode(file.getvalue()).decode(), "text": text})}


def test_a_stored_answer_is_what_the_exporter_read() -> None:
    answer = stored_answer(METADATA, entry_of())
    assert answer is not None
    assert np.array_equal(answer.crop, pixels_of("abc"))
    answer.check(FakeSession())


def test_an_artifact_need_not_carry_one() -> None:
    assert stored_answer(METADATA, {}) is None


def test_a_session_that_reads_something_else_is_found_out() -> None:
    answer = stored_answer(METADATA, entry_of("abd"))
    assert answer is not None
    with pytest.raises(WrongAnswerError):
        answer.check(FakeSession())


@pytest.mark.parametrize(
    "entry",
    [
        "{",
        "[]",
        "null",
        "{}",
        '{"png": "", "text": "abc"}',
        '{"png": "?", "text": "abc"}',
        '{"png": 1, "text": "abc"}',
        entry_of("")[KNOWN_ANSWER_KEY],
        entry_of("ABC")[KNOWN_ANSWER_KEY],  # not of the charset
        entry_of("abc", (64, 32))[KNOWN_ANSWER_KEY],
    ],
)
def test_a_damaged_entry_is_told(entry: str) -> None:
    with pytest.raises(ArtifactError, match="export the model again"):
        stored_answer(METADATA, {KNOWN_ANSWER_KEY: entry})


def test_without_one_the_first_reading_is_the_measure() -> None:
    session = FakeSession()
    answer = learned_answer(METADATA, session)
    answer.check(session)

    def garbage(crops: Any) -> Any:
        ids, confidences = read_toy(crops)
        return ids + 1, confidences

    session.answer = garbage
    with pytest.raises(WrongAnswerError):
        answer.check(session)
