"""The outputs of an inference request: their elements, and how they are put into an answer over HTTP, as JSON or binary."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, Final

from artifact.text import Reading
from service.core.recognizer import CropResult
from service.errors import Problem
from service.http.dialects.open_inference.documents import JSON_TYPE
from service.http.dialects.open_inference.requests import (
    ALTERNATIVE_CONFIDENCES,
    ALTERNATIVES,
    CHARACTER_CONFIDENCES,
    CONFIDENCE,
    DATATYPES,
    ERROR,
    IMAGES,
    TEXT,
    InferCrops,
)
from service.http.dialects.v1_answers import CONFIDENCE_DIGITS, encode_json
from service.http.problems import Answer, Headers
from service.http.turns import Turns

BINARY_TYPE: Final = "application/octet-stream"
LENGTH_HEADER: Final = b"inference-header-content-length"
VALUES_AT_ONCE: Final = 512
"""Values encoded between two looks at the clock."""


async def infer_answer(crops: InferCrops, results: Sequence[CropResult], model: str, version: str, headers: Headers) -> Answer:
    """The answer to an inference request.

    Args:
        crops: The crops of the request.
        results: One for each crop.
        model: The model's name as the request has it.
        version: The model's version.
        headers: Further headers of the answer.

    Raises:
        Problem: A crop could not be read, and the request does not ask for the output `error`.
    """
    raise_first(results, crops)
    outputs, tail = list[str](), list[bytes]()
    for name, binary in crops.outputs:
        values, shape = values_of(name, results, crops.shape)
        start = encode_json({"name": name, "datatype": DATATYPES[name], "shape": shape})[:-1]
        if binary:
            packed = packed_tensor(values)
            tail.append(packed)
            outputs.append(f'{start},"parameters":{{"binary_data_size":{len(packed)}}}}}')
        else:
            outputs.append(f'{start},"data":[{await _encoded(values)}]}}')
    # Also with lone surrogates, which a client may send in its id.
    name = "" if crops.id is None else f'"id":{json.dumps(crops.id)},'
    by = encode_json({"model_name": model, "model_version": version})[1:-1]
    document = f'{{{name}{by},"outputs":[{",".join(outputs)}]}}'.encode()
    if not tail:
        return Answer(200, document, JSON_TYPE, headers)
    return Answer(200, b"".join((document, *tail)), BINARY_TYPE, ((LENGTH_HEADER, b"%d" % len(document)), *headers))


def raise_first(results: Sequence[CropResult], crops: InferCrops) -> None:
    """Raise the problem of the first crop that could not be read, unless the request wants to be told of each."""
    if ERROR in dict(crops.outputs):
        return
    for index, result in enumerate(results):
        problem = result.reading
        if isinstance(problem, Problem):
            raise Problem(problem.kind, f"{IMAGES}[{index}]: {problem.detail}", headers=problem.headers, status=problem.status)


def values_of(name: str, results: Sequence[CropResult], shape: list[int]) -> tuple[Any, list[int]]:
    """The elements of an output, row by row, and its shape. A crop that failed has an empty text and confidence 0."""
    readings = [None if isinstance(result.reading, Problem) else result.reading for result in results]
    if name == TEXT:
        return ["" if reading is None else reading.text for reading in readings], shape
    if name == CONFIDENCE:
        return [0.0 if reading is None else min(1.0, reading.confidence) for reading in readings], shape
    if name == ERROR:
        return [_told(result.reading) if isinstance(result.reading, Problem) else "" for result in results], shape
    if name in (ALTERNATIVES, ALTERNATIVE_CONFIDENCES):
        return _alternatives(name, readings)
    assert name == CHARACTER_CONFIDENCES
    rows = [() if reading is None else reading.character_confidences for reading in readings]
    longest = max([len(row) for row in rows])
    values = [min(1.0, value) for row in rows for value in (*row, *(0.0,) * (longest - len(row)))]
    return values, [len(rows), longest]


def _alternatives(name: str, readings: Sequence[Reading | None]) -> tuple[Any, list[int]]:
    """The texts or the confidences, `[n, most]`; a crop with fewer has empty texts of confidence 0 behind them."""
    rows = [() if reading is None else reading.alternatives for reading in readings]
    most = max([len(row) for row in rows])
    if name == ALTERNATIVES:
        texts = [text for row in rows for text in (*[other.text for other in row], *("",) * (most - len(row)))]
        return texts, [len(rows), most]
    values = [min(1.0, value) for row in rows for value in (*[o.confidence for o in row], *(0.0,) * (most - len(row)))]
    return values, [len(rows), most]


def _told(problem: Problem) -> str:
    return f"{problem.kind.slug}: {problem.detail}"


def packed_tensor(values: Any) -> bytes:
    """The elements of an output as a binary tensor."""
    if values and isinstance(values[0], str):
        texts = [text.encode() for text in values]
        return b"".join([part for text in texts for part in (len(text).to_bytes(4, "little"), text)])
    return struct.pack(f"<{len(values)}f", *values)


async def _encoded(values: Any) -> str:
    """The values as JSON, without the brackets of the list."""
    pieces, turns = [], Turns()
    for start in range(0, len(values), VALUES_AT_ONCE):
        some = values[start : start + VALUES_AT_ONCE]
        if isinstance(some[0], float):
            some = [round(value, CONFIDENCE_DIGITS) for value in some]
        pieces.append(encode_json(some)[1:-1])
        await turns.step()
    return ",".join(pieces)
