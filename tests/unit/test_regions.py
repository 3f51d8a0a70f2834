"""`POST /v1/regions`: regions of a page, read as crops of one request."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import threading
import weakref
from typing import Any

import httpx
import pytest
from PIL import Image

from artifact import regions
from service import errors
from service.core.runtime import Runtime
from service.engine.types import Outcome
from service.errors import Kind
from service.http.dialects.v1_schemas import ProblemDocument, RecognitionList
from service.images import pages
from service.images.decode import ORIENTATION_TAG
from tests.fakes import FakeSession, new_item, request, toy_runtime, until, with_client
from tests.images import encode
from tests.toy_artifact import HEIGHT, WIDTH, pixels_of

PATH = "/v1/regions"
JSON = {"content-type": "application/json"}
TEXTS = ("abc", "de", "f0", "g")


@pytest.fixture(autouse=True)
def no_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the crops are as large as the toy wants them, and read as they are."""
    monkeypatch.setattr(regions, "MARGIN", 0.0)


def place(index: int) -> tuple[int, int]:
    return 10 + 20 * index, 20 + 50 * index


def page_of(*texts: str, poisoned: str = "", size: tuple[int, int] = (400, 300)) -> Image.Image:
    page = Image.new("RGB", size, "white")
    for index, text in enumerate(texts):
        page.paste(Image.fromarray(pixels_of(text, poisoned=text == poisoned)), place(index))
    return page


def box(index: int) -> list[float]:
    left, top = place(index)
    return [left, top, left + WIDTH, top + HEIGHT]


def points(index: int) -> list[list[float]]:
    left, top, right, bottom = box(index)
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


PAGE = page_of(*TEXTS)
PNG = encode(PAGE, "PNG")
REGIONS: list[dict[str, Any]] = [{"id": "a", "box": box(0)}, {"points": points(1)}, {"id": 7, "box": box(2), "score": 0.9}]


def body_of(found: Any, page: bytes = PNG) -> bytes:
    return json.dumps({"image": base64.b64encode(page).decode(), "regions": found}).encode()


def post(found: Any, runtime: Runtime | None = None, page: bytes = PNG, query: str = "") -> httpx.Response:
    return request(runtime or toy_runtime(), "POST", PATH + query, content=body_of(found, page), headers=JSON)


def expect(response: httpx.Response, kind: Kind) -> str:
    assert (response.status_code, response.json()["type"]) == (kind.status, kind.type), response.text
    return ProblemDocument.model_validate(response.json()).detail


def readings(response: httpx.Response) -> list[tuple[str, str]]:
    """Id and text, or kind of problem, of each result; the answer is as it is described."""
    assert response.status_code == 200, response.text
    RecognitionList.model_validate(response.json())
    return [
        (result["id"], result["text"] if "text" in result else result["error"]["type"].rpartition(":")[2])
        for result in response.json()["results"]
    ]


def test_regions_are_read_in_order_whatever_their_form() -> None:
    assert readings(post(REGIONS)) == [("a", "abc"), ("1", "de"), ("7", "f0")]


@pytest.mark.parametrize("field", [(None, json.dumps(REGIONS)), ("r.json", "\ufeff" + json.dumps(REGIONS), "application/json")])
@pytest.mark.parametrize("name", ["file", "page", ""])
def test_a_form_does_the_same(field: Any, name: str) -> None:
    response = request(toy_runtime(), "POST", PATH, files={"regions": field, name: ("p.png", PNG)}, data={"token": "x"})
    assert readings(response) == [("a", "abc"), ("1", "de"), ("7", "f0")]


def test_a_query_means_what_it_means_for_crops() -> None:
    [result] = post(REGIONS[:1], query="?characters=true&list=false&model=toy").json()["results"]
    assert [each["char"] for each in result["characters"]] == list("abc")
    assert "characters" in expect(post(REGIONS, query="?angle=3"), errors.INVALID_QUERY)
    expect(post(REGIONS, query="?model=other"), errors.NOT_FOUND)


