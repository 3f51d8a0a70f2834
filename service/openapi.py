"""The OpenAPI of hand-parsed requests and hand-built answers: exact for every kind of body and every error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service import errors
from service.errors import PROBLEM_MEDIA_TYPE, Kind
from service.schemas import COMPONENTS, ProblemDocument, Recognition, RecognitionList, RecognizeRequest

REF_TEMPLATE: Final = "#/components/schemas/{model}"
BINARY: Final = {"type": "string", "format": "binary"}

RECOGNIZE_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "image/*": {"schema": BINARY},
        "application/octet-stream": {"schema": BINARY},
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

RECOGNIZE_KINDS: Final = tuple(
    kind
    for kind in errors.KINDS
    if kind not in (errors.NOT_FOUND, errors.METHOD_NOT_ALLOWED, errors.NOT_ALIVE, errors.OTHER_HTTP_ERROR)
)


def ref(model: type[BaseModel]) -> dict[str, str]:
    """A reference to a component."""
    return {"$ref": REF_TEMPLATE.format(model=model.__name__)}


def answer(description: str, *models: type[BaseModel]) -> dict[str, Any]:
    """A JSON answer that is one of `models`."""
    schema = ref(models[0]) if len(models) == 1 else {"anyOf": [ref(model) for model in models]}
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
    read = answer("One object for a single crop, a list of results for several.", Recognition, RecognitionList)
    return {200: read, **problems(RECOGNIZE_KINDS)}


def install(app: FastAPI) -> None:
    """Make `app.openapi` add the components that no route's signature mentions."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, definitions = models_json_schema([(model, "validation") for model in COMPONENTS], ref_template=REF_TEMPLATE)
            schema.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]
