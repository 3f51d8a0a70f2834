"""The HTTP endpoints around recognition: model list, probes, metrics, a page to try it. Errors are raised as `Problem`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol
from urllib.parse import quote

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics import exposition
from starlette.requests import Request
from starlette.responses import Response

from artifact.alternatives import MAX_ALTERNATIVES
from service import errors
from service.config import Settings
from service.core.models import Model, Models
from service.errors import Problem
from service.http import openapi
from service.http.dialects.v1_answers import encode_json
from service.http.dialects.v1_schemas import MAX_INLINE, CharsetOfModel, Health, Limits, ModelList
from service.http.gates.model_choice import find_model
from service.http.page import add_page

OPENMETRICS: Final = "application/openmetrics-text"
OPENMETRICS_VERSION: Final = "1.0.0"
Scrape = Callable[[bool], Awaitable[bytes]]
"""Gives the metrics, as OpenMetrics if it is told so, else in the text format."""


class Probe(Protocol):
    """What the probes tell."""

    @property
    def alive(self) -> bool:
        """Whether the process can still do its work, now or after warm-up."""
        ...

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        ...


def build_router(models: Models[Model], settings: Settings, probe: Probe, scrape: Scrape) -> APIRouter:
    """The endpoints of one app."""
    router = APIRouter(default_response_class=Response)
    _add_model_list(router, models, settings)
    _add_probes(router, probe)
    _add_metrics(router, scrape)
    add_page(router)
    return router


def _add_model_list(router: APIRouter, models: Models[Model], settings: Settings) -> None:
    @router.get(
        "/v1/models",
        summary="The models that are served, and their limits",
        operation_id="list_models",
        responses={200: openapi.answer("The models.", ModelList), **openapi.problems([errors.UNAUTHORIZED])},
        openapi_extra={"security": openapi.SECURITY},
    )
    async def list_models() -> Response:
        return _json({"models": [_described(model, settings) for model in models]})

    # A model's name may have slashes in it.
    @router.get(
        "/v1/models/{name:path}/charset",
        summary="What a model can give",
        operation_id="charset_of_model",
        responses={
            200: openapi.answer("All characters.", CharsetOfModel),
            **openapi.problems([errors.UNAUTHORIZED, errors.NOT_FOUND]),
        },
        openapi_extra={"security": openapi.SECURITY, "parameters": openapi.MODEL_PARAMETERS},
    )
    async def charset_of_model(request: Request) -> Response:
        metadata = find_model(models, request.path_params["name"], None).metadata
        symbols = {} if metadata.symbols is None else {"symbols": metadata.symbols}
        return _json({"charset": metadata.charset, **symbols})


def _described(model: Model, settings: Settings) -> dict[str, Any]:
    metadata = model.metadata
    origin = {name: getattr(metadata, name) for name in ("source", "licence", "notice") if getattr(metadata, name) is not None}
    return {
        "name": model.name,
        "aliases": [alias for alias in model.aliases if alias != model.name],
        "version": model.version,
        "sha256": model.sha256,
        "architecture": metadata.architecture,
        **({"charset": metadata.charset} if len(metadata.charset) <= MAX_INLINE else {}),
        "charset_size": len(metadata.charset),
        "charset_url": f"models/{quote(model.name, safe='')}/charset",
        "image_height": metadata.image_height,
        "image_width": metadata.image_width,
        "max_label_length": metadata.max_label_length,
        "max_alternatives": MAX_ALTERNATIVES if metadata.top_count else 0,
        "choice_of_characters": metadata.has_allowed,
        "decode_mode": metadata.decode_mode,
        "refine_iters": metadata.refine_iters,
        "precision": metadata.precision,
        "weights_sha256": metadata.weights_sha256,
        **origin,
        "provider": model.provider,
        "limits": {name: getattr(settings, name) for name in Limits.model_fields},
    }


def _add_probes(router: APIRouter, probe: Probe) -> None:
    @router.get(
        "/livez",
        summary="Whether the process can do its work",
        operation_id="livez",
        responses={200: openapi.answer("Alive.", Health), **openapi.problems([errors.NOT_ALIVE])},
    )
    async def livez() -> Response:
        if not probe.alive:
            raise Problem(errors.NOT_ALIVE, "Inference hangs, fails or answers wrongly.")
        return _json({"status": "alive"})

    @router.get(
        "/readyz",
        summary="Whether requests are accepted",
        operation_id="readyz",
        responses={200: openapi.answer("Ready.", Health), **openapi.problems([errors.NOT_READY])},
    )
    async def readyz() -> Response:
        if not probe.ready:
            raise Problem(errors.NOT_READY, "The server is warming up, draining or about to be restarted.")
        return _json({"status": "ready"})

    router.add_api_route("/ping", readyz, include_in_schema=False)  # SageMaker's health check


def _add_metrics(router: APIRouter, scrape: Scrape) -> None:
    @router.get(
        "/metrics",
        summary="Metrics in the Prometheus text format, or in OpenMetrics for those who accept it",
        operation_id="metrics",
        responses={
            200: {
                "description": "Metrics.",
                "content": {name: {"schema": {"type": "string"}} for name in ("text/plain", OPENMETRICS)},
            }
        },
    )
    async def metrics(request: Request) -> Response:
        openmetrics = prefers_openmetrics(",".join(request.headers.getlist("accept")))
        media_type = exposition.CONTENT_TYPE_LATEST if openmetrics else CONTENT_TYPE_LATEST
        return Response(await scrape(openmetrics), media_type=media_type)


def prefers_openmetrics(accept: str) -> bool:
    """Whether a client would rather have OpenMetrics 1 than plain text; who takes anything gets plain text.

    Args:
        accept: The header, which lists media types with parameters, `q` (RFC 9110, 12.5.1) and `version` among them.
    """
    quality = {OPENMETRICS: 0.0, "text/plain": 0.0}
    for choice in accept.lower().split(","):
        name, *parameters = [part.strip() for part in choice.split(";")]
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        try:
            q = float(given.get("q", "1"))
        except ValueError:
            q = 0.0
        if name in quality and not (name == OPENMETRICS and given.get("version", "1") > OPENMETRICS_VERSION):
            quality[name] = max(quality[name], q)
    return 0.0 < quality[OPENMETRICS] >= quality["text/plain"]


def _json(value: Any) -> Response:
    return Response(encode_json(value), media_type="application/json")