INVALID: list[dict[str, Any]] = [
    {},
    {"box": None},
    {"box": box(0), "points": points(0)},
    {"box": box(0)[:3]},
    {"box": []},
    {"points": []},
    {"points": points(0)[:3]},
    {"points": [*points(0), [1, 1]]},
    {"points": [[1, 2, 3], *points(0)[1:]]},
    {"points": [points(0)[index] for index in (0, 2, 1, 3)]},
    {"points": [[5, 5]] * 4},
    {"points": [[0, 0], [100, 0], [20, 20], [0, 100]]},
    {"points": [[0, 0], [100, 0], [100, 100], [100, 100]]},
    {"box": [5, 5, 5, 50]},
    {"box": [50, 5, 5, 50]},
    {"box": [0, 0, float("nan"), 10]},
    {"box": [0, 0, float("inf"), 10]},
    {"box": [0, 0, 1e308, 10]},
    {"box": [1000, 1000, 1100, 1100]},
    {"points": [[-500, -500], [-400, -490], [-400, -450], [-500, -460]]},
    {"box": [0.1, 0.1, 0.2, 0.2]},
]


def test_a_region_that_is_none_fails_alone() -> None:
    found = [REGIONS[0], *INVALID, REGIONS[1]]
    response = post(found)
    results = readings(response)
    assert (results[0], results[-1]) == (("a", "abc"), (str(len(INVALID) + 1), "de"))
    assert [reading for _, reading in results[1:-1]] == ["invalid-region"] * len(INVALID)
    assert [id_ for id_, _ in results[1:-1]] == [str(index + 1) for index in range(len(INVALID))]


def test_a_number_that_is_far_too_large_is_no_number() -> None:
    told = expect(post([{"box": [0, 0, 10**400, 10]}]), errors.INVALID_REQUEST)
    assert "regions.0.box.2" in told


def test_a_poisoned_region_fails_alone() -> None:
    page = encode(page_of(*TEXTS, poisoned="de"), "PNG")
    assert readings(post([{"box": box(0)}, {"box": box(1)}, {"box": box(2)}], page=page)) == [
        ("0", "abc"),
        ("1", "inference-failed"),
        ("2", "f0"),
    ]


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (b"", errors.EMPTY_BODY, "page"),
        (b"{", errors.MALFORMED_REQUEST, "JSON"),
        (b"[]", errors.INVALID_REQUEST, "object"),
        (b"{}", errors.INVALID_REQUEST, "image"),
        (b'{"image":"x"}', errors.INVALID_REQUEST, "regions"),
        (b'{"regions":[{"box":[1,2,3,4]}]}', errors.INVALID_REQUEST, "image"),
        (b'{"image":7,"regions":[{"box":[1,2,3,4]}]}', errors.INVALID_REQUEST, "image"),
        (body_of([]), errors.INVALID_REQUEST, "regions"),
        (body_of({}), errors.INVALID_REQUEST, "regions"),
        (body_of([[1, 2, 3, 4]]), errors.INVALID_REQUEST, "regions.0"),
        (body_of([{"box": "1,2,3,4"}]), errors.INVALID_REQUEST, "regions.0.box"),
        (body_of([{"box": [1, 2, 3, "4"]}]), errors.INVALID_REQUEST, "regions.0.box.3"),
        (body_of([{"box": [1, 2, 3, None]}]), errors.INVALID_REQUEST, "regions.0.box.3"),
        (body_of([{"box": [1, 2, 3, True]}]), errors.INVALID_REQUEST, "regions.0.box.3"),
        (body_of([{"points": [1, 2, 3, 4]}]), errors.INVALID_REQUEST, "regions.0.points.0"),
        (body_of([{"id": [], "box": [1, 2, 3, 4]}]), errors.INVALID_REQUEST, "regions.0.id"),
        (body_of([{"id": "x" * 257, "box": [1, 2, 3, 4]}]), errors.INVALID_REQUEST, "regions.0.id"),
        (b'{"image":"?","regions":[{"box":[1,2,3,4]}]}', errors.INVALID_BASE64, "base64"),
        (body_of(REGIONS, b""), errors.UNREADABLE_IMAGE, "empty"),
        (body_of(REGIONS, PNG[:100]), errors.UNREADABLE_IMAGE, "damaged"),
        (body_of(REGIONS, b"%PDF-1.7"), errors.UNSUPPORTED_IMAGE_FORMAT, "PDF"),
        (body_of(REGIONS, PNG).replace(b"[", b"[" * 40), errors.JSON_TOO_DEEP, "nested"),
    ],
)
def test_what_is_wrong_with_the_whole_request_is_told(body: bytes, kind: Kind, told: str) -> None:
    runtime = toy_runtime()
    assert told in expect(request(runtime, "POST", PATH, content=body, headers=JSON), kind)
    assert f'parseq_problems_total{{problem="{kind.slug}"}} 1.0' in runtime.metrics.render().decode()


