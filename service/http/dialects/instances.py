"""`POST /v1/models/NAME:predict`: version 1 of KServe's protocol, which Vertex AI uses too: `instances` in, `predictions` out.

Sources: kserve.github.io (data plane, v1) and cloud.google.com/vertex-ai (requirements of custom containers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.config import Settings
from service.core.crop_decoder import EncodedImage
from service.core.models import Model
from service.core.recognizer import CropResult
from service.errors import Problem, too_many_crops
from service.http.bodies.body import Body
from service.http.dialects.dialect import Crops, Dialect
from service.http.dialects.open_inference.documents import JSON_TYPE, error_document, invalid, read_body, read_object
from service.http.dialects.v1_answers import encode_json, server_timing, text_members, timings_of
from service.http.dialects.v1_bodies import BodyLimits
from service.http.head import Announcement, Count, Head
from service.http.problems import Answer
from service.http.turns import Turns


class Instances(Dialect):
    """Reads images in base64, and answers with the text or the error of each.

    Args:
        settings: Of the service.
    """

    paths = ("/v1/models/{name}:predict",)

    def __init__(self, settings: Settings) -> None:
        self._limits = BodyLimits.of(settings)

    def announce(self, head: Head) -> Announcement:
        """The model that is asked for."""
        name = head.path.split("/")[3].removesuffix(":predict")
        return Announcement(Count.SEVERAL if 0 < head.content_length <= self._limits.max_json_bytes else None, name)

    async def parse(self, head: Head, body: Body) -> Crops:
        """Each instance is a base64 text, or an object with one as `b64` or `content`, or as `b64` of one of its members."""
        timeout_ms, limits = head.checked_timeout_ms(), self._limits
        data = await read_body(head, body, limits, min(limits.max_json_bytes, limits.max_bytes))
        if head.media_type != JSON_TYPE:
            body.hold(len(data))
        instances = (await read_object(data, limits)).get("instances")
        if not isinstance(instances, list) or not instances:
            raise invalid('instances: must be a list of images, such as [{"b64": "..."}].')
        if len(instances) > limits.max_crops:
            raise too_many_crops(limits.max_crops)
        return Crops([EncodedImage(None, _base64_of(index, each)) for index, each in enumerate(instances)], timeout_ms)

    async def answer(self, head: Head, crops: Crops, results: Sequence[CropResult], model: Model, total_s: float) -> Answer:
        """A prediction for each instance, in order."""
        predictions, turns = [], Turns()
        for result in results:
            reading = result.reading
            predictions.append(
                encode_json({"error": reading.detail} if isinstance(reading, Problem) else text_members(result, False))
            )
            await turns.step()
        body = f'{{"predictions":[{",".join(predictions)}]}}'.encode()
        return Answer(200, body, JSON_TYPE, ((b"server-timing", server_timing(timings_of(results, total_s)).encode()),))

    def problem(self, problem: Problem) -> Answer:
        """As `{"error": "..."}`."""
        return error_document(problem)


def _base64_of(index: int, instance: Any) -> str:
    found = instance
    if isinstance(found, dict) and len(found) == 1 and isinstance(inner := next(iter(found.values())), dict):
        found = inner  # under the name of an input, as in {"image_bytes": {"b64": "..."}}
    if isinstance(found, dict):
        found = found.get("b64", found.get("content"))
    if not isinstance(found, str):
        raise invalid(f'instances[{index}]: must be an image in base64, such as {{"b64": "..."}}.')
    return found
