"""`POST /v1/regions`: regions of one page, in the service's own protocol."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from service.core.crop_decoder import EncodedImage
from service.core.models import Model
from service.core.recognizer import CropResult
from service.errors import EMPTY_BODY, INVALID_REQUEST, NO_FILE, UNSUPPORTED_MEDIA_TYPE, Problem, too_many_regions
from service.http.bodies.body import Body
from service.http.bodies.form_parts import form_problem
from service.http.bodies.json_outline import REGIONS, check_outline
from service.http.bodies.multipart import parse_form
from service.http.dialects.v1 import V1, V1Crops
from service.http.dialects.v1_bodies import BodyForm, BodyLimits, encoded, explain, form_of
from service.http.dialects.v1_query import NO_WISHES, read_query
from service.http.dialects.v1_schemas import MAX_CROPS_KEY, RegionInput, RegionList, RegionsRequest
from service.http.head import Announcement, Count, Head
from service.http.problems import Answer
from service.images.pages import EncodedPage, PageRegion

FIELD: Final = "regions"
Parsed = TypeVar("Parsed", bound=BaseModel)


@dataclass(slots=True)
class RegionCrops(V1Crops):
    """The regions of a page."""

    page: EncodedPage


class V1Regions(V1):
    """Reads regions of a page as crops of one request. All about queries, options and results is that of `V1`."""

    paths = ("/v1/regions",)

    def announce(self, head: Head) -> Announcement:
        """The model; what is refused before it is read counts as several crops."""
        announced = super().announce(head)
        return announced if announced.count is None else Announcement(Count.SEVERAL, announced.model)

    async def parse(self, head: Head, body: Body) -> RegionCrops:
        """Read and parse the body according to its content type."""
        wishes = read_query(head.query) if head.query else NO_WISHES
        timeout_ms, form, limits = head.checked_timeout_ms(), form_of(head.media_type), self._limits
        if form not in (BodyForm.JSON, BodyForm.FORM):
            detail = "Send the page and its regions as multipart/form-data, or as application/json."
            raise Problem(UNSUPPORTED_MEDIA_TYPE, detail)
        if head.headers.get(b"content-encoding", b"").strip().lower() not in (b"", b"identity"):
            raise encoded()
        data = await body.read(limits.most_bytes(form), partial(limits.too_large, form))
        if not data:
            raise Problem(EMPTY_BODY, "Send a page and its regions, as a form or as JSON.")
        if form is BodyForm.FORM:
            content, regions = await _of_form(head.headers[b"content-type"], data, limits)
        else:
            request = await _parse_json(RegionsRequest, data, limits)
            content, regions = request.image, request.regions
        page = EncodedPage(content, len(regions))
        images = [
            EncodedImage(None if each.id is None else str(each.id), PageRegion(page, each.points, each.box)) for each in regions
        ]
        return RegionCrops(images, timeout_ms, wishes, as_list=True, options=wishes.options, page=page, bulk=True)

    async def answer(self, head: Head, crops: Any, results: Sequence[CropResult], model: Model, total_s: float) -> Answer:
        """A list in the order of the request; if the page cannot be decoded, that is the answer."""
        if isinstance(crops, RegionCrops) and crops.page.problem is not None:
            raise crops.page.problem
        return await super().answer(head, crops, results, model, total_s)


async def _of_form(content_type: bytes, body: bytes, limits: BodyLimits) -> tuple[bytes | str, Sequence[RegionInput]]:
    """The page and the regions of a form."""
    files, texts = await parse_form(
        content_type.decode("latin-1"), body, limits.max_crops, limits.max_form_fields, wanted=(FIELD,)
    )
    if not files:
        raise Problem(NO_FILE, "The form has no file: curl -F file=@page.png (mind the @) sends one.")
    if len(files) > 1:
        raise Problem(INVALID_REQUEST, f"The form has {len(files)} files: send one page in a request.")
    lists = [text for text in texts if text.name == FIELD]
    if len(lists) != 1 or lists[0].empty:
        detail = 'The form must have one field "regions" with a list in JSON, such as [{"box": [10, 20, 90, 44]}].'
        raise form_problem(FIELD, detail)
    return files[0].content, (await _parse_json(RegionList, lists[0].content, limits, ("form", FIELD))).root


async def _parse_json(schema: type[Parsed], data: bytes, limits: BodyLimits, where: tuple[str, ...] = ()) -> Parsed:
    await check_outline(data, limits.max_regions, limits.max_json_depth, REGIONS)
    try:
        return schema.model_validate_json(data.removeprefix(BOM_UTF8), context={MAX_CROPS_KEY: limits.max_regions})
    except ValidationError as error:
        raise explain(error, too_many_regions(limits.max_regions), where) from error
