"""The images in a body, which is an image, a form or JSON. No image is decoded here."""

from __future__ import annotations

from codecs import BOM_UTF8
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError

from service.config import Settings
from service.core.crop_decoder import EncodedImage
from service.errors import (
    JSON_TOO_LARGE,
    MALFORMED_REQUEST,
    NO_FILE,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
    body_too_large,
    too_many_crops,
)
from service.http.bodies.json_outline import check_outline
from service.http.bodies.media_types import announces_image
from service.http.bodies.multipart import parse_files
from service.http.dialects.v1_schemas import ID_RULE, MAX_CROPS_KEY, MAX_ID_LENGTH, RecognizeRequest
from service.http.problems import invalid_request
from service.images.limits import image_file_too_large


class BodyForm(Enum):
    """How a body carries images."""

    RAW = 0
    """The body is one image file."""
    FORM = 1
    JSON = 2


_FORMS: Final = {"multipart/form-data": BodyForm.FORM, "application/json": BodyForm.JSON, "": BodyForm.RAW}


@lru_cache(64)
def form_of(media_type: str) -> BodyForm | None:
    """How a body of this media type carries images; `None`: the type is not supported."""
    form = _FORMS.get(media_type)
    return BodyForm.RAW if form is None and announces_image(media_type) else form


def encoded() -> Problem:
    """The refusal of a body with a content encoding."""
    detail = "The body has a Content-Encoding, which is not supported. Send it as it is: images are compressed already."
    return Problem(UNSUPPORTED_MEDIA_TYPE, detail)


def unsupported(media_type: str) -> Problem:
    """The refusal of a body of a media type that is not supported."""
    hint = ""
    if media_type == "application/x-www-form-urlencoded":
        hint = " (curl sends this type unless told otherwise: add -H 'Content-Type: image/png', or use -F file=@...)"
    return Problem(
        UNSUPPORTED_MEDIA_TYPE,
        "Send image/* or application/octet-stream, multipart/form-data, or application/json" + hint + ".",
    )


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The limits of a body."""

    max_bytes: int
    max_crops: int
    max_image_bytes: int
    max_json_bytes: int
    max_json_depth: int
    max_form_fields: int
    max_regions: int

    @classmethod
    def of(cls, settings: Settings) -> BodyLimits:
        """The limits that the settings give."""
        return cls(
            settings.max_body_bytes,
            settings.max_crops_per_request,
            settings.max_image_bytes,
            settings.max_json_bytes,
            settings.max_json_depth,
            settings.max_form_fields,
            min(settings.max_regions, settings.max_queue_items),
        )

    def most_bytes(self, form: BodyForm) -> int:
        """The limit in bytes for a body of this form."""
        of_form = {BodyForm.RAW: self.max_image_bytes, BodyForm.JSON: self.max_json_bytes}.get(form, self.max_bytes)
        return min(self.max_bytes, of_form)

    def too_large(self, form: BodyForm, n_bytes: float) -> Problem:
        """The refusal of a body of `n_bytes`, which exceeds the limit."""
        if n_bytes > self.max_bytes:
            return body_too_large(self.max_bytes)
        if form is BodyForm.RAW:
            return image_file_too_large(self.max_image_bytes)
        detail = f"JSON may have {self.max_json_bytes} bytes at most (PARSEQ_MAX_JSON_BYTES). Forms may be larger."
        return Problem(JSON_TOO_LARGE, detail)


async def images_of_form(content_type: bytes, body: bytes, limits: BodyLimits) -> list[EncodedImage]:
    """The files of a form; each has its file name, or its field's name, as id."""
    files = await parse_files(content_type.decode("latin-1"), body, limits.max_crops, limits.max_form_fields)
    if not files:
        raise Problem(NO_FILE, "The form has no file, at most texts: curl -F file=@word.png (mind the @) sends one.")
    return [EncodedImage(file.filename[:MAX_ID_LENGTH] or None, file.content) for file in files]


async def images_of_json(body: bytes, limits: BodyLimits) -> list[EncodedImage]:
    """The base64 images of a list in JSON."""
    max_crops = limits.max_crops
    await check_outline(body, max_crops, limits.max_json_depth)
    try:
        parsed = RecognizeRequest.model_validate_json(body.removeprefix(BOM_UTF8), context={MAX_CROPS_KEY: max_crops})
    except ValidationError as error:
        raise explain(error, too_many_crops(max_crops)) from error
    return [EncodedImage(None if image.id is None else str(image.id), image.content) for image in parsed.images]


def explain(error: ValidationError, too_many: Problem, where: tuple[str, ...] = ()) -> Problem:
    """The refusal of JSON that is not as it must be.

    Args:
        error: Of a schema.
        too_many: The refusal of a list that is too long.
        where: Where in the request the JSON is; empty: it is the body.
    """
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    if errors[0]["type"] == MAX_CROPS_KEY:
        return too_many
    if errors[0]["type"] == "json_invalid":
        return Problem(MALFORMED_REQUEST, f"The {where[-1] if where else 'body'} is not valid JSON.")
    told: list[dict[str, Any]] = []
    for each in errors:
        location, message = each["loc"], each["msg"]
        if "id" in location:  # pydantic reports each kind of id that it tried; together they are one rule
            location, message = location[: location.index("id") + 1], ID_RULE
        if (found := {"loc": (*where, *location), "msg": message}) not in told:
            told.append(found)
    return invalid_request(told)
