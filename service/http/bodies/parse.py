"""From an HTTP request to the images it carries: raw body, form or JSON. No image is decoded here."""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from io import BytesIO
from typing import Any, Final

from pydantic import ValidationError
from starlette.types import Receive, Scope

from service.config import Settings
from service.core.recognizer import Source
from service.errors import (
    EMPTY_BODY,
    INVALID_REQUEST,
    JSON_TOO_LARGE,
    MALFORMED_REQUEST,
    NO_FILE,
    UNSUPPORTED_MEDIA_TYPE,
    ClientLeftError,
    Problem,
    body_too_large,
    too_many_crops,
)
from service.http.bodies.json_outline import check_outline
from service.http.bodies.media_types import announces_image, media_type_of
from service.http.bodies.multipart import parse_files
from service.http.schemas import ID_RULE, MAX_CROPS_KEY, MAX_ID_LENGTH, RecognizeRequest
from service.images.limits import image_file_too_large

ARRIVAL_PROBLEM: Final = "parseq.arrival_problem"
"""Where the HTTP server puts a `Problem` into the scope of a request whose body cannot arrive any more, before it wakes us."""
MAX_ERRORS_TOLD: Final = 10
MAX_LENGTH_DIGITS: Final = 18
"""Of a `Content-Length`: Python refuses to read numbers of thousands of digits."""


