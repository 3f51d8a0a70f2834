"""From an HTTP request to the images it carries: raw body, form or JSON. No image is decoded here."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request

from service.errors import (
    EMPTY_BODY,
    INVALID_REQUEST,
    MALFORMED_REQUEST,
    NO_FILE,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
    too_many_crops,
)
from service.multipart import parse_files
from service.schemas import MAX_CROPS_KEY, MAX_ID_LENGTH, RecognizeRequest

MAX_ERRORS_TOLD: Final = 10


@dataclass(frozen=True, slots=True)
class Source:
    """One image as it arrived."""

    id: str | None
    content: bytes | str
    """The file itself, or base64 text."""


@dataclass(frozen=True, slots=True)
class Crops:
    """The images of a request."""

    sources: list[Source]
    single: bool
    """Whether the answer is one object instead of a list of results."""


async def read_crops(request: Request, max_crops: int) -> Crops:
    """Read and parse the body according to its content type.

    Raises:
        Problem: the content type is not supported, the body cannot be parsed, or it carries too many crops.
    """
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    parse = _parser_of(media_type)
    body = await request.body()
    if not body:
        raise Problem(EMPTY_BODY, "Send an image as the body, as a form file, or as base64 in JSON.")
    return parse(content_type, body, max_crops)


def _parser_of(media_type: str) -> Callable[[str, bytes, int], Crops]:
    if media_type == "multipart/form-data":
        return _from_form
    if media_type == "application/json":
        return _from_json
    if media_type in ("", "application/octet-stream") or media_type.startswith("image/"):
        return _from_raw
    hint = ""
    if media_type == "application/x-www-form-urlencoded":
        hint = " (curl sends this type unless told otherwise: add -H 'Content-Type: image/png', or use -F file=@...)"
    raise Problem(
        UNSUPPORTED_MEDIA_TYPE,
        "Send image/* or application/octet-stream, multipart/form-data, or application/json" + hint + ".",
    )


def _from_raw(_content_type: str, body: bytes, _max_crops: int) -> Crops:
    return Crops([Source(None, body)], single=True)


def _from_form(content_type: str, body: bytes, max_crops: int) -> Crops:
    files = parse_files(content_type, body, max_crops)
    if not files:
        raise Problem(NO_FILE, "The form has no file: curl -F file=@word.png sends one.")
    single = len(files) == 1
    sources = [
        Source(file.filename[:MAX_ID_LENGTH] or (None if single else str(index)), file.content)
        for index, file in enumerate(files)
    ]
    return Crops(sources, single)


def _from_json(_content_type: str, body: bytes, max_crops: int) -> Crops:
    try:
        parsed = RecognizeRequest.model_validate_json(body.removeprefix(BOM_UTF8), context={MAX_CROPS_KEY: max_crops})
    except ValidationError as error:
        raise _explain(error.errors(include_url=False, include_input=False, include_context=False), max_crops) from error
    sources = [
        Source(str(index) if image.id is None else str(image.id), image.content) for index, image in enumerate(parsed.images)
    ]
    return Crops(sources, single=False)


def _explain(errors: Sequence[Any], max_crops: int) -> Problem:
    if errors[0]["type"] == MAX_CROPS_KEY:
        return too_many_crops(max_crops)
    if errors[0]["type"] == "json_invalid":
        return Problem(MALFORMED_REQUEST, "The body is not valid JSON.")
    return invalid_request(errors)


def invalid_request(errors: Sequence[Any]) -> Problem:
    """A request that parses but is not valid; `errors` as pydantic lists them."""
    told = [
        {"location": ".".join(str(part) for part in error["loc"]), "message": error["msg"]}
        for error in errors[:MAX_ERRORS_TOLD]
    ]
    first = told[0]
    detail = f"{first['location']}: {first['message']}" if first["location"] else first["message"]
    return Problem(INVALID_REQUEST, detail, extra={"errors": told})
