"""The paths of the Open Inference Protocol besides inference: health, metadata, list of models; and their OpenAPI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service import __version__, errors
from service.core.models import Model, Models
from service.errors import Kind, Problem
from service.http import openapi
from service.http.dialects.open_inference.answers import BINARY_TYPE
from service.http.dialects.open_inference.documents import JSON_TYPE
from service.http.dialects.open_inference.infer import LIVE, READY, ROOT
from service.http.dialects.open_inference.schemas import (
    PLATFORM,
    InferenceError,
    InferRequest,
    InferResponse,
    ModelMetadata,
    RepositoryModel,
    ServerMetadata,
    ServerState,
    tensors,
)
from service.http.dialects.v1_answers import encode_json
from service.http.gates.model_choice import find_model
from service.http.routes import Probe

NAME: Final = "parseq-service"
EXTENSIONS: Final = ("binary_tensor_data",)
MODEL_PATH: Final = f"{ROOT}/models/{{name}}"
VERSION_PATH: Final = f"{MODEL_PATH}/versions/{{version}}"
_LENGTH_HEADER: Final = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "description": "Bytes of the JSON, when binary tensors follow it; 0: the body is the file of one image and nothing else.",
    "schema": {"type": "integer", "minimum": 0},
}


def open_inference_router(models: Models[Model], probe: Probe) -> APIRouter:
    """The endpoints of one app."""
    router = APIRouter(default_response_class=Response)
    _add_server(router, probe)
    _add_models(router, models, probe)
    _add_repository(router, models, probe)
    return router


def _add_server(router: APIRouter, probe: Probe) -> None:
    @router.get(
        ROOT,
        summary="What speaks the Open Inference Protocol",
        operation_id="server_metadata",
        responses=_answers("The server.", ServerMetadata),
        openapi_extra={"security": openapi.SECURITY},
    )
    async def server_metadata() -> Response:
        return _json({"name": NAME, "version": __version__, "extensions": EXTENSIONS})

    @router.get(
        LIVE,
        summary="As /livez",
        operation_id="server_live",
        responses=_answers("Alive.", ServerState, errors.NOT_ALIVE, key=False),
    )
    async def server_live() -> Response:
        if not probe.alive:
            raise Problem(errors.NOT_ALIVE, "Inference hangs, fails or answers wrongly.")
        return _json({"live": True})

    @router.get(
        READY,
        summary="As /readyz",
        operation_id="server_ready",
        responses=_answers("Ready.", ServerState, errors.NOT_READY, key=False),
    )
    async def server_ready() -> Response:
        _check_ready(probe)
        return _json({"ready": True, "live": True})


def _add_models(router: APIRouter, models: Models[Model], probe: Probe) -> None:
    for path, suffix in ((MODEL_PATH, ""), (VERSION_PATH, "_version")):
        parameters = [
            {"name": name, "in": "path", "required": True, "description": meaning, "schema": {"type": "string"}}
            for name, meaning in (("name", "Of the model, or an alias."), ("version", "As its metadata has it."))
            if f"{{{name}}}" in path
        ]
        extra = {"security": openapi.SECURITY, "parameters": parameters}
        which = "a version of a model" if suffix else "a model"

        @router.get(
            path,
            summary=f"What {which} takes and gives",
            operation_id=f"model{suffix}_metadata",
            responses=_answers("The model.", ModelMetadata, errors.NOT_FOUND),
            openapi_extra=extra,
        )
        async def model_metadata(request: Request) -> Response:
            model = _find(models, request)
            name = request.path_params["name"]
            return _json({"name": name, "versions": [model.version], "platform": PLATFORM, **tensors(model.metadata)})

        @router.get(
            f"{path}/ready",
            summary=f"Whether {which} can be asked",
            operation_id=f"model{suffix}_ready",
            responses=_answers("Ready.", ServerState, errors.NOT_FOUND, errors.NOT_READY),
            openapi_extra=extra,
        )
        async def model_ready(request: Request) -> Response:
            _find(models, request)
            _check_ready(probe)
            return _json({"name": request.path_params["name"], "ready": True})

    @router.get("/v1/models/{name}", include_in_schema=False)  # for KServe's protocol 1
    async def kserve_ready(request: Request) -> Response:
        _find(models, request)
        _check_ready(probe)
        return _json({"name": request.path_params["name"], "ready": True})


def _add_repository(router: APIRouter, models: Models[Model], probe: Probe) -> None:
    index = {"type": "array", "items": openapi.ref(RepositoryModel)}

    @router.post(
        f"{ROOT}/repository/index",
        summary="The models that are served; a body is not read",
        operation_id="repository_index",
        responses={
            200: {"description": "All of them.", "content": {JSON_TYPE: {"schema": index}}},
            **_errors([errors.UNAUTHORIZED]),
        },
        openapi_extra={"security": openapi.SECURITY},
    )
    async def repository_index() -> Response:
        state = {"state": "READY" if probe.ready else "UNAVAILABLE", "reason": ""}
        return _json([{"name": model.name, "version": model.version, **state} for model in models])

    @router.post(f"{ROOT}/repository/models/{{name}}/load", include_in_schema=False)
    @router.post(f"{ROOT}/repository/models/{{name}}/unload", include_in_schema=False)
    async def load() -> Response:
        raise not_loaded_over("HTTP")


def not_loaded_over(transport: str) -> Problem:
    """The problem of who wants a model loaded or unloaded."""
    detail = (
        f"Models are not loaded or unloaded over {transport}: put files into the folder that PARSEQ_ARTIFACT names, or take "
        "them away, and send the server SIGHUP."
    )
    return Problem(errors.OTHER_HTTP_ERROR, detail)


def _find(models: Models[Model], request: Request) -> Model:
    return find_model(models, request.path_params["name"], request.path_params.get("version"))


def _check_ready(probe: Probe) -> None:
    if not probe.ready:
        raise Problem(errors.NOT_READY, "The server is warming up, draining or about to be restarted.")


def _json(value: Any) -> Response:
    return Response(encode_json(value), headers={"content-type": JSON_TYPE})


def _errors(kinds: Sequence[Kind]) -> dict[int | str, dict[str, Any]]:
    """As `openapi.problems`, with the protocol's own error document."""
    found = openapi.problems(kinds)
    for answer in found.values():
        answer["content"] = {JSON_TYPE: {"schema": openapi.ref(InferenceError)}}
    return found


