"""The HTTP endpoints. Each parses, asks the runtime, and builds its answer; errors are raised as `Problem`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from service import errors, openapi
from service.bodies import read_crops
from service.decode_tokens import Reading
from service.errors import Problem
from service.recognizer import CropResult
from service.runtime import Runtime
from service.schemas import Health, ModelList

PAGE = Path(__file__).parent / "bundled" / "index.html"
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob:; connect-src 'self'"
"""The page is one file: it needs nothing from elsewhere and may load nothing."""
CONFIDENCE_DIGITS = 6
MILLISECOND_DIGITS = 3


def build_router(runtime: Runtime) -> APIRouter:
    """The endpoints of one app."""
    router = APIRouter(default_response_class=Response)
    _add_recognition(router, runtime)
    _add_model_list(router, runtime)
    _add_probes(router, runtime)
    _add_page(router)
    return router


def _add_recognition(router: APIRouter, runtime: Runtime) -> None:
    @router.post("/recognize", include_in_schema=False)
    @router.post(
        "/v1/recognize",
        summary="Read word crops",
        operation_id="recognize",
        responses=openapi.recognize_responses(),
        openapi_extra={"requestBody": openapi.RECOGNIZE_BODY},
    )
    async def recognize(
        request: Request,
        characters: Annotated[bool, Query(description="Also answer the confidence of each character.")] = False,
    ) -> Response:
        """Read the word on each image: one image as the body or as a form file, or several as files or as JSON."""
        settings = runtime.settings
        crops = await read_crops(request, settings.max_crops_per_request)
        started_s = time.monotonic()
        timeout_ms = settings.request_timeout_ms if len(crops.sources) == 1 else settings.batch_timeout_ms
        results = await runtime.recognizer.recognize(crops.sources, timeout_ms / 1000, lambda: _client_left(request))
        first = results[0].reading
        if crops.single and isinstance(first, Problem):
            raise first
        rendered = [_render(result, runtime, characters) for result in results]
        tail = {
            "model": runtime.artifact.metadata.model_name,
            "timings": _timings(results, time.monotonic() - started_s),
        }
        if not crops.single:
            ids = (source.id for source in crops.sources)
            return _json({"results": [{"id": id_, **body} for id_, body in zip(ids, rendered, strict=True)], **tail})
        name = crops.sources[0].id
        return _json({**({} if name is None else {"id": name}), **rendered[0], **tail})


def _add_model_list(router: APIRouter, runtime: Runtime) -> None:
    metadata, settings = runtime.artifact.metadata, runtime.settings
    info = {
        "name": metadata.model_name,
        "charset": metadata.charset,
        "image_height": metadata.image_height,
        "image_width": metadata.image_width,
        "max_label_length": metadata.max_label_length,
        "decode_mode": metadata.decode_mode,
        "refine_iters": metadata.refine_iters,
        "precision": metadata.precision,
        "weights_sha256": metadata.weights_sha256,
        "provider": runtime.artifact.provider,
        "limits": {
            "max_body_bytes": settings.max_body_bytes,
            "max_crops_per_request": settings.max_crops_per_request,
            "max_image_pixels": settings.max_image_pixels,
        },
    }

    @router.get(
        "/v1/models",
        summary="The model that is served, and its limits",
        operation_id="list_models",
        responses={200: openapi.answer("The models.", ModelList)},
    )
    async def list_models() -> Response:
        return _json({"models": [info]})


def _add_probes(router: APIRouter, runtime: Runtime) -> None:
    @router.head("/livez", include_in_schema=False)
    @router.get(
        "/livez",
        summary="Whether the process can do its work",
        operation_id="livez",
        responses={200: openapi.answer("Alive.", Health), **openapi.problems([errors.NOT_ALIVE])},
    )
    async def livez() -> Response:
        if not runtime.alive:
            raise Problem(errors.NOT_ALIVE, "An inference lane is dead.")
        return _json({"status": "alive"})

    @router.head("/readyz", include_in_schema=False)
    @router.get(
        "/readyz",
        summary="Whether requests are accepted",
        operation_id="readyz",
        responses={200: openapi.answer("Ready.", Health), **openapi.problems([errors.NOT_READY])},
    )
    async def readyz() -> Response:
        if not runtime.ready:
            raise Problem(errors.NOT_READY, "The server is warming up, draining or about to be restarted.")
        return _json({"status": "ready"})

    @router.get(
        "/metrics",
        summary="Metrics in the Prometheus text format",
        operation_id="metrics",
        responses={200: {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(runtime.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _add_page(router: APIRouter) -> None:
    page = PAGE.read_bytes()

    @router.get("/", include_in_schema=False)
    async def try_it() -> Response:
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})


async def _client_left(request: Request) -> None:
    """Return when the client closes the connection; the body has been read, so nothing else is of interest."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(value: Any) -> Response:
    # No NaN can get here: the engine refuses confidences that are not probabilities.
    body = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, media_type="application/json")


def _render(result: CropResult, runtime: Runtime, characters: bool) -> dict[str, Any]:
    """One crop's text or error, without its id."""
    reading = result.reading
    if isinstance(reading, Problem):
        runtime.metrics.problems.labels(reading.kind.slug).inc()
        return {"error": reading.document()}
    rendered = {"text": reading.text, "confidence": _confidence(reading.confidence)}
    return {**rendered, "characters": _characters(reading)} if characters else rendered


def _characters(reading: Reading) -> list[dict[str, Any]]:
    pairs = zip(reading.text, reading.character_confidences, strict=True)
    return [{"char": char, "confidence": _confidence(value)} for char, value in pairs]


def _confidence(value: float) -> float:
    return min(1.0, round(value, CONFIDENCE_DIGITS))


def _timings(results: Sequence[CropResult], total_s: float) -> dict[str, float]:
    stages = {
        "decode_ms": max(result.decode_s for result in results),
        "queue_ms": max(result.queue_s for result in results),
        "inference_ms": max(result.inference_s for result in results),
        "total_ms": total_s,
    }
    return {name: round(seconds * 1000, MILLISECOND_DIGITS) for name, seconds in stages.items()}