@pytest.mark.parametrize(
    ("parts", "kind", "told"),
    [
        ([("regions", (None, json.dumps(REGIONS)))], errors.NO_FILE, "file"),
        ([("file", ("a.png", PNG))], errors.INVALID_REQUEST, "regions"),
        ([("file", ("a.png", PNG)), ("regions", (None, " "))], errors.INVALID_REQUEST, "regions"),
        ([("file", ("a.png", PNG)), ("regions", (None, "{"))], errors.MALFORMED_REQUEST, "regions"),
        ([("file", ("a.png", PNG)), ("regions", (None, "[]"))], errors.INVALID_REQUEST, "regions"),
        ([("file", ("a.png", PNG)), ("regions", (None, '[{"box":"x"}]'))], errors.INVALID_REQUEST, "form.regions.0.box"),
        ([("file", ("a.png", PNG)), *[("regions", (None, json.dumps(REGIONS)))] * 2], errors.INVALID_REQUEST, "one field"),
        ([*[("file", ("a.png", PNG))] * 2, ("regions", (None, json.dumps(REGIONS)))], errors.INVALID_REQUEST, "one page"),
    ],
)
def test_what_is_wrong_with_a_form_is_told(parts: Any, kind: Kind, told: str) -> None:
    assert told in expect(request(toy_runtime(), "POST", PATH, files=parts), kind)


@pytest.mark.parametrize("media_type", ["image/png", "text/plain", "application/octet-stream", ""])
def test_the_page_alone_is_no_request(media_type: str) -> None:
    headers = {"content-type": media_type} if media_type else {}
    told = expect(request(toy_runtime(), "POST", PATH, content=PNG, headers=headers), errors.UNSUPPORTED_MEDIA_TYPE)
    assert "multipart/form-data" in told