def _answers(told: str, model: Any, *kinds: Kind, key: bool = True) -> dict[int | str, dict[str, Any]]:
    return {200: openapi.answer(told, model), **_errors([*kinds, *([errors.UNAUTHORIZED] if key else [])])}


def infer_operation() -> dict[str, Any]:
    """The OpenAPI of inference, which is not an endpoint of FastAPI."""
    answer = openapi.answer("The texts; those wanted binary follow the JSON.", InferResponse)
    answer["content"][BINARY_TYPE] = {"schema": openapi.BINARY}
    answer["headers"] = {
        **openapi.SERVER_TIMING,
        _LENGTH_HEADER["name"]: {"description": "Bytes of the JSON, when tensors follow it.", "schema": {"type": "integer"}},
    }
    responses = {200: answer, **_errors(openapi.RECOGNIZE_KINDS)}
    return {
        "summary": "Read word crops, by the Open Inference Protocol",
        "description": "The JSON, and behind it the binary tensors that it announces. No `Content-Type` is needed; a "
        "`Content-Encoding` may be `gzip` or `deflate`. With `/versions/{version}` before `/infer` a version is asked for.",
        "operationId": "infer",
        "parameters": [
            {"name": "name", "in": "path", "required": True, "description": "Of the model.", "schema": {"type": "string"}},
            _LENGTH_HEADER,
            openapi.TIMEOUT_PARAMETER,
        ],
        "requestBody": {
            "required": True,
            "content": {JSON_TYPE: {"schema": openapi.ref(InferRequest)}, BINARY_TYPE: {"schema": openapi.BINARY}},
        },
        "responses": {str(status): response for status, response in responses.items()},
        "security": openapi.SECURITY,
    }
