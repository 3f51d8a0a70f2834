"""The kept schemas are whole: closed, with everything that they refer to, and read right out of the compiled form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deployment.compiled_schemas import CompiledSchemas
from tests.deployment.core_schemas import CORE_ID, core_resource
from tests.deployment.manifest_schemas import CUSTOM, SCHEMAS

CHECK_TYPE = 'if("{0}"!=typeof data){{let err0={{instancePath,schemaPath:"#/type",keyword:"type",params:{{type:"{0}"}}}};}}'


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(inner)


def _function(name: str, body: str) -> str:
    signature = f'function {name}(data,{{instancePath="",rootData=data}}={{}})'
    return f"{signature}{{let errors=0;{body}return {name}.errors=vErrors,0===errors}}"


@pytest.mark.parametrize("kind", sorted(kind for _version, kind in CUSTOM))
def test_a_schema_is_closed_and_complete(kind: str) -> None:
    schema = json.loads((SCHEMAS / f"{kind}.json").read_text())
    for definition in schema["$defs"].values():
        assert definition.get("additionalProperties") is False or "properties" not in definition
    references = {part["$ref"] for part in _parts(schema) if isinstance(part.get("$ref"), str)}
    assert references
    for reference in references:
        document = core_resource() if reference.startswith(CORE_ID) else schema
        assert reference.rpartition("#/$defs/")[2] in document["$defs"]


def test_the_files_are_those_of_the_kinds() -> None:
    assert {file.stem for file in SCHEMAS.iterdir()} == {kind for _version, kind in CUSTOM}


def test_a_compiled_schema_is_read(tmp_path: Path) -> None:
    limit = 'if(data.length>5){let err1={instancePath,schemaPath:"#/maxLength",keyword:"maxLength",params:{limit:5}};}'
    required = (
        'if(void 0===data.a){let err0={instancePath,schemaPath:"#/required",keyword:"required",params:{missingProperty:"a"}};}'
    )
    fields = 'validate1(data.a,{instancePath:instancePath+"/a"});validate2(data["b-c"],{instancePath});'
    fields += "validate3(data,{instancePath,rootData});"
    outer = (
        'import{validate as validate3}from"./Embedded.js";export const validate=validate0;'
        + _function("validate1", CHECK_TYPE.format("string") + limit)
        + _function("validate2", "validate1(data[i0],{instancePath});")
        + _function("validate0", CHECK_TYPE.format("object") + required + fields)
    )
    embedded = "export const validate=validate0;" + _function("validate1", CHECK_TYPE.format("boolean"))
    embedded += _function("validate0", CHECK_TYPE.format("object") + 'validate1(data.d,{instancePath:instancePath+"/d"});')
    (tmp_path / "Outer.js").write_text(outer)
    (tmp_path / "Embedded.js").write_text(embedded)
    schemas = CompiledSchemas(tmp_path, core={})
    assert schemas.reference("Outer") == {"$ref": "#/$defs/Outer"}
    text = {"type": "string", "maxLength": 5}
    assert schemas.definitions["Outer"] == {
        "type": "object",
        "properties": {"a": text, "b-c": {"items": text}, "d": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
