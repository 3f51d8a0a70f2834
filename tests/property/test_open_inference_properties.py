"""Whatever is sent to an inference protocol is read or refused, and what is read is what was sent."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Coroutine, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.core.crop_decoder import EncodedImage
from service.errors import Problem
from service.http.bodies.body import Body
from service.http.dialects.dialect import Crops, Dialect
from service.http.dialects.instances import Instances
from service.http.dialects.open_inference.infer import OpenInference
from service.http.dialects.open_inference.requests import InferCrops
from service.http.head import Head
from service.images.decode import RawPicture
from tests.fakes import toy_settings
from tests.open_inference import LENGTH_HEADER, binary, files, packed

SETTINGS = toy_settings(max_body_bytes=2**16, max_json_bytes=2**14, max_crops_per_request=8)
INFER, PREDICT = OpenInference(SETTINGS), Instances(SETTINGS)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
json_values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=8), scalars, max_size=2)
sizes = st.one_of(st.integers(-2, 12), st.sampled_from([2**31, 2**63, 2**64, 10**40]), json_values)
tensors = st.fixed_dictionaries(
    {"name": st.just("images") | json_values, "datatype": st.sampled_from(["BYTES", "UINT8"]) | json_values},
    optional={
        "shape": st.lists(sizes, max_size=5) | json_values,
        "data": st.lists(st.text(max_size=8) | json_values, max_size=9) | json_values,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": sizes, "other": json_values}) | json_values,
    },
)
documents = st.fixed_dictionaries(
    {"inputs": st.lists(tensors | json_values, max_size=3) | json_values},
    optional={
        "id": json_values,
        "parameters": st.fixed_dictionaries(
            {}, optional={"timeout": sizes, "priority": sizes, "binary_data_output": json_values}
        )
        | json_values,
        "outputs": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["text", "error", "nosuch"]) | json_values}, optional={"parameters": json_values}
            )
            | json_values,
            max_size=4,
        )
        | json_values,
        "instances": json_values,
    },
)


def finished(work: Coroutine[Any, Any, Crops]) -> Crops:
    """What it returns. All it ever waits for is its turn, so it needs no event loop."""
    while True:
        try:
            work.send(None)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def parse(dialect: Dialect, content: bytes, headers: Mapping[str, str]) -> Crops | Problem:
    path = "/v2/models/toy/infer" if dialect is INFER else "/v1/models/toy:predict"
    lines = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope: dict[str, Any] = {"method": "POST", "path": path, "query_string": b"", "headers": lines}

    async def receive() -> Any:
        return {"type": "http.request", "body": content, "more_body": False}

    async def run() -> Crops:
        head = Head(scope)
        assert dialect.announce(head).model == "toy"
        return await dialect.parse(head, Body(scope, receive, len(content), SETTINGS.max_body_bytes))

    try:
        return finished(run())
    except Problem as problem:
        return problem


def check(crops: Crops | Problem) -> None:
    if isinstance(crops, Problem):
        assert 400 <= crops.status < 500
        assert len(crops.detail) < 400
        return
    assert 1 <= len(crops.images) <= SETTINGS.max_crops_per_request
    assert crops.timeout_ms > 0
    if isinstance(crops, InferCrops):
        assert math.prod(crops.shape) == len(crops.images)


@given(documents, st.binary(max_size=40), st.integers(-3, 3) | st.none())
def test_any_json_is_read_or_refused(document: Any, tail: bytes, wrong_by: int | None) -> None:
    content = json.dumps(document).encode()
    headers = {} if wrong_by is None else {LENGTH_HEADER: str(len(content) + wrong_by)}
    check(parse(INFER, content + tail, headers))
    check(parse(PREDICT, content, {}))


@given(
    st.binary(max_size=200),
    st.text(st.characters(max_codepoint=255), max_size=6),
    st.sampled_from(["", "gzip", "deflate", "x"]),
)
def test_any_bytes_are_read_or_refused(content: bytes, length: str, encoding: str) -> None:
    headers = {"content-encoding": encoding, **({LENGTH_HEADER: length} if length else {})}
    check(parse(INFER, content, headers))
    check(parse(PREDICT, content, headers))


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=8), st.sampled_from([None, gzip.compress, zlib.compress]))
def test_files_arrive_as_they_are(contents: list[bytes], pack: Any) -> None:
    body, headers = files(*contents)
    if pack is not None:
        body, headers = pack(body), {**headers, "content-encoding": "gzip" if pack is gzip.compress else "deflate"}
    crops = parse(INFER, body, headers)
    assert isinstance(crops, InferCrops)
    assert crops.images == [EncodedImage(None, content) for content in contents]


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8), st.data())
def test_a_binary_tensor_that_is_cut_or_has_more_is_refused(contents: list[bytes], data: st.DataObject) -> None:
    blob = packed(*contents)
    other = data.draw(
        st.integers(0, len(blob) - 1).map(lambda end: blob[:end]) | st.binary(min_size=1).map(lambda more: blob + more)
    )
    body, headers = binary(other, [len(contents)])
    assert isinstance(parse(INFER, body, headers), Problem)
    body, headers = files(*contents)
    cut = data.draw(st.integers(0, len(body) - 1))
    assert isinstance(parse(INFER, body[:cut], headers), Problem)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(-3, 3))
def test_pixels_arrive_as_they_are_or_are_refused(n: int, height: int, width: int, wrong_by: int) -> None:
    blob = bytes(index % 251 for index in range(n * height * width * 3 + wrong_by))
    crops = parse(INFER, *binary(blob, [n, height, width, 3], "UINT8"))
    if wrong_by:
        assert isinstance(crops, Problem)
        return
    assert isinstance(crops, InferCrops)
    pictures = [image.content for image in crops.images]
    assert all(isinstance(picture, RawPicture) and (picture.height, picture.width) == (height, width) for picture in pictures)
    assert b"".join(picture.content for picture in pictures if isinstance(picture, RawPicture)) == blob


@given(st.integers(2**16 + 1, 2**22), st.sampled_from(["gzip", "deflate"]), st.booleans())
def test_no_bomb_is_unpacked(n_bytes: int, encoding: str, with_header: bool) -> None:
    bomb = (gzip.compress if encoding == "gzip" else zlib.compress)(bytes(n_bytes), 1)
    headers = {"content-encoding": encoding, **({LENGTH_HEADER: "10"} if with_header else {})}
    refused = parse(INFER, bomb[: 2**16], headers)
    assert isinstance(refused, Problem)
