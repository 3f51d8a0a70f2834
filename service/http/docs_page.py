"""`GET /docs`: the OpenAPI description as one page of plain HTML.

The page has no script and loads nothing, so it can be read without the Internet; all its links are relative, so a gateway may
serve it below a path of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from typing import Any, Final

from fastapi import FastAPI
from starlette.responses import Response

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
LIMITS: Final = (
    ("minimum", "at least"),
    ("maximum", "at most"),
    ("minLength", "characters, at least"),
    ("maxLength", "characters, at most"),
    ("minItems", "entries, at least"),
    ("default", "default"),
)
"""Keywords of JSON Schema, and how the page words them."""

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 3rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 3rem; } h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
code { font-family: ui-monospace, monospace; font-size: .9em; } td code { white-space: nowrap; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { text-align: left; vertical-align: top; padding: .35rem 1rem .35rem 0; border-bottom: 1px solid #8884; }
td:first-child { white-space: nowrap; } .method { color: #07c; } .note { opacity: .75; }
"""


def add_docs(api: FastAPI) -> None:
    """Add the page, made at the first request for it."""

    @cache
    def page() -> bytes:
        return render(api.openapi()).encode()

    @api.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(page(), media_type="text/html", headers={"Content-Security-Policy": POLICY})


def render(document: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document."""
    info = document["info"]
    operations = [
        (method, path, operation) for path, operations in document["paths"].items() for method, operation in operations.items()
    ]
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(info['title'])}: interface</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} <span class=note>{escape(info['version'])}</span></h1>",
        f"<p>{_prose(info.get('description', ''))} For programs: <a href=openapi.json>openapi.json</a>. "
        'To try it: <a href="./">drop an image on a page</a>.</p><ul>',
        *(f"<li><a href='#{_id(operation)}'>{_head(method, path)}</a>: {_prose(operation['summary'])}"
          for method, path, operation in operations),
        "</ul>",
        *(part for method, path, operation in operations for part in _operation(method, path, operation)),
        *(part for name, schema in document["components"]["schemas"].items() for part in _component(name, schema)),
        "</html>",
    ]  # fmt: skip
    return "\n".join(parts)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterable[str]:
    yield f"<h2 id='{_id(operation)}'>{_head(method, path)}</h2>"
    yield f"<p>{_prose(operation.get('description') or operation['summary'] + '.')}"
    if method == "get" and "{" not in path:
        yield f" <a href='{escape(path.lstrip('/'))}'>Ask it.</a>"
    yield "</p>"
    if operation.get("parameters"):
        yield "<h3>Parameters</h3>"
        yield _table(
            (_code(parameter["name"]), parameter["in"], _type(parameter["schema"]), _prose(parameter.get("description", "")))
            for parameter in operation["parameters"]
        )
    if "requestBody" in operation:
        body = operation["requestBody"]
        yield f"<h3>Body</h3><p>{_prose(body.get('description', ''))}</p>"
        yield _table((_code(media_type), _type(content["schema"])) for media_type, content in body["content"].items())
    yield "<h3>Answers</h3>"
    yield _table(
        (escape(status), _prose(answer["description"]), _contents(answer), _names(answer.get("headers", {})))
        for status, answer in operation["responses"].items()
    )


def _contents(answer: Mapping[str, Any]) -> str:
    return "<br>".join(
        f"{_code(media_type)}: {_type(content['schema'])}" for media_type, content in answer.get("content", {}).items()
    )


def _names(headers: Mapping[str, Any]) -> str:
    return "<br>".join(_code(name) for name in headers)


def _component(name: str, schema: Mapping[str, Any]) -> Iterable[str]:
    yield f"<h2 id='{escape(name)}'>{escape(name)}</h2><p>{_prose(schema.get('description', ''))}</p>"
    required = schema.get("required", ())
    rows = [
        (
            _code(member),
            _type(described),
            _prose(described.get("description", "")),
            "" if member in required else "<span class=note>may be absent</span>",
        )
        for member, described in schema.get("properties", {}).items()
    ]
    yield _table(rows) if rows else f"<p>{_type(schema)}</p>"


def _type(schema: Mapping[str, Any]) -> str:
    """The type of a schema, in words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_type(one) for one in schema[several])
    if "const" in schema or "enum" in schema:
        return " or ".join(_code(str(value)) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        words = f"list of {_type(schema.get('items', {}))}"
    elif schema.get("type") == "object" and "properties" in schema:
        words = "; ".join(f"{_code(name)}: {_type(member)}" for name, member in schema["properties"].items())
    else:
        words = escape(" ".join(str(schema[key]) for key in ("format", "type") if key in schema)) or "anything"
    told = [f"{phrase} {json.dumps(schema[keyword])}" for keyword, phrase in LIMITS if schema.get(keyword) is not None]
    return f"{words} ({escape(', '.join(told))})" if told else words


def _table(rows: Iterable[Sequence[str]]) -> str:
    return "<table>" + "\n".join("<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows) + "</table>"


def _head(method: str, path: str) -> str:
    return f"<span class=method>{escape(method.upper())}</span> {_code(path)}"


def _id(operation: Mapping[str, Any]) -> str:
    return escape(operation["operationId"])


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _prose(text: str) -> str:
    """HTML of a text in which backticks mark code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text)).replace("\n", " ")
