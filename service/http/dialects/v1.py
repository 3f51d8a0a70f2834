"""`POST /v1/recognize`, the service's own protocol; `openapi.py` describes it, and a test compares the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from service.config import Settings
from service.core.crop_decoder import EncodedImage
from service.core.models import Model
from service.core.recognizer import CropResult
from service.errors import EMPTY_BODY, Problem
from service.http.bodies.body import Body
from service.http.dialects.dialect import NOTHING_ANNOUNCED, Crops, Dialect
from service.http.dialects.v1_answers import encode_json, recognition, result_members, server_timing, timings_of
from service.http.dialects.v1_bodies import BodyForm, BodyLimits, encoded, form_of, images_of_form, images_of_json, unsupported
from service.http.dialects.v1_query import NO_WISHES, Wishes, model_of, read_query
from service.http.head import Announcement, Count, Head
from service.http.problems import Answer
from service.http.turns import Turns

_ANNOUNCEMENTS: Final = {
    None: NOTHING_ANNOUNCED,
    BodyForm.RAW: Announcement(Count.ONE),
    BodyForm.FORM: Announcement(Count.SOME),
    BodyForm.JSON: Announcement(Count.SEVERAL),
}


@dataclass(slots=True)
class V1Crops(Crops):
    """The images of a request, and the form of the answer."""

    wishes: Wishes
    as_list: bool
    """Whether the answer is a list of results instead of one object."""


class V1(Dialect):
    """The protocol of `docs/api.md`.

    Args:
        settings: Of the service.
    """

    paths: Sequence[str] = ("/v1/recognize", "/recognize", "/invocations")
    """The last one is SageMaker's."""

    def __init__(self, settings: Settings) -> None:
        self._limits = BodyLimits.of(settings)
        self._most_bytes = {form: self._limits.most_bytes(form) for form in BodyForm}

    def announce(self, head: Head) -> Announcement:
        """The model, and how many crops may come; not known for a request that is empty or will be refused."""
        announced = _ANNOUNCEMENTS[form_of(head.media_type)]
        if not 0 < head.content_length <= self._limits.max_bytes and b"transfer-encoding" not in head.headers:
            announced = NOTHING_ANNOUNCED
        if head.query and (model := model_of(head.query)) is not None:
            return Announcement(announced.count, model)
        return announced

    async def parse(self, head: Head, body: Body) -> V1Crops:
        """Read and parse the body according to its content type."""
        wishes = read_query(head.query) if head.query else NO_WISHES
        timeout_ms = head.checked_timeout_ms()
        form = form_of(head.media_type)
        if form is None:
            raise unsupported(head.media_type)
        if head.headers.get(b"content-encoding", b"").strip().lower() not in (b"", b"identity"):
            raise encoded()
        data = await body.read(self._most_bytes[form], partial(self._limits.too_large, form))
        if not data:
            raise Problem(EMPTY_BODY, "Send an image as the body, as a form file, or as base64 in JSON.")
        if form is BodyForm.RAW:
            return V1Crops([EncodedImage(None, data)], timeout_ms, wishes, wishes.list, options=wishes.options)
        if form is BodyForm.JSON:
            images = await images_of_json(data, self._limits)
            return V1Crops(images, timeout_ms, wishes, as_list=True, options=wishes.options)
        images = await images_of_form(head.headers[b"content-type"], data, self._limits)
        return V1Crops(images, timeout_ms, wishes, wishes.list or len(images) > 1, options=wishes.options)

    async def answer(self, head: Head, crops: Crops, results: Sequence[CropResult], model: Model, total_s: float) -> Answer:
        """One object, or a list in the order of the request."""
        if not isinstance(crops, V1Crops):
            raise TypeError("crops of another dialect")
        timings = timings_of(results, total_s)
        header = server_timing(timings)
        by = {"model": model.name, "model_version": model.version, "timings": timings}
        if crops.as_list:
            body = await _render_list(crops, results, encode_json(by))
        else:
            reading = results[0].reading
            if isinstance(reading, Problem):
                reading.headers["Server-Timing"] = header
                raise reading
            body = recognition(crops.images[0].id, results[0], crops.wishes.characters, by)
        return Answer(200, body, "application/json", ((b"server-timing", header.encode()),))


async def _render_list(crops: V1Crops, results: Sequence[CropResult], by: str) -> bytes:
    """The results one by one, with breaks: hundreds of texts with their characters take some time."""
    rendered, turns = [], Turns()
    for index, (image, result) in enumerate(zip(crops.images, results, strict=True)):
        id_ = str(index) if image.id is None else image.id
        rendered.append(encode_json(result_members(id_, result, crops.wishes.characters)))
        await turns.step()
    return f'{{"results":[{",".join(rendered)}],{by[1:]}'.encode()
