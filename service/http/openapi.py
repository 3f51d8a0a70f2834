"""The OpenAPI of requests that are parsed by hand and answers that are built by hand: every body, header and error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service import errors
from service.errors import Kind
from service.http.bodies.media_types import BINARY_TYPES
from service.http.dialects.v1_query import CHOICES, FLAGS, MODEL, MODEL_MEANING
from service.http.dialects.v1_schemas import COMPONENTS, ProblemDocument, Recognition, RecognitionList, RecognizeRequest
from service.http.gates.request_ids import MAX_REQUEST_ID_LENGTH
from service.http.head import MIN_TIMEOUT_MS, TIMEOUT_HEADER
from service.http.problems import PROBLEM_MEDIA_TYPE

REF_TEMPLATE: Final = "#/components/schemas/{model}"
BINARY: Final = {"type": "string", "format": "binary"}

RECOGNIZE_BODY: Final[dict[str, Any]] = {
    "required": True,
    "description": "One image; or a form, in which every part that is not plain text is an image, whatever its name; or images "
    "in base64.",
    "content": {
        **{media_type: {"schema": BINARY} for media_type in ("image/*", *BINARY_TYPES)},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "array", "items": BINARY, "minItems": 1}},
                "required": ["file"],
            }
        },
        "application/json": {"schema": {"$ref": REF_TEMPLATE.format(model=RecognizeRequest.__name__)}},
    },
}

TIMEOUT_PARAMETER: Final[dict[str, Any]] = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "Milliseconds this request may take, from the moment it is complete; then 504 for what is not read. "
    "More than the server's own time-out counts as that.",
    "schema": {"type": "number", "minimum": MIN_TIMEOUT_MS},
}
RECOGNIZE_PARAMETERS: Final[list[dict[str, Any]]] = [
    {"name": MODEL, "in": "query", "required": False, "description": MODEL_MEANING, "schema": {"type": "string"}},
    *(
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": description,
            "schema": {"type": "boolean", "default": False},
        }
        for name, description in FLAGS.items()
    ),
    *(
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": description,
            "schema": {"type": "string", "enum": list(choices)},
        }
        for name, (choices, description) in CHOICES.items()
    ),
    TIMEOUT_PARAMETER,
]
MODEL_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": "name",
        "in": "path",
        "required": True,
        "description": "Of a model, or an alias of it.",
        "schema": {"type": "string"},
    }
]
REQUEST_ID_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": "X-Request-Id",
        "in": "header",
        "required": False,
        "description": "Comes back with the answer and stands in the log. Anything but visible ASCII of up to "
        f"{MAX_REQUEST_ID_LENGTH} characters is replaced.",
        "schema": {"type": "string"},
    },
    {
        "name": "traceparent",
        "in": "header",
        "required": False,
        "description": "W3C trace context; its trace id is the request's id when there is no `X-Request-Id`.",
        "schema": {"type": "string"},
    },
]
REQUEST_ID_ANSWERED: Final = {"X-Request-Id": {"description": "The id of this request.", "schema": {"type": "string"}}}
SERVER_TIMING: Final = {
    "Server-Timing": {
        "description": "The member `timings` for browsers and proxies: milliseconds as `decode;dur=`, `queue;dur=`, "
        "`inference;dur=` and `total;dur=`.",
        "schema": {"type": "string"},
    }
}

SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, when the server wants one."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
}
SECURITY: Final[list[dict[str, Any]]] = [{}, {"bearer": []}, {"apiKey": []}]
"""With or without a key: whether one is needed is a setting of the server."""

RECOGNIZE_KINDS: Final = tuple(
    kind for kind in errors.KINDS if kind not in (errors.METHOD_NOT_ALLOWED, errors.NOT_ALIVE, errors.OTHER_HTTP_ERROR)
)


def ref(model: type[BaseModel]) -> dict[str, str]:
    """A reference to a component."""
    return {"$ref": REF_TEMPLATE.format(model=model.__name__)}


def answer(description: str, *models: type[BaseModel]) -> dict[str, Any]:
    """A JSON answer that is exactly one of `models`."""
    schema = ref(models[0]) if len(models) == 1 else {"oneOf": [ref(model) for model in models]}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def problems(kinds: Sequence[Kind]) -> dict[int | str, dict[str, Any]]:
    """The answers for some kinds of problem, by status."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({kind.status for kind in kinds}):
        titles = [f"{kind.title} (`{kind.slug}`)" for kind in kinds if kind.status == status]
        found[status] = {
            "description": "; ".join(titles) + ".",
            "content": {PROBLEM_MEDIA_TYPE: {"schema": ref(ProblemDocument)}},
        }
        if status == errors.QUEUE_FULL.status:
            found[status]["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return found


def recognize_responses() -> dict[int | str, dict[str, Any]]:
    """All answers of the recognition endpoint."""
    told = (
        "For one crop as the body or as the only file of a form an object, which has `text`; for several files, for JSON, and "
        "always with `?list=true`, a list, which has `results`."
    )
    read = answer(told, Recognition, RecognitionList)
    read["headers"] = SERVER_TIMING
    return {200: read, **problems(RECOGNIZE_KINDS)}


def recognize_operation() -> dict[str, Any]:
    """The OpenAPI of the recognition endpoint, which is not an endpoint of FastAPI."""
    responses = {str(status): response for status, response in recognize_responses().items()}
    return {
        "summary": "Read word crops",
        "description": "Read the word on each image: one image as the body or as a form file, or several as files or as JSON. "
        "For example: `curl -F file=@word.png localhost:8000/v1/recognize`.",
        "operationId": "recognize",
        "parameters": RECOGNIZE_PARAMETERS,
        "requestBody": RECOGNIZE_BODY,
        "responses": responses,
        "security": SECURITY,
    }


def install(
    app: FastAPI, operations: Mapping[str, dict[str, Any]] | None = None, components: Sequence[type[BaseModel]] = ()
) -> None:
    """Make `app.openapi` add the recognition endpoint, the id of each answer, and the components no signature mentions.

    Args:
        app: The app to describe.
        operations: The POST operations of dialects, by path.
        components: Schemas that the operations refer to.
    """
    posted = {"/v1/recognize": recognize_operation(), **(operations or {})}
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in (*COMPONENTS, *components)]

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            # Relative to the address of this document, since a gateway may serve everything below a path of its own.
            schema["servers"] = [{"url": "."}]
            schema["paths"] = {**{path: {"post": operation} for path, operation in posted.items()}, **schema["paths"]}
            _add_request_ids(schema["paths"])
            _, definitions = models_json_schema(models, ref_template=REF_TEMPLATE)
            schema.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
            schema["components"]["securitySchemes"] = SECURITY_SCHEMES
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]


def _add_request_ids(paths: dict[str, Any]) -> None:
    for operations in paths.values():
        for operation in operations.values():
            operation["parameters"] = [*operation.get("parameters", ()), *REQUEST_ID_PARAMETERS]
            for response in operation["responses"].values():
                response["headers"] = {**response.get("headers", {}), **REQUEST_ID_ANSWERED}
