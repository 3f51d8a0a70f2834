"""Alternatives and a choice of characters, from the query to the answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from service import errors
from service.core.choices import KEPT_ROWS, Choices
from service.core.read_options import ReadOptions
from service.core.runtime import Runtime
from service.engine.cost import CostModel
from service.engine.engine import Engine
from service.engine.runs import run_with_checked
from service.engine.scheduler import EngineLimits
from service.engine.types import InferenceError, Item, Outcome, Outputs, Wanted
from service.errors import Problem
from service.http.dialects.v1_schemas import ModelList, Recognition
from tests.fakes import FakeSession, Mailbox, Tally, new_item, request, serving, toy_runtime, until
from tests.open_inference import INFER, as_json, outputs_of
from tests.toy_artifact import CHARSET, METADATA, confidence_of, pixels_of, png_of

ABLE = replace(METADATA, top_count=5, has_allowed=True)
PATH = "/v1/recognize"
PNG = {"content-type": "image/png"}
DIGITS = np.array([char.isdigit() for char in CHARSET])


def able(session: FakeSession | None = None, **settings: Any) -> Runtime:
    return toy_runtime(session, ABLE, **settings)


def post(query: str, text: str = "a1b", runtime: Runtime | None = None) -> httpx.Response:
    return request(runtime or able(), "POST", f"{PATH}?{query}", content=png_of(text), headers=PNG)


def test_alternatives_begin_with_the_text_itself() -> None:
    answer = Recognition.model_validate_json(post("alternatives=3").content)
    assert answer.alternatives is not None
    assert (answer.alternatives[0].text, answer.alternatives[0].confidence) == (answer.text, answer.confidence)
    assert len({other.text for other in answer.alternatives}) == 3
    confidences = [other.confidence for other in answer.alternatives]
    assert confidences == sorted(confidences, reverse=True)
    [only] = post("alternatives=1").json()["alternatives"]
    assert only == {"text": "a1b", "confidence": pytest.approx(confidence_of("a1b"), abs=1e-6)}
    assert "alternatives" not in post("characters=true").json()


def test_each_crop_of_a_list_has_its_own() -> None:
    files = [("file", ("a", png_of("abc"))), ("file", ("b", b"junk")), ("file", ("c", png_of("7")))]
    results = request(able(), "POST", f"{PATH}?alternatives=2&characters=1", files=files).json()["results"]
    assert [len(result.get("alternatives", ())) for result in results] == [2, 0, 2]
    assert results[2]["alternatives"][0]["text"] == "7"


def test_only_what_is_allowed_is_read() -> None:
    assert post("charset=digits").json()["text"] == "010"
    assert post("charset=chars:b1").json()["text"] == "11b"
    assert post("charset=chars%3Aab%31").json()["text"] == "a1b"
    assert post("charset=alphanumeric").json()["text"] == "a1b"
    told = post("charset=digits&alternatives=2").json()
    assert told["alternatives"][0]["text"] == told["text"] == "010"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        *(
            (f"alternatives={value}", "from 1 to 5")
            for value in ("0", "6", "-1", "", "1.0", "1e0", "x", "%2B1", "%D9%A3", "11")
        ),
        ("alternatives=1&alternatives=2", "twice"),
        ("charset=", "nothing is no kind"),
        ("charset", "nothing is no kind"),
        ("charset=abc", "`abc` is no kind"),
        ("charset=chars:", "no character behind"),
        ("charset=digits&charset=letters", "twice"),
        ("Charset=digits", "characters, list, model, orientation, split, alternatives, charset"),
    ],
)
def test_values_that_cannot_be_are_refused(query: str, said: str) -> None:
    answer = post(query)
    assert (answer.status_code, answer.json()["type"]) == (400, errors.INVALID_QUERY.type)
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("charset=uppercase", "The model has no uppercase."),
        ("charset=chars:aZ%C3%A9", "The model does not have the characters `Z`, `é`."),
        ("charset=chars:%FF", "`\ufffd`"),
        ("charset=chars:1+2", "%2B for a plus"),
        ("charset=chars:%00", "U+0000"),
        ("charset=chars:" + "%E4%B8%80" * 3000, "`一`."),
    ],
)
def test_characters_of_other_models_are_refused_and_named(query: str, said: str) -> None:
    answer = post(query)
    assert (answer.status_code, answer.json()["type"]) == (400, errors.UNKNOWN_CHARACTERS.type)
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "kind", "cure"),
    [
        ("alternatives=2", errors.NO_ALTERNATIVES, "`parseq-export --top 5`"),
        ("charset=digits", errors.NO_CHOICE_OF_CHARACTERS, "`parseq-export --allowed`"),
    ],
)
def test_a_model_that_cannot_says_how_one_could(query: str, kind: errors.Kind, cure: str) -> None:
    answer = post(query, runtime=toy_runtime())
    assert (answer.status_code, answer.json()["type"]) == (409, kind.type)
    assert cure in answer.json()["detail"]


def test_models_tell_what_they_can() -> None:
    for runtime, wanted in ((able(), (5, True)), (toy_runtime(), (0, False))):
        [model] = ModelList.model_validate_json(request(runtime, "GET", "/v1/models").content).models
        assert (model.max_alternatives, model.choice_of_characters) == wanted


def infer(runtime: Runtime | None = None, **members: Any) -> httpx.Response:
    return request(runtime or able(), "POST", INFER, json=as_json(png_of("a1"), png_of("b"), **members))


def test_the_open_inference_protocol_has_them_too() -> None:
    assert outputs_of(infer(parameters={"charset": "digits"}))["text"] == ["01", "0"]
    wanted = [{"name": "alternatives"}, {"name": "alternative_confidences"}, {"name": "text"}]
    found = outputs_of(infer(parameters={"alternatives": 2}, outputs=wanted))
    assert found["alternatives.shape"] == found["alternative_confidences.shape"] == [2, 2]
    assert [found["alternatives"][0], found["alternatives"][2]] == found["text"] == ["a1", "b"]
    assert found["alternative_confidences"][0] == pytest.approx(confidence_of("a1"), abs=1e-6)
    assert outputs_of(infer(outputs=[{"name": "alternatives"}]))["alternatives.shape"][0] == 2
    # A parameter without its outputs wants nothing.
    assert infer(toy_runtime(), parameters={"alternatives": 2}).status_code == 200


@pytest.mark.parametrize(
    ("parameters", "status", "said"),
    [
        ({"charset": 5}, 422, "parameters.charset: must be a text"),
        ({"charset": ""}, 422, "parameters.charset: nothing is no kind"),
        ({"charset": "chars:Z"}, 400, "`Z`"),
        ({"alternatives": 6}, 422, "parameters.alternatives: must be a whole number from 1 to 5"),
        ({"alternatives": True}, 422, "parameters.alternatives"),
        ({"alternatives": 1.5}, 422, "parameters.alternatives"),
    ],
)
def test_what_it_is_told_wrongly(parameters: dict[str, Any], status: int, said: str) -> None:
    answer = infer(parameters=parameters)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_what_a_model_gives_depends_on_it() -> None:
    refused = infer(toy_runtime(), outputs=[{"name": "alternatives"}])
    assert (refused.status_code, "--top" in refused.json()["error"]) == (409, True)
    for runtime, has in ((able(), True), (toy_runtime(), False)):
        outputs = request(runtime, "GET", "/v2/models/toy").json()["outputs"]
        assert ("alternatives" in [output["name"] for output in outputs]) is has


def test_requests_with_and_without_share_a_batch() -> None:
    async def scenario() -> None:
        session = FakeSession()
        async with serving(able(session)) as client:
            session.gate.clear()
            ask = [client.post(PATH, content=png_of("first"), headers=PNG)]
            queries = ("", "?charset=digits", "?alternatives=2", "")
            ask += [client.post(PATH + query, content=png_of("x5"), headers=PNG) for query in queries]
            tasks = [asyncio.ensure_future(each) for each in ask[:1]]
            engine = client._transport.app.endpoint._models.default.engine  # type: ignore[attr-defined]
            # The session was entered in the warm-up, too.
            await until(lambda: engine.in_flight == 1 and engine.longest_run_s > 0)
            tasks += [asyncio.ensure_future(each) for each in ask[1:]]
            await until(lambda: engine.depth == 4)
            session.gate.set()
            _, plain, digits, others, last = [answer.json() for answer in await asyncio.gather(*tasks)]
            assert [told["text"] for told in (plain, digits, others, last)] == ["x5", "05", "x5", "x5"]
            assert [len(told.get("alternatives", ())) for told in (plain, digits, others, last)] == [0, 0, 2, 0]
            assert session.batches[-1] == 4
            assert session.wanted[-1].allowed is not None
            assert session.wanted[-1].allowed.sum(-1).tolist().count(len(CHARSET)) == 3

    asyncio.run(scenario())


def run_items(session: FakeSession, items: list[Item], texts: list[str], poisoned: int) -> None:
    mailbox = Mailbox()
    engine = Engine(session, CostModel(8), EngineLimits(1, 16), deliver=mailbox.deliver, observer=Tally())
    for item in items:
        engine.admit([item])
    # The lane starts only when all wait.
    engine._accepting = engine._running = True
    for index, (item, text) in enumerate(zip(items, texts, strict=True)):
        engine.submit(item, pixels_of(text, poisoned=index == poisoned))
    for thread in engine._threads:
        thread.start()
    mailbox.wait_for(len(items))
    assert engine.stop(10)


def test_a_poisoned_batch_keeps_what_its_items_want(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "admit", lambda self, items: self._scheduler.admit(items, 0.0))
    items = [new_item(), new_item(), new_item()]
    items[0].allowed, items[2].wants_top = DIGITS, True
    session = FakeSession()
    run_items(session, items, ["a1", "bad", "c"], poisoned=1)
    assert session.batches == [3, 1, 1, 1]
    assert [item.outcome for item in items] == [Outcome.DONE, Outcome.FAILED, Outcome.DONE]
    assert items[0].token_ids is not None
    assert items[0].token_ids[:3].tolist() == [1, 2, 0]
    assert items[2].top_ids is not None
    assert items[0].top_ids is None


@pytest.mark.parametrize(
    "top", [(None, None), (np.zeros((1, 26, 5), np.int64), np.full((1, 26, 5), np.nan, np.float32)), (np.zeros((1, 26)),) * 2]
)
def test_candidates_that_cannot_be_right_fail(top: tuple[Any, Any]) -> None:
    class Wrong(FakeSession):
        def run_with(self, crops: Any, wanted: Wanted) -> Outputs:
            return Outputs(*self.run(crops), *top)

    with pytest.raises(InferenceError):
        run_with_checked(Wrong(), [pixels_of("a")], Wanted(None, top=True))


def test_choices_are_remembered_within_bounds() -> None:
    choices = Choices(ABLE)
    first = choices.row_for(ReadOptions(allowed="digits"))
    assert choices.row_for(ReadOptions(allowed="digits")) is first
    assert first is not None
    assert first.tolist() == DIGITS.tolist()
    for number in range(2 * KEPT_ROWS):
        choices.row_for(ReadOptions(allowed=f"chars:{CHARSET[: 1 + number % 30]}{'a' * number}"))
    assert len(choices._rows) == KEPT_ROWS
    with pytest.raises(Problem, match="is no kind of characters"):
        choices.row_for(ReadOptions(allowed="nonsense"))