def test_points_are_those_of_the_upright_page() -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6  # to be turned clockwise by 90 degrees
    page = encode(PAGE.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    assert readings(post(REGIONS, page=page)) == [("a", "abc"), ("1", "de"), ("7", "f0")]


def test_a_turned_region_is_read_upright() -> None:
    left, top, right, bottom = 100, 50, 100 + HEIGHT, 50 + WIDTH
    page = Image.new("RGB", (300, 300), "white")
    page.paste(Image.fromarray(pixels_of("abc")).transpose(Image.Transpose.ROTATE_90), (left, top))
    turned = [[left, bottom], [left, top], [right, top], [right, bottom]]
    assert readings(post([{"points": turned}], page=encode(page, "PNG"))) == [("0", "abc")]


def test_a_page_may_be_larger_than_a_crop_but_has_a_limit() -> None:
    page = page_of(*TEXTS, size=(500, 300))
    runtime = toy_runtime(max_image_pixels=200 * 300, max_page_pixels=500 * 300)
    assert readings(post(REGIONS, runtime, encode(page, "PNG")))[0] == ("a", "abc")
    runtime = toy_runtime(max_page_pixels=500 * 300 - 1)
    told = expect(post(REGIONS, runtime, encode(page, "PNG")), errors.IMAGE_TOO_LARGE)
    assert "500 x 300" in told
    assert "PARSEQ_MAX_PAGE_PIXELS" in told
    assert "copy of the page" in told
    too_long = expect(post(REGIONS, toy_runtime(max_image_bytes=100)), errors.IMAGE_FILE_TOO_LARGE)
    assert "copy of the page" in too_long


@pytest.mark.parametrize("settings", [{"max_regions": 2}, {"max_queue_items": 2}])
@pytest.mark.parametrize("entry", [{"box": [1, 2, 3, 4]}, 0])
def test_regions_are_counted_before_they_are_looked_at(settings: dict[str, int], entry: Any) -> None:
    for n_regions in (3, 10_000):
        told = expect(post([entry] * n_regions, toy_runtime(**settings)), errors.TOO_MANY_CROPS)
        assert "PARSEQ_MAX_REGIONS" in told


def test_ten_thousand_regions_are_refused_in_a_form_too() -> None:
    many = json.dumps([{"box": [1, 2, 3, 4]}] * 10_000)
    response = request(toy_runtime(), "POST", PATH, files={"file": ("a.png", PNG), "regions": (None, many)})
    assert "PARSEQ_MAX_REGIONS" in expect(response, errors.TOO_MANY_CROPS)


def test_values_without_number_are_refused_before_they_are_parsed() -> None:
    body = body_of([{"points": [[1, 2]] * 100_000}])
    response = request(toy_runtime(), "POST", PATH, content=body, headers=JSON)
    assert "regions need" in expect(response, errors.TOO_MANY_CROPS)


def test_as_many_regions_as_are_allowed_are_read() -> None:
    found = [{"box": box(index % 4)} for index in range(512)]
    assert [text for _, text in readings(post(found))] == [TEXTS[index % 4] for index in range(512)]


def test_a_key_is_wanted(tmp_path: Any) -> None:
    (tmp_path / "keys").write_text("a" * 16)
    runtime = toy_runtime(api_keys_file=tmp_path / "keys")
    expect(request(runtime, "POST", PATH, content=body_of(REGIONS), headers=JSON), errors.UNAUTHORIZED)


def test_it_counts_as_one_request_with_so_many_crops_of_one_decoded_page(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = pages.decode_image
    monkeypatch.setattr(pages, "decode_image", lambda *given: [decoded.append(1), decode(*given)][1])
    runtime = toy_runtime()
    post([*REGIONS, {}], runtime)
    text = runtime.metrics.render().decode()
    assert decoded == [1]
    assert 'parseq_request_duration_seconds_count{status="200"} 1.0' in text
    assert 'parseq_crops_admitted_total{model="toy"} 4.0' in text
    assert 'parseq_crops_total{model="toy",outcome="done"} 3.0' in text
    assert 'parseq_crops_total{model="toy",outcome="failed"} 1.0' in text
    assert 'parseq_problems_total{problem="invalid-region"} 1.0' in text
    assert "parseq_image_decode_duration_seconds_count 5.0" in text


def test_regions_of_a_busy_service_are_turned_away_before_the_page_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "decode_image", None)
    runtime = toy_runtime(max_queue_items=4, max_regions=4)

    async def scenario(client: httpx.AsyncClient) -> httpx.Response:
        model = runtime.models.default
        held = [new_item() for _ in range(3)]
        model.engine.admit(held)
        try:
            return await client.post(PATH, content=body_of([{"box": box(0)}] * 4), headers=JSON)
        finally:
            model.engine.abandon(held, Outcome.CANCELLED)

    response = with_client(runtime, scenario)
    expect(response, errors.QUEUE_FULL)
    assert "retry-after" in response.headers


def test_the_page_is_freed_before_its_regions_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[weakref.ref[Any]] = []
    opened = pages.Page

    def noting(*given: Any) -> Any:
        page = opened(*given)
        kept.append(weakref.ref(page))
        return page

    monkeypatch.setattr(pages, "Page", noting)
    session = FakeSession()
    runtime = toy_runtime(session, max_batch_size=1)

    async def scenario(client: httpx.AsyncClient) -> httpx.Response:
        session.entered = threading.Semaphore(0)
        session.gate.clear()
        posting = asyncio.ensure_future(client.post(PATH, content=body_of(REGIONS), headers=JSON))
        await asyncio.to_thread(session.wait_entered)
        await until(lambda: bool(kept) and kept[0]() is None)
        session.gate.set()
        return await posting

    gc.disable()
    try:
        response = with_client(runtime, scenario)
    finally:
        gc.enable()
    assert readings(response) == [("a", "abc"), ("1", "de"), ("7", "f0")]


def test_regions_not_read_before_the_deadline_say_so() -> None:
    session = FakeSession()
    runtime = toy_runtime(session)

    async def scenario(client: httpx.AsyncClient) -> httpx.Response:
        session.gate.clear()
        response = await client.post(PATH, content=body_of(REGIONS), headers={**JSON, "x-request-timeout-ms": "150"})
        session.gate.set()
        return response

    assert [text for _, text in readings(with_client(runtime, scenario))] == ["deadline-expired"] * 3


def test_a_broken_decoder_is_nobodys_fault_but_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "decode_image", None)
    expect(post(REGIONS), errors.INTERNAL)


def test_the_limits_are_told() -> None:
    limits = request(toy_runtime(max_regions=9), "GET", "/v1/models").json()["models"][0]["limits"]
    assert (limits["max_regions"], limits["max_page_pixels"]) == (9, 12 * 2**20)


def test_it_is_described() -> None:
    document = request(toy_runtime(), "GET", "/openapi.json").json()
    operation = document["paths"][PATH]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert operation["parameters"] == document["paths"]["/v1/recognize"]["post"]["parameters"]
    region = document["components"]["schemas"]["RegionInput"]["properties"]
    assert region.keys() == {"id", "points", "box"}
