"""Crops that are read in several ways, through the service: what is answered, counted and refused."""

from __future__ import annotations

import base64
import io
import re
import threading
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from artifact.orientation import turned
from tests.fakes import PATIENCE_S, FakeSession, request, toy_runtime, with_client
from tests.open_inference import INFER
from tests.toy_artifact import CHARSET, STEPS

Seen = tuple[str, float]
"""A text and its confidence."""


def answers(texts: Sequence[Seen]) -> tuple[Any, Any]:
    ids, confidences = np.zeros((len(texts), STEPS), np.int64), np.ones((len(texts), STEPS), np.float32)
    for row, (text, confidence) in enumerate(texts):
        ids[row, : len(text)] = [CHARSET.index(char) + 1 for char in text]
        confidences[row, len(text)] = confidence
    return ids, confidences


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def two_colours(width: int = 20, height: int = 90) -> Image.Image:
    """The upper half red, the lower one blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, :, 0] = pixels[height // 2 :, :, 2] = 255
    return Image.fromarray(pixels)


TALL = png(two_colours())
SIDES = {"upright": ("7", 0.5), "90": ("words", 0.9), "270": ("spjom", 0.002), "180": ("l", 0.1)}


def side_of(crop: Any) -> str:
    """Which way the two colours lie."""
    red = crop[:, :, 0] > 128
    if red[2].all() and not red[-3].any():
        return "upright"
    if red[-3].all():
        return "180"
    return "270" if red[:, 2].all() else "90"


def session(sides: dict[str, Seen] = SIDES, poisoned: str = "") -> FakeSession:
    fake = FakeSession()

    def read(crops: Any) -> tuple[Any, Any]:
        found = [side_of(crop) for crop in crops]
        if poisoned in found:
            raise RuntimeError("poisoned view")
        return answers([sides[side] for side in found])

    fake.answer = read
    return fake


def post(query: str = "", content: bytes = TALL, fake: FakeSession | None = None, **settings: Any) -> httpx.Response:
    runtime = toy_runtime(fake or session(), self_check_interval_s=0, **settings)
    return request(runtime, "POST", f"/v1/recognize{query}", content=content, headers={"Content-Type": "image/png"})


@pytest.fixture(autouse=True)
def no_known_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    """These sessions read no toy crops."""
    monkeypatch.setattr("service.sessions.self_check.KnownAnswer.check", lambda *_: None)


def test_a_turned_word_is_read_and_its_angle_told() -> None:
    answer = post("?orientation=auto").json()
    assert (answer["text"], answer["angle"]) == ("words", 90)
    assert "words" not in answer
    right = png(turned(two_colours(), 180))
    answer = post("?orientation=auto", right, session({**SIDES, "180": SIDES["upright"]})).json()
    assert (answer["text"], answer["angle"]) == ("words", 270)


@pytest.mark.parametrize("query", ["", "?orientation=upright", "?split=none", "?split=auto"])
def test_without_being_asked_nothing_is_turned_and_nothing_new_told(query: str) -> None:
    answer = post(query).json()
    assert answer["text"] == "7"
    assert sorted(answer) == ["confidence", "model", "model_version", "text", "timings"]


def test_the_setting_counts_where_a_request_does_not_say() -> None:
    assert post(orientation="auto").json()["angle"] == 90
    assert post("?split=auto", orientation="auto").json()["angle"] == 90
    assert "angle" not in post("?orientation=upright", orientation="auto").json()


def test_upside_down_is_tried_by_full_only() -> None:
    low, high = {**SIDES, "upright": ("o", 0.3)}, png(two_colours(90, 20))
    low["180"] = ("hello", 0.95)
    answer = post("?orientation=full", high, session(low)).json()
    assert (answer["text"], answer["angle"]) == ("hello", 180)
    answer = post("?orientation=auto", high, session(low)).json()
    assert (answer["text"], answer["angle"]) == ("o", 0)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("orientation=sideways", "upright, auto, full"),
        ("orientation=", "upright, auto, full"),
        ("orientation=AUTO", "upright, auto, full"),
        ("split=true", "none, auto"),
        ("orientation=auto&orientation=full", "twice"),
        ("split=auto&split=none", "twice"),
        ("angle=90", "orientation, split"),
        ("orientation=%00%ff", "upright, auto, full"),
    ],
)
def test_other_values_are_refused_with_those_there_are(query: str, told: str) -> None:
    answer = post(f"?{query}")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:parseq:problem:invalid-query")
    assert told in answer.json()["detail"]


def test_the_same_value_twice_is_fine() -> None:
    assert post("?orientation=auto&orientation=auto").json()["angle"] == 90


def infer(parameters: dict[str, Any]) -> httpx.Response:
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(TALL).decode()]}
    runtime = toy_runtime(session(), self_check_interval_s=0)
    return request(runtime, "POST", INFER, json={"inputs": [tensor], "parameters": parameters})


def test_the_open_inference_protocol_takes_them_as_parameters() -> None:
    outputs = infer({"orientation": "auto", "split": "auto"}).json()["outputs"]
    assert outputs[0]["data"] == ["words"]
    assert infer({"split": "none"}).json()["outputs"][0]["data"] == ["7"]
    for parameters in ({"orientation": "down"}, {"orientation": ["auto"]}, {"split": True}, {"orientation": {}}):
        answer = infer(parameters)
        assert answer.status_code in (400, 422)
        assert "must be one of" in answer.json()["error"]


def series(metrics: str, name: str) -> dict[str, float]:
    found = re.findall(rf"^{name}{{(.*)}} (\S+)$", metrics, re.M)
    return {labels: float(value) for labels, value in found if float(value)}


def test_one_crop_has_one_outcome_however_often_it_is_read() -> None:
    runtime = toy_runtime(session(), self_check_interval_s=0, min_confidence=0.95)

    async def scenario(client: httpx.AsyncClient) -> tuple[dict[str, Any], str]:
        answer = await client.post("/v1/recognize?orientation=auto", content=TALL)
        return answer.json(), (await client.get("/metrics")).text

    answer, metrics = with_client(runtime, scenario)
    assert answer["uncertain"] is True
    assert series(metrics, "parseq_crops_total") == {'model="toy",outcome="done"': 1.0}
    assert series(metrics, "parseq_crops_admitted_total") == {'model="toy"': 1.0}
    assert series(metrics, "parseq_extra_reads_total") == {'model="toy",reason="turned"': 2.0}
    assert series(metrics, "parseq_uncertain_texts_total") == {'model="toy"': 1.0}
    assert series(metrics, "parseq_text_confidence_count") == {'model="toy"': 1.0}


def test_texts_below_the_threshold_are_flagged_and_never_left_out() -> None:
    files = {"file": ("a.png", TALL, "image/png")}
    runtime = toy_runtime(session(), self_check_interval_s=0, min_confidence=0.6)
    [result] = request(runtime, "POST", "/v1/recognize?list=true", files=files).json()["results"]
    assert (result["text"], result["uncertain"]) == ("7", True)
    assert "uncertain" not in post("?orientation=auto", min_confidence=0.6).json()


def test_an_empty_text_has_the_probability_of_the_end() -> None:
    empty = session({**SIDES, "upright": ("", 0.75)})
    answer = post(fake=empty).json()
    assert (answer["text"], answer["confidence"]) == ("", 0.75)


@pytest.mark.parametrize("poisoned", ["90", "270"])
def test_a_view_that_fails_does_not_fail_the_crop(poisoned: str) -> None:
    answer = post("?orientation=auto", fake=session(poisoned=poisoned)).json()
    assert (answer["text"], answer["angle"]) == (("7", 0) if poisoned == "90" else ("words", 90))


def test_a_picture_that_cannot_be_read_is_told_as_ever() -> None:
    answer = post("?orientation=auto&split=auto", b"\x89PNG\r\n\x1a\n broken")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:parseq:problem:unreadable-image")


def test_at_the_deadline_what_has_been_read_is_answered() -> None:
    fake, armed, released = session(), threading.Event(), threading.Event()
    plain = fake.answer
    assert plain is not None

    def slow(crops: Any) -> tuple[Any, Any]:
        if armed.is_set() and side_of(crops[0]) != "upright":
            assert released.wait(PATIENCE_S)
        return plain(crops)

    fake.answer = slow
    runtime = toy_runtime(fake, self_check_interval_s=0, max_batch_size=1)

    async def scenario(client: httpx.AsyncClient) -> dict[str, Any]:
        armed.set()
        answer = await client.post(
            "/v1/recognize?orientation=auto",
            content=TALL,
            headers={"X-Request-Timeout-Ms": "1500", "Content-Type": "image/png"},
        )
        released.set()
        return dict(answer.json())

    answer = with_client(runtime, scenario)
    assert (answer["text"], answer["angle"]) == ("7", 0)


def line() -> Image.Image:
    """Words of three, three and two letters, which are black boxes."""
    pixels = np.full((32, 204, 3), 255, np.uint8)
    column = 4
    for letters in (3, 3, 2):
        for _ in range(letters):
            pixels[8:24, column : column + 16] = 0
            column += 20
        column += 20
    return Image.fromarray(pixels)


def count_letters(crops: Any) -> tuple[Any, Any]:
    found = []
    for crop in crops:
        dark = crop[crop.shape[0] // 2, :, 0] < 100
        letters = int((np.diff(np.concatenate(([0], dark.astype(int)))) > 0).sum())
        found.append(("abcdefgh"[:letters], 0.95 if letters <= 3 else 0.4))
    return answers(found)


def test_a_line_is_answered_with_spaces_and_with_the_boxes_of_its_words() -> None:
    fake = FakeSession()
    fake.answer = count_letters
    answer = post("?split=auto&characters=true", png(line()), fake).json()
    assert answer["text"] == "abc abc ab"
    assert [word["text"] for word in answer["words"]] == ["abc", "abc", "ab"]
    lefts, _, rights, bottoms = zip(*(word["box"] for word in answer["words"]), strict=True)
    assert lefts[0] == 0
    assert lefts[1] > rights[0] - 1
    assert rights[-1] == 204
    assert set(bottoms) == {32}
    assert [each["char"] for each in answer["characters"]] == list("abc abc ab")
    assert "angle" not in answer
    fake = FakeSession()
    fake.answer = count_letters
    assert post("", png(line()), fake).json()["text"] == "abcdefgh"