class BodyForm(Enum):
    """How a body carries images."""

    RAW = 0
    """One image, and nothing else."""
    FORM = 1
    JSON = 2


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What a body may be."""

    max_bytes: int
    max_crops: int
    max_image_bytes: int
    max_json_bytes: int
    max_json_depth: int
    max_form_fields: int

    @classmethod
    def of(cls, settings: Settings) -> BodyLimits:
        """Those of the settings."""
        return cls(
            settings.max_body_bytes,
            settings.max_crops_per_request,
            settings.max_image_bytes,
            settings.max_json_bytes,
            settings.max_json_depth,
            settings.max_form_fields,
        )

    def check_bytes(self, form: BodyForm, n_bytes: float) -> None:
        """Raise a `Problem` for a body of this form that has, or will have, more bytes than it may."""
        if n_bytes > self.max_bytes:
            raise body_too_large(self.max_bytes)
        if form is BodyForm.RAW and n_bytes > self.max_image_bytes:
            raise image_file_too_large(self.max_image_bytes)
        if form is BodyForm.JSON and n_bytes > self.max_json_bytes:
            raise _json_too_large(self.max_json_bytes)


@dataclass(frozen=True, slots=True)
class Crops:
    """The images of a request."""

    sources: list[Source]
    single: bool
    """Whether the answer is one object instead of a list of results, unless a list is asked for."""


def form_of(headers: Mapping[bytes, bytes], max_body_bytes: int) -> BodyForm | None:
    """What the headers announce; `None` when `read_crops` would find fault with them or nothing is to come."""
    if b"transfer-encoding" not in headers and not 0 < _announced_bytes(headers) <= max_body_bytes:
        return None
    return _form_of(_media_type(headers))


async def read_crops(scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, limits: BodyLimits) -> Crops:
    """Read and parse the body according to its content type.

    Args:
        scope: Of the request.
        headers: Of the request, by name in lower case.
        receive: Of the request.
        limits: Of the body.

    Raises:
        Problem: the content type is not supported, the body is too large, takes too long or cannot be parsed, or it has too
            many crops.
        ClientLeftError: the client left before the body was complete.
    """
    form = _known_form(_media_type(headers))
    if headers.get(b"content-encoding", b"").strip().lower() not in (b"", b"identity"):
        detail = "The body has a Content-Encoding, which is not supported. Send it as it is: images are compressed already."
        raise Problem(UNSUPPORTED_MEDIA_TYPE, detail)
    body = await _read_body(scope, headers, receive, partial(limits.check_bytes, form))
    if not body:
        raise Problem(EMPTY_BODY, "Send an image as the body, as a form file, or as base64 in JSON.")
    if form is BodyForm.RAW:
        return Crops([Source(None, body)], single=True)
    if form is BodyForm.JSON:
        return _from_json(body, limits)
    return await _from_form(headers[b"content-type"].decode("latin-1"), body, limits)


async def _read_body(
    scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, check_bytes: Callable[[float], None]
) -> bytes:
    """The whole body; one above the limit is refused by its announced length before it is read, else while it arrives."""
    # Before the first `receive`, so that a client that asks first (100-continue) sends nothing.
    check_bytes(_announced_bytes(headers))
    body = BytesIO()  # a list of pieces would leave large holes in the heap, and a bytearray is copied in the end
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        if ARRIVAL_PROBLEM in scope:  # whatever has come, and also if it looks like the last of it
            raise scope[ARRIVAL_PROBLEM]
        piece: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        check_bytes(body.tell() + len(piece))
        if not body.tell() and not more:
            return piece
        body.write(piece)
        if not more:
            return body.getvalue()


def _announced_bytes(headers: Mapping[bytes, bytes]) -> float:
    """What `Content-Length` says; 0 when it says nothing."""
    announced = headers.get(b"content-length", b"")
    if len(announced) > MAX_LENGTH_DIGITS:
        return math.inf
    return int(announced) if announced.isdigit() else 0


def _media_type(headers: Mapping[bytes, bytes]) -> str:
    return media_type_of(headers.get(b"content-type", b""))


def _form_of(media_type: str) -> BodyForm | None:
    if media_type == "multipart/form-data":
        return BodyForm.FORM
    if media_type == "application/json":
        return BodyForm.JSON
    if not media_type or announces_image(media_type):
        return BodyForm.RAW
    return None


def _known_form(media_type: str) -> BodyForm:
    form = _form_of(media_type)
    if form is not None:
        return form
    hint = ""
    if media_type == "application/x-www-form-urlencoded":
        hint = " (curl sends this type unless told otherwise: add -H 'Content-Type: image/png', or use -F file=@...)"
    raise Problem(
        UNSUPPORTED_MEDIA_TYPE,
        "Send image/* or application/octet-stream, multipart/form-data, or application/json" + hint + ".",
    )


async def _from_form(content_type: str, body: bytes, limits: BodyLimits) -> Crops:
    files = await parse_files(content_type, body, limits.max_crops, limits.max_form_fields)
    if not files:
        raise Problem(NO_FILE, "The form has no file, at most texts: curl -F file=@word.png (mind the @) sends one.")
    return Crops([Source(file.filename[:MAX_ID_LENGTH] or None, file.content) for file in files], single=len(files) == 1)


def _from_json(body: bytes, limits: BodyLimits) -> Crops:
    max_crops = limits.max_crops
    check_outline(body, max_crops, limits.max_json_depth)
    try:
        parsed = RecognizeRequest.model_validate_json(body.removeprefix(BOM_UTF8), context={MAX_CROPS_KEY: max_crops})
    except ValidationError as error:
        raise _explain(error.errors(include_url=False, include_input=False, include_context=False), max_crops) from error
    sources = [Source(None if image.id is None else str(image.id), image.content) for image in parsed.images]
    return Crops(sources, single=False)


def _json_too_large(limit_bytes: int) -> Problem:
    return Problem(JSON_TOO_LARGE, f"JSON may have {limit_bytes} bytes at most (PARSEQ_MAX_JSON_BYTES). Forms may be larger.")


def _explain(errors: Sequence[Any], max_crops: int) -> Problem:
    if errors[0]["type"] == MAX_CROPS_KEY:
        return too_many_crops(max_crops)
    if errors[0]["type"] == "json_invalid":
        return Problem(MALFORMED_REQUEST, "The body is not valid JSON.")
    told = []
    for error in errors:
        location = error["loc"]
        if location[2:3] == ("id",):  # below it are the kinds of ids that were tried: all of them together are the rule
            error = {"loc": location[:3], "msg": ID_RULE}
        if error not in told:
            told.append(error)
    return invalid_request(told)


def invalid_request(errors: Sequence[Any]) -> Problem:
    """A request that parses but is not valid; `errors` as pydantic lists them."""
    told = [
        {"location": ".".join(str(part) for part in error["loc"]), "message": error["msg"]}
        for error in errors[:MAX_ERRORS_TOLD]
    ]
    first = told[0]
    detail = f"{first['location']}: {first['message']}" if first["location"] else first["message"]
    return Problem(INVALID_REQUEST, detail, extra={"errors": told})
