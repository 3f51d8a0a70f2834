"""The Open Inference Protocol over HTTP: what clients send and get, in JSON and binary, and what they are told is wrong."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import __version__, errors
from service.core.runtime import Runtime
from service.engine.types import Item
from tests.fakes import FakeSession, request, serving, toy_runtime, until, with_client
from tests.open_inference import INFER, LENGTH_HEADER, as_json, base64_of, binary, files, outputs_of, packed, tensor
from tests.toy_artifact import CONFIDENCE_BYTE, METADATA, confidence_of, pixels_of, png_of

A, B, JUNK = png_of("abc"), png_of("x1"), b"oops, no image"
VERSION = METADATA.weights_sha256[:12]


def infer(runtime: Runtime | None = None, path: str = INFER, **options: Any) -> httpx.Response:
    return request(runtime or toy_runtime(), "POST", path, **options)


def infer_binary(body: bytes, headers: dict[str, str], **settings: Any) -> httpx.Response:
    return infer(toy_runtime(**settings), content=body, headers=headers)


def expect_error(answer: httpx.Response, kind: errors.Kind, told: str = "") -> None:
    assert answer.status_code == kind.status, answer.text
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert set(document) == {"error"}
    assert told in document["error"], document["error"]


@pytest.mark.parametrize("column", [False, True])
def test_files_in_base64_are_read_and_answered_as_json(column: bool) -> None:
    texts = base64_of(A, B)
    for data in (texts, [[text] for text in texts]) if column else (texts,):
        answer = infer(json={"id": "forty-two", "inputs": [tensor(data, [2, 1] if column else [2])]})
        assert answer.headers["content-type"] == "application/json"
        assert LENGTH_HEADER not in answer.headers
        assert answer.headers["server-timing"].startswith("decode;dur=")
        document = answer.json()
        assert (document["id"], document["model_name"], document["model_version"]) == ("forty-two", "toy", VERSION)
        assert [(output["name"], output["datatype"]) for output in document["outputs"]] == [
            ("text", "BYTES"),
            ("confidence", "FP32"),
        ]
        found = outputs_of(answer)
        assert found["text"] == ["abc", "x1"]
        assert found["text.shape"] == found["confidence.shape"] == ([2, 1] if column else [2])
        assert found["confidence"] == [pytest.approx(confidence_of(text), abs=1e-6) for text in ("abc", "x1")]


def test_files_are_read_from_a_binary_tensor() -> None:
    found = outputs_of(infer_binary(*files(A, B)))
    assert found["text"] == ["abc", "x1"]
    body, headers = binary(packed(A, B), [2, 1], parameters={"binary_data_output": True})
    answer = infer_binary(body, headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    found = outputs_of(answer)
    assert (found["text"], found["text.shape"]) == (["abc", "x1"], [2, 1])
    assert found["confidence"] == [pytest.approx(confidence_of(text), abs=1e-6) for text in ("abc", "x1")]


def test_each_output_says_whether_it_is_wanted_binary() -> None:
    wanted = [
        {"name": "confidence", "parameters": {"binary_data": True}},
        {"name": "text", "parameters": {"binary_data": False}},
        {"name": "error"},
    ]
    answer = infer(json=as_json(A, outputs=wanted, parameters={"binary_data_output": True}))
    length = int(answer.headers[LENGTH_HEADER])
    outputs = json.loads(answer.content[:length])["outputs"]
    assert [output["name"] for output in outputs] == ["confidence", "text", "error"]
    assert ["data" in output for output in outputs] == [False, True, False]
    found = outputs_of(answer)
    assert (found["text"], found["error"]) == (["abc"], [""])


def test_pixels_are_read_as_the_files_are() -> None:
    blob = pixels_of("abc").tobytes() + pixels_of("x1").tobytes()
    found = outputs_of(infer_binary(*binary(blob, [2, 32, 128, 3], "UINT8")))
    assert (found["text"], found["text.shape"]) == (["abc", "x1"], [2])
    one = binary(blob[: len(blob) // 2], [1, 32, 128, 3], "UINT8")
    assert outputs_of(infer_binary(*one))["text"] == ["abc"]
    large = binary(bytes(3 * 400 * 1000), [1, 400, 1000, 3], "UINT8")  # not one to be decoded at once
    assert outputs_of(infer_binary(*large))["text"] == [""]


def test_a_header_of_no_bytes_says_that_the_body_is_a_file() -> None:
    answer = infer(content=A, headers={LENGTH_HEADER: "0"})
    assert answer.headers["content-type"] == "application/octet-stream"
    found = outputs_of(answer)
    assert (found["text"], found["text.shape"]) == (["abc"], [1])


def test_confidences_of_characters_are_filled_up_with_zeros() -> None:
    wanted = [{"name": "character_confidences", "parameters": {"binary_data": flag}} for flag in (False,)]
    found = outputs_of(infer(json=as_json(A, png_of("x"), outputs=wanted)))
    p = pytest.approx(CONFIDENCE_BYTE / 255, abs=1e-6)
    assert (found["character_confidences"], found["character_confidences.shape"]) == ([p, p, p, p, 0.0, 0.0], [2, 3])
    assert set(found) == {"character_confidences", "character_confidences.shape"}
    found = outputs_of(infer(json=as_json(png_of(""), outputs=wanted)))
    assert (found["character_confidences"], found["character_confidences.shape"]) == ([], [1, 0])
    many = [png_of("abcdefghij"), *[png_of("x")] * 99]
    found = outputs_of(infer(json=as_json(*many, outputs=wanted)))
    assert found["character_confidences.shape"] == [100, 10]
    assert len(found["character_confidences"]) == 1000


def test_the_first_crop_that_fails_is_the_answer_unless_errors_are_wanted() -> None:
    runtime = toy_runtime()
    expect_error(infer(runtime, json=as_json(A, JUNK, b"")), errors.UNREADABLE_IMAGE, "images[1]: The image is damaged")
    text = runtime.metrics.render().decode()
    assert 'parseq_problems_total{problem="unreadable-image"} 1.0' in text
    assert 'parseq_request_duration_seconds_count{status="422"} 1.0' in text
    runtime = toy_runtime()
    wanted = [{"name": name} for name in ("error", "text", "confidence", "character_confidences")]
    found = outputs_of(infer(runtime, json=as_json(JUNK, A, b"", outputs=wanted)))
    assert found["text"] == ["", "abc", ""]
    assert found["confidence"][::2] == [0.0, 0.0]
    assert [error.partition(":")[0] for error in found["error"]] == ["unreadable-image", "", "unreadable-image"]
    assert 'parseq_problems_total{problem="unreadable-image"} 2.0' in runtime.metrics.render().decode()
    not_base64 = {"inputs": [tensor(["&" * 8])]}
    expect_error(infer(json=not_base64), errors.INVALID_BASE64, "images[0]: ")


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP ", gzip.compress), ("identity", bytes), ("", bytes)],
)
def test_bodies_may_be_packed(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    body, headers = files(A, B)
    answer = infer_binary(pack(body), {**headers, "content-encoding": encoding})
    assert outputs_of(answer)["text"] == ["abc", "x1"]
    document = json.dumps(as_json(A)).encode()
    answer = infer(content=pack(document), headers={"content-encoding": encoding, "content-type": "application/json"})
    assert outputs_of(answer)["text"] == ["abc"]


def test_packing_that_is_broken_or_unknown_is_told() -> None:
    whole = gzip.compress(json.dumps(as_json(A)).encode())
    for content in (whole[:-4], whole[:20], b"junk", whole + b"x", whole + whole, b"\x1f\x8b"):
        expect_error(infer(content=content, headers={"content-encoding": "gzip"}), errors.MALFORMED_REQUEST, "Content-Encoding")
    expect_error(infer(content=whole, headers={"content-encoding": "br"}), errors.UNSUPPORTED_MEDIA_TYPE)
    expect_error(infer(content=whole, headers={"content-encoding": "gzip, gzip"}), errors.UNSUPPORTED_MEDIA_TYPE)
    expect_error(infer(content=gzip.compress(b""), headers={"content-encoding": "gzip"}), errors.EMPTY_BODY)


def test_what_is_unpacked_is_bounded() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    limits = {"max_json_bytes": 100_000, "max_body_bytes": 1_000_000}
    packed_json = {"content": bomb, "headers": {"content-encoding": "gzip"}}
    expect_error(infer(toy_runtime(**limits), **packed_json), errors.JSON_TOO_LARGE, "PARSEQ_MAX_JSON_BYTES")
    packed_json["headers"] = {"content-encoding": "gzip", LENGTH_HEADER: "10"}
    expect_error(infer(toy_runtime(**limits), **packed_json), errors.BODY_TOO_LARGE, "PARSEQ_MAX_BODY_BYTES")


def test_bodies_have_the_limits_of_others() -> None:
    document = json.dumps(as_json(A) | {"pad": "x" * 2000}).encode()
    expect_error(infer(toy_runtime(max_json_bytes=2000), content=document), errors.JSON_TOO_LARGE)
    head = json.dumps(as_json(A) | {"pad": "x" * 2000}).encode()
    expect_error(infer_binary(head + b"x", {LENGTH_HEADER: str(len(head))}, max_json_bytes=2000), errors.JSON_TOO_LARGE)
    body, headers = files(A, bytes(2000))
    expect_error(infer_binary(body, headers, max_body_bytes=2000), errors.BODY_TOO_LARGE, "PARSEQ_MAX_BODY_BYTES")
    expect_error(infer_binary(*files(bytes(2000)), max_image_bytes=1000), errors.IMAGE_FILE_TOO_LARGE, "images[0]: ")
    expect_error(infer(toy_runtime(max_crops_per_request=2), json=as_json(A, A, A)), errors.TOO_MANY_CROPS)
    expect_error(infer_binary(*files(A, A, A), max_crops_per_request=2), errors.TOO_MANY_CROPS)
    expect_error(
        infer_binary(*binary(bytes(300), [1, 10, 10, 3], "UINT8"), max_image_pixels=99), errors.IMAGE_TOO_LARGE, "10 x 10"
    )
    deep = b'{"inputs":' + b"[" * 40 + b"]" * 40 + b"}"
    expect_error(infer(content=deep), errors.JSON_TOO_DEEP)
    many = b'{"inputs":[' + b"0," * 50_000 + b"0]}"
    expect_error(infer(content=many), errors.TOO_MANY_CROPS)


WRONG: list[tuple[Any, errors.Kind, str]] = [
    (b"", errors.EMPTY_BODY, ""),
    (b"{nope", errors.MALFORMED_REQUEST, "JSON"),
    (b'{"id": "\xff"}', errors.MALFORMED_REQUEST, "JSON"),
    (b'{"inputs": NaN}', errors.MALFORMED_REQUEST, "JSON"),
    (b'{"id": "\\ud800"}', errors.MALFORMED_REQUEST, "JSON"),
    (b"[]", errors.INVALID_REQUEST, "object"),
    ({}, errors.INVALID_REQUEST, "inputs"),
    ({"inputs": []}, errors.INVALID_REQUEST, "inputs"),
    ({"inputs": {}}, errors.INVALID_REQUEST, "inputs"),
    ({"inputs": [3]}, errors.INVALID_REQUEST, "inputs[0]: must be an object with a `name`, which is `images`."),
    ({"inputs": [tensor(["x"], name=None)]}, errors.INVALID_REQUEST, "inputs[0]: must be an object with a `name`"),
    ({"inputs": [tensor(["x"], name="nosuch")]}, errors.INVALID_REQUEST, "`nosuch`; the one there is: images"),
    ({"inputs": [tensor(["x"], name="n" * 1000)]}, errors.INVALID_REQUEST, "`" + "n" * 40 + "...`"),
    ({"inputs": [tensor(["x"]), tensor(["x"])]}, errors.INVALID_REQUEST, "twice"),
    ({"inputs": [tensor(["x"], datatype="FP64")]}, errors.INVALID_REQUEST, "`FP64`"),
    ({"inputs": [tensor(["x"], datatype=None)]}, errors.INVALID_REQUEST, "datatype"),
    ({"inputs": [tensor(["x"], [7])]}, errors.INVALID_REQUEST, "has 1 elements, and its shape says 7"),
    ({"inputs": [tensor([["x", "y"]], [1, 1])]}, errors.INVALID_REQUEST, "data[0]"),
    ({"inputs": [tensor(["x"], [-1])]}, errors.INVALID_REQUEST, "shape"),
    ({"inputs": [tensor(["x"], [1.0])]}, errors.INVALID_REQUEST, "shape"),
    ({"inputs": [tensor(["x"], [True])]}, errors.INVALID_REQUEST, "shape"),
    ({"inputs": [tensor(["x"], [])]}, errors.INVALID_REQUEST, "shape"),
    ({"inputs": [tensor(["x"], [1, 2])]}, errors.INVALID_REQUEST, "[n, 1]"),
    ({"inputs": [tensor([], [0])]}, errors.INVALID_REQUEST, "at least one image"),
    ({"inputs": [tensor(["x"], [10**30])]}, errors.TOO_MANY_CROPS, ""),
    ({"inputs": [tensor([3])]}, errors.INVALID_REQUEST, "data[0]"),
    ({"inputs": [tensor(None, [1])]}, errors.INVALID_REQUEST, "data"),
    ({"inputs": [tensor([0] * 27, [1, 3, 3, 3], datatype="UINT8")]}, errors.INVALID_REQUEST, "binary"),
    ({"inputs": [tensor([0] * 27, [1, 3, 9], datatype="UINT8")]}, errors.INVALID_REQUEST, "height"),
    ({"inputs": [tensor(["x"], parameters=3)]}, errors.INVALID_REQUEST, "parameters"),
    ({"inputs": [tensor(["x"], parameters={"binary_data_size": 1})]}, errors.INVALID_REQUEST, "both"),
    ({"inputs": [tensor(shape=[1], parameters={"binary_data_size": 1})]}, errors.MALFORMED_REQUEST, "Inference-Header"),
    ({"inputs": [tensor(shape=[1], parameters={"binary_data_size": -1})]}, errors.INVALID_REQUEST, "below 0"),
    (as_json(A, id=3), errors.INVALID_REQUEST, "id"),
    (as_json(A, id="x" * 257), errors.INVALID_REQUEST, "id"),
    (as_json(A, parameters=[]), errors.INVALID_REQUEST, "parameters"),
    (as_json(A, parameters={"timeout": "soon"}), errors.INVALID_REQUEST, "microseconds"),
    (as_json(A, parameters={"timeout": -1}), errors.INVALID_REQUEST, "microseconds"),
    (as_json(A, parameters={"timeout": False}), errors.INVALID_REQUEST, "microseconds"),
    (as_json(A, parameters={"priority": -1}), errors.INVALID_REQUEST, "priority"),
    (as_json(A, parameters={"priority": "high"}), errors.INVALID_REQUEST, "priority"),
    (as_json(A, parameters={"binary_data_output": 1}), errors.INVALID_REQUEST, "binary_data_output"),
    (as_json(A, outputs={}), errors.INVALID_REQUEST, "outputs"),
    (
        as_json(A, outputs=["text"]),
        errors.INVALID_REQUEST,
        "outputs[0]: must be an object with a `name`, one of text, confidence",
    ),
    (as_json(A, outputs=[{"name": ["text"]}]), errors.INVALID_REQUEST, "outputs[0]: must be an object with a `name`"),
    (as_json(A, outputs=[{"name": "nosuch"}]), errors.INVALID_REQUEST, "`nosuch`; those there are: text, confidence"),
    (as_json(A, outputs=[{"name": "text"}] * 2), errors.INVALID_REQUEST, "twice"),
    (as_json(A, outputs=[{"name": "text", "parameters": {"binary_data": 1}}]), errors.INVALID_REQUEST, "binary_data"),
]


@pytest.mark.parametrize(
    ("body", "kind", "told"), WRONG, ids=lambda value: str(value)[:40] if isinstance(value, dict | bytes) else ""
)
def test_what_is_wrong_is_told(body: Any, kind: errors.Kind, told: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    expect_error(infer(content=content), kind, told)


def test_null_is_as_if_it_were_not_there() -> None:
    nothing = dict.fromkeys(("timeout", "priority", "binary_data_output", "other"))
    outputs = [{"name": "text", "parameters": {"binary_data": None}}, {"name": "confidence", "parameters": None}]
    document = as_json(A, id=None, parameters=nothing, outputs=outputs)
    document["inputs"][0]["parameters"] = {"binary_data_size": None}
    answer = infer(json=document)
    assert answer.headers["content-type"] == "application/json"
    assert outputs_of(answer)["text"] == ["abc"]
    assert "id" not in answer.json()


def wrong_binary() -> Iterator[tuple[str, bytes, dict[str, str], errors.Kind, str]]:
    body, headers = files(A)
    length = int(headers[LENGTH_HEADER])
    malformed = errors.MALFORMED_REQUEST
    yield "cut off", body[:-1], headers, malformed, "bytes follow the JSON"
    yield "more behind it", body + b"x", headers, malformed, "bytes follow the JSON"
    yield (
        "no size",
        json.dumps(as_json(A)).encode() + b"xyz",
        {LENGTH_HEADER: str(len(json.dumps(as_json(A))))},
        malformed,
        "no input",
    )
    for given in ("-1", "x", "1.5", "1" * 30, str(len(body) + 1)):
        yield f"header {given[:5]}", body, {LENGTH_HEADER: given}, malformed, ""
    yield "JSON cut off", body, {LENGTH_HEADER: str(length - 1)}, malformed, "JSON"
    yield "fewer elements", *binary(packed(A), [2]), malformed, "images[1]: the tensor ends"
    yield "more elements", *binary(packed(A, A), [1]), malformed, "more bytes"
    yield "an element cut off", *binary(packed(A)[:-1], [1]), malformed, "images[0]"
    yield "a length cut off", *binary(b"\x01\0", [1]), malformed, "images[0]"
    yield "a huge length", *binary(b"\xff\xff\xff\xffabc", [1]), malformed, "images[0]"
    yield "pixels missing", *binary(bytes(26), [1, 3, 3, 3], "UINT8"), malformed, "27 bytes"
    yield "huge pictures", *binary(bytes(27), [1, 10**12, 10**12, 3], "UINT8"), malformed, "bytes"
    yield "no pixels", *binary(b"", [1, 0, 5, 3], "UINT8"), errors.UNREADABLE_IMAGE, "no pixels"
    yield "a long side", *binary(b"", [1, 0, 10**12, 3], "UINT8"), errors.IMAGE_TOO_LARGE, ""
    yield "another datatype", *binary(bytes(8), [1], "FP64"), errors.INVALID_REQUEST, "`FP64`"


@pytest.mark.parametrize(("body", "headers", "kind", "told"), [pytest.param(*case, id=name) for name, *case in wrong_binary()])
def test_binary_tensors_that_do_not_add_up_are_told(body: bytes, headers: dict[str, str], kind: errors.Kind, told: str) -> None:
    expect_error(infer_binary(body, headers), kind, told)


def test_no_content_type_is_required_and_none_is_held_against_anybody() -> None:
    for headers in ({}, {"content-type": "image/png"}, {"content-type": "application/x-www-form-urlencoded"}):
        assert outputs_of(infer(content=json.dumps(as_json(A)).encode(), headers=headers))["text"] == ["abc"]


def test_models_and_versions_are_found_or_told() -> None:
    assert outputs_of(infer(path=f"/v2/models/toy/versions/{VERSION}/infer", json=as_json(A)))["text"] == ["abc"]
    expect_error(infer(path="/v2/models/nosuch/infer", json=as_json(A)), errors.NOT_FOUND, "`nosuch`; those there are: toy")
    expect_error(infer(path="/v2/models/toy/versions/1/infer", json=as_json(A)), errors.NOT_FOUND, VERSION)
    for path in (
        "/v2/models/nosuch",
        "/v2/models/nosuch/ready",
        "/v2/models/toy/versions/1",
        "/v2/models/toy/versions/1/ready",
    ):
        expect_error(request(toy_runtime(), "GET", path), errors.NOT_FOUND)


def test_the_server_and_its_models_are_described() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        async def get(path: str) -> Any:
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), path
            return answer.json()

        assert await get("/v2") == {"name": "parseq-service", "version": __version__, "extensions": ["binary_tensor_data"]}
        assert await get("/v2/health/live") == {"live": True}
        assert await get("/v2/health/ready") == {"ready": True, "live": True}
        for path in ("/v2/models/toy", f"/v2/models/toy/versions/{VERSION}"):
            model = await get(path)
            assert (model["name"], model["versions"]) == ("toy", [VERSION])
            assert [(each["name"], each["datatype"], each["shape"]) for each in model["inputs"]] == [("images", "BYTES", [-1])]
            names = [output["name"] for output in model["outputs"]]
            assert names == ["text", "confidence", "character_confidences", "error"]
            assert await get(f"{path}/ready") == {"name": "toy", "ready": True}
        assert await get("/v1/models/toy") == {"name": "toy", "ready": True}
        index = await client.post("/v2/repository/index", content=b"{}")
        assert index.json() == [{"name": "toy", "version": VERSION, "state": "READY", "reason": ""}]
        for what in ("load", "unload"):
            answer = await client.post(f"/v2/repository/models/toy/{what}", json={})
            expect_error(answer, errors.OTHER_HTTP_ERROR, "SIGHUP")
        for path in ("/v2", "/v2/health/ready", "/v2/models/toy"):
            head = await client.head(path)
            assert (head.status_code, head.content) == (200, b"")

    with_client(toy_runtime(), scenario)


def test_what_is_not_there_is_told_in_the_words_of_the_protocol() -> None:
    for method, path, kind in (
        ("GET", "/v2/nowhere", errors.NOT_FOUND),
        ("POST", "/v2/models/toy/infer/more", errors.NOT_FOUND),
        ("GET", INFER, errors.METHOD_NOT_ALLOWED),
        ("HEAD", INFER, errors.METHOD_NOT_ALLOWED),
        ("PUT", "/v2/models/toy", errors.METHOD_NOT_ALLOWED),
        ("GET", "/v2/repository/index", errors.METHOD_NOT_ALLOWED),
    ):
        answer = request(toy_runtime(), method, path)
        assert answer.status_code == kind.status, path
        if method != "HEAD":
            expect_error(answer, kind)
        if kind is errors.METHOD_NOT_ALLOWED:
            assert answer.headers["allow"] in ("POST", "GET, HEAD")
    assert request(toy_runtime(), "GET", "/v20").json()["type"] == errors.NOT_FOUND.type


def test_a_server_that_warms_up_is_live_and_not_ready() -> None:
    session = FakeSession()
    session.gate.clear()
    runtime = toy_runtime(session)

    async def scenario() -> None:
        async with serving(runtime, wait=False) as client:
            try:
                assert (await client.get("/v2/health/live")).status_code == 200
                for path in ("/v2/health/ready", "/v2/models/toy/ready"):
                    expect_error(await client.get(path), errors.NOT_READY)
                assert (await client.get("/ping")).status_code == 503
                expect_error(await client.post(INFER, json=as_json(A)), errors.NOT_READY)
                index = (await client.post("/v2/repository/index")).json()
                assert index[0]["state"] == "UNAVAILABLE"
            finally:
                session.gate.set()
            await until(lambda: runtime.ready)
            assert (await client.get("/ping")).status_code == 200

    asyncio.run(scenario())


def test_keys_are_wanted_but_of_probes(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a" * 16)

    async def scenario(client: httpx.AsyncClient) -> None:
        for method, path in (
            ("POST", INFER),
            ("GET", "/v2"),
            ("GET", "/v2/models/toy"),
            ("GET", "/v2/models/nosuch"),
            ("GET", "/v2/models/toy/ready"),
            ("POST", "/v2/repository/index"),
            ("POST", "/v1/models/toy:predict"),
        ):
            expect_error(await client.request(method, path), errors.UNAUTHORIZED)
        assert (await client.post("/invocations", content=A)).status_code == 401
        for path in ("/v2/health/live", "/v2/health/ready", "/ping"):
            assert (await client.get(path)).status_code == 200
        answer = await client.post(INFER, json=as_json(A), headers={"x-api-key": "a" * 16})
        assert outputs_of(answer)["text"] == ["abc"]

    with_client(toy_runtime(api_keys_file=tmp_path / "keys"), scenario)


def admitted(monkeypatch: pytest.MonkeyPatch, runtime: Runtime, **options: Any) -> list[Item]:
    """The items that a request is to the engine."""
    found: list[Item] = []
    engine = runtime.models.default.engine
    admit = engine.admit

    def see(items: Any) -> None:
        found.extend(items)
        admit(items)

    monkeypatch.setattr(engine, "admit", see)
    outputs_of(infer(runtime, **options))
    return found


@pytest.mark.parametrize(
    ("n_crops", "priority", "bulk"),
    [
        (1, None, False),
        (2, None, True),
        (1, 0, False),
        (2, 0, True),
        (1, 1, False),
        (2, 1, False),
        (1, 2, True),
        (3, 10**18, True),
    ],
)
def test_the_priority_reaches_the_engine(
    monkeypatch: pytest.MonkeyPatch, n_crops: int, priority: int | None, bulk: bool
) -> None:
    parameters = {} if priority is None else {"priority": priority}
    items = admitted(monkeypatch, toy_runtime(), json=as_json(*[A] * n_crops, parameters={**parameters, "other": [1]}))
    assert [item.bulk for item in items] == [bulk] * n_crops


@pytest.mark.parametrize(
    ("timeout", "header_ms", "expected_s"),
    [
        (None, None, 5.0),
        (0, None, 5.0),
        (2_000_000, None, 2.0),
        (10**12, None, 5.0),
        (10**30, None, 5.0),
        (3_000_000, 1000, 1.0),
        (1e6, 4000, 1.0),
    ],
)
def test_the_deadline_reaches_the_engine(
    monkeypatch: pytest.MonkeyPatch, timeout: float | None, header_ms: int | None, expected_s: float
) -> None:
    runtime, found = toy_runtime(), list[float]()
    recognizer = runtime.models.default.recognizer
    recognize = recognizer.recognize

    async def see(images: Any, timeout_s: float, *others: Any) -> Any:
        found.append(timeout_s)
        return await recognize(images, timeout_s, *others)

    monkeypatch.setattr(recognizer, "recognize", see)
    headers = {} if header_ms is None else {"x-request-timeout-ms": str(header_ms)}
    outputs_of(infer(runtime, json=as_json(A, parameters={} if timeout is None else {"timeout": timeout}), headers=headers))
    assert found == [expected_s]


def test_a_deadline_that_passes_is_told() -> None:
    session = FakeSession()
    runtime = toy_runtime(session)

    async def scenario(client: httpx.AsyncClient) -> None:
        session.gate.clear()
        try:
            answer = await client.post(INFER, json=as_json(A, parameters={"timeout": 20_000}))
        finally:
            session.gate.set()
        expect_error(answer, errors.DEADLINE_EXPIRED, "images[0]: ")

    with_client(runtime, scenario)


def test_who_is_busy_says_so_and_counts_it_once() -> None:
    session = FakeSession()
    runtime = toy_runtime(session, max_batch_size=1, max_queue_wait_ms=500.0, max_batch_queue_wait_ms=500.0)

    async def scenario(client: httpx.AsyncClient) -> None:
        runtime.models.default.cost.seed({1: 2.0})
        session.entered = threading.Semaphore(0)
        session.gate.clear()
        running = asyncio.ensure_future(client.post(INFER, json=as_json(A)))
        await asyncio.to_thread(session.wait_entered)
        try:
            answer = await client.post(INFER, content=b"not even JSON")
            expect_error(answer, errors.QUEUE_FULL, "PARSEQ_MAX_QUEUE_WAIT_MS")
            assert int(answer.headers["retry-after"]) >= 1
        finally:
            session.gate.set()
        assert outputs_of(await running)["text"] == ["abc"]

    with_client(runtime, scenario)
    text = runtime.metrics.render().decode()
    assert 'parseq_crops_refused_total{model="toy",reason="predicted_wait"} 1.0' in text
    assert 'parseq_problems_total{problem="queue-full"} 1.0' in text
    assert 'parseq_request_duration_seconds_count{status="429"} 1.0' in text
    assert 'parseq_request_duration_seconds_count{status="200"} 1.0' in text
    assert 'parseq_crops_total{model="toy",outcome="done"} 1.0' in text


# -- The older protocols -----------------------------------------------------------------------------------------------------

PREDICT = "/v1/models/toy:predict"


def test_instances_are_answered_with_predictions() -> None:
    a, b = base64_of(A, B)
    junk = base64_of(JUNK)[0]
    instances = [{"b64": a}, {"image_bytes": {"b64": b}}, a, {"content": b}, {"b64": junk}]
    answer = infer(path=PREDICT, json={"instances": instances, "parameters": {"any": 1}})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    predictions = answer.json()["predictions"]
    assert [prediction.get("text") for prediction in predictions] == ["abc", "x1", "abc", "x1", None]
    assert predictions[0]["confidence"] == pytest.approx(confidence_of("abc"), abs=1e-6)
    assert "damaged" in predictions[4]["error"]


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({}, errors.INVALID_REQUEST),
        ({"instances": []}, errors.INVALID_REQUEST),
        ({"instances": [3]}, errors.INVALID_REQUEST),
        ({"instances": [{}]}, errors.INVALID_REQUEST),
        ({"instances": [{"a": {"c": "x"}}]}, errors.INVALID_REQUEST),
        ({"instances": ["x"] * 129}, errors.TOO_MANY_CROPS),
    ],
)
def test_instances_that_are_no_images_are_told(document: Any, kind: errors.Kind) -> None:
    expect_error(infer(path=PREDICT, json=document), kind)
    expect_error(infer(path="/v1/models/nosuch:predict", json=document), errors.NOT_FOUND)


def test_the_paths_of_sagemaker_are_those_of_the_service() -> None:
    answer = infer(path="/invocations", content=A, headers={"content-type": "image/png"})
    assert answer.json()["text"] == "abc"
    assert request(toy_runtime(), "GET", "/ping").json() == {"status": "ready"}
    assert math.isclose(answer.json()["confidence"], confidence_of("abc"), abs_tol=1e-6)
