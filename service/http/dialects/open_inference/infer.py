"""`POST /v2/models/NAME/infer`: the dialect of the Open Inference Protocol, documented in `docs/open_inference_protocol.md`.

Sources: the protocol's specification (github.com/kserve/open-inference-protocol) and Triton's extensions for binary tensors and
for `priority` and `timeout` (github.com/triton-inference-server/server, docs/protocol).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from service.config import Settings
from service.core.models import Model
from service.core.recognizer import CropResult
from service.errors import MALFORMED_REQUEST, Problem
from service.http.bodies.body import Body
from service.http.connection.body_budget import SMALL_BODY_BYTES
from service.http.dialects.dialect import Crops, Dialect
from service.http.dialects.open_inference.answers import LENGTH_HEADER, infer_answer
from service.http.dialects.open_inference.documents import JSON_TYPE, error_document, json_too_large, read_body, read_object
from service.http.dialects.open_inference.requests import InferCrops, raw_image, read_request
from service.http.dialects.v1_answers import server_timing, timings_of
from service.http.dialects.v1_bodies import BodyLimits
from service.http.head import MAX_LENGTH_DIGITS, Announcement, Count, Head
from service.http.problems import Answer

ROOT: Final = "/v2"
LIVE: Final = f"{ROOT}/health/live"
READY: Final = f"{ROOT}/health/ready"
INFER_PATH: Final = f"{ROOT}/models/{{name}}/infer"


class OpenInference(Dialect):
    """Inference requests of the protocol. Its other paths are answered by `open_inference_routes.py`.

    Args:
        settings: Of the service.
    """

    paths = (INFER_PATH, f"{ROOT}/models/{{name}}/versions/{{version}}/infer")
    root = ROOT
    probes = (LIVE, READY)

    def __init__(self, settings: Settings) -> None:
        self._limits = BodyLimits.of(settings)
        self._max_json_bytes = min(settings.max_json_bytes, settings.max_body_bytes)

    def announce(self, head: Head) -> Announcement:
        """The model that is asked for. Only the body says how many crops come."""
        parts = head.path.split("/")  # "", v2, models, NAME, versions, VERSION, infer
        comes = 0 < head.content_length <= self._limits.max_bytes or b"transfer-encoding" in head.headers
        return Announcement(Count.SOME if comes else None, parts[3], parts[5] if len(parts) > 5 else None)

    async def parse(self, head: Head, body: Body) -> InferCrops:
        """Read the JSON, and the binary tensors after it."""
        given_ms = head.checked_timeout_ms()
        start = _header_bytes(head)
        most_bytes = self._max_json_bytes if start is None else self._limits.max_bytes
        data = await read_body(head, body, self._limits, most_bytes)
        if head.media_type != JSON_TYPE and len(data) > SMALL_BODY_BYTES:
            body.hold(len(data))  # images are copied out of it; for JSON the copy is counted already
        if start is None:
            crops = read_request(await read_object(data, self._limits), data, None, self._limits.max_crops)
        elif start == 0:
            crops = raw_image(data)
        else:
            if start > len(data):
                raise Problem(MALFORMED_REQUEST, f"The header says {start} bytes of JSON, and the body has {len(data)} in all.")
            if start > self._max_json_bytes:
                raise json_too_large(self._limits)
            document = await read_object(data[:start], self._limits)
            crops = read_request(document, data, start, self._limits.max_crops)
        crops.timeout_ms = min(crops.timeout_ms, given_ms)
        return crops

    async def answer(self, head: Head, crops: Crops, results: Sequence[CropResult], model: Model, total_s: float) -> Answer:
        """The outputs. If the request does not ask for the output `error`, the first crop that failed decides the answer."""
        if not isinstance(crops, InferCrops):
            raise TypeError("crops of another dialect")
        timing = server_timing(timings_of(results, total_s)).encode()
        name = model.name if head.announced is None or head.announced.model is None else head.announced.model
        return await infer_answer(crops, results, name, model.version, ((b"server-timing", timing),))

    def problem(self, problem: Problem) -> Answer:
        """As `{"error": "..."}`."""
        return error_document(problem)


def _header_bytes(head: Head) -> int | None:
    """How many bytes of the body are JSON; `None`: all of them."""
    given = head.headers.get(LENGTH_HEADER)
    if given is None:
        return None
    if not given.isdigit() or len(given) > MAX_LENGTH_DIGITS:
        raise Problem(MALFORMED_REQUEST, "The header Inference-Header-Content-Length must be a number of bytes.")
    return int(given)
