"""Reads schemas back out of validators that were compiled to JavaScript (npm's @kubernetes-models)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.deployment.core_schemas import core_reference

Schema = dict[str, Any]

FUNCTION = re.compile(r"function (validate\d+)\(data,.*?\{(.*?)\1\.errors=vErrors", re.S)
IMPORT = re.compile(r'import\{validate as (validate\d+)\}from"([^"]+)"')
EXPORT = re.compile(r"export const validate=(validate\d+)")
CONSTANT = re.compile(r"let (schema\d+_enum)=(\[.*?\]);", re.S)
ERROR = re.compile(r'schemaPath:"#/(\w+)",keyword:"\w+",params:\{(.*?)\}\}', re.S)
PROPERTY = re.compile(r'(validate\d+)\(data(?:\.(\w+)|\["([^"]+)"\]),')
SAME_VALUE = re.compile(r"(validate\d+)\(data,\{instancePath,")
ITEM = re.compile(r"(validate\d+)\(data\[i\d+\],")
VALUE = re.compile(r"(validate\d+)\(data\[key\d+\],")
LIMITS = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minimum", "maximum"}
READ_AS_ANYTHING = {"format", "oneOf"}
"""What the compiled form does not tell well: formats add little, and the few choices are of Kubernetes' own types."""


class CompiledSchemas:
    """The schemas of one package, as far as they are referred to.

    Args:
        folder: Its `_schemas`.
        core: From `core_definitions`.
    """

    def __init__(self, folder: Path, core: dict[str, str]) -> None:
        self._folder = folder
        self._core = core
        self.definitions: dict[str, Schema] = {}

    def reference(self, name: str) -> Schema:
        """A reference to the type `name`, which is then among `definitions`."""
        core = core_reference(self._core, name)
        if core is not None:
            return core
        if name not in self.definitions:
            self.definitions[name] = {}  # a type may contain itself
            self.definitions[name] = self._read(name)
        return {"$ref": f"#/$defs/{name}"}

    def _read(self, name: str) -> Schema:
        code = (self._folder / f"{name}.js").read_text(encoding="utf-8")
        module = _Module(self, code)
        return module.schema(_only(EXPORT.findall(code)))


class _Module:
    """One file."""

    def __init__(self, package: CompiledSchemas, code: str) -> None:
        self._package = package
        self._functions = dict(FUNCTION.findall(code))
        self._imports = {local: path.rsplit("/", 1)[1].removesuffix(".js") for local, path in IMPORT.findall(code)}
        self._constants = {name: json.loads(value) for name, value in CONSTANT.findall(code)}

    def schema(self, function: str) -> Schema:
        """What a function checks; imported ones by reference."""
        if function in self._imports:
            return self._package.reference(self._imports[function])
        body = self._functions[function]
        schema = self._keywords(body)
        properties = {dotted or quoted: self.schema(inner) for inner, dotted, quoted in PROPERTY.findall(body)}
        if properties:
            schema |= {"properties": properties, "additionalProperties": False}
        for inner in ITEM.findall(body):
            schema["items"] = self.schema(inner)
        for inner in VALUE.findall(body):
            schema["additionalProperties"] = self.schema(inner)
        same = [self.schema(inner) for inner in SAME_VALUE.findall(body)]
        if not same:
            return schema
        if properties or len(same) > 1:
            return self._with_embedded(schema, same)
        schema.pop("type", None)  # the inner schema says it
        return same[0] if not schema else {**schema, "allOf": same}

    def _with_embedded(self, schema: Schema, embedded: list[Schema]) -> Schema:
        """A struct that has the fields of others besides its own: side by side, each would refuse those of the rest."""
        fields: Schema = {"properties": {}, "required": []}
        for part in (*embedded, schema):
            while "$ref" in part:
                part = self._package.definitions[part["$ref"].removeprefix("#/$defs/")]
            fields["properties"] |= part.get("properties", {})
            fields["required"] += part.get("required", [])
        return {"type": "object", "additionalProperties": False} | {key: value for key, value in fields.items() if value}

    def _keywords(self, body: str) -> Schema:
        schema: Schema = {}
        for keyword, parameters in ERROR.findall(body):
            if keyword in LIMITS:
                schema[keyword] = json.loads(_only(re.findall(r"limit:([-\d.e]+)", parameters)))
            elif keyword == "type":
                schema["type"] = _only(re.findall(r'type:"(\w+)"', parameters))
            elif keyword == "required":
                schema.setdefault("required", []).append(_only(re.findall(r'missingProperty:"([^"]+)"', parameters)))
            elif keyword == "pattern":
                schema["pattern"] = json.loads(_only(re.findall(r'pattern:("(?:[^"\\]|\\.)*")', parameters + "}")))
            elif keyword == "enum":
                schema["enum"] = self._constants[_only(re.findall(r"allowedValues:(\w+)", parameters))]
            elif keyword not in READ_AS_ANYTHING:
                raise ValueError(f"do not know how to read {keyword}: {parameters}")
        return schema


def _only(found: list[str]) -> str:
    assert len(found) == 1, found
    return found[0]
