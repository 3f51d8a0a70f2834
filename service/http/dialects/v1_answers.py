"""The JSON and timings of recognition answers, built without validation: tests compare them with the schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from artifact.text import Reading
from artifact.views import Found, Word
from service.core.recognizer import CropResult
from service.errors import Problem

CONFIDENCE_DIGITS: Final = 6
MILLISECOND_DIGITS: Final = 3

Timings = dict[str, float]
"""Milliseconds by member of the answer's `timings`."""

# NaN cannot get here: the engine refuses confidences that are not probabilities.
encode_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def recognition(id_: str | None, result: CropResult, characters: bool, by: Mapping[str, Any]) -> bytes:
    """The answer for a single crop, which was read; `by` has the members about model, version and timings."""
    name = {} if id_ is None else {"id": id_}
    return encode_json({**name, **text_members(result, characters), **by}).encode()


def result_members(id_: str, result: CropResult, characters: bool) -> dict[str, Any]:
    """The text or the error of one of several crops."""
    reading = result.reading
    if isinstance(reading, Problem):
        return {"id": id_, "error": reading.document()}
    return {"id": id_, **text_members(result, characters)}


def text_members(result: CropResult, characters: bool) -> dict[str, Any]:
    """The members of an answer that hold the text of one crop, which was read."""
    reading = result.reading
    if isinstance(reading, Problem):
        raise TypeError("this crop was not read")
    members: dict[str, Any] = {"text": reading.text, "confidence": min(1.0, round(reading.confidence, CONFIDENCE_DIGITS))}
    if characters:
        members["characters"] = [
            {"char": char, "confidence": min(1.0, round(confidence, CONFIDENCE_DIGITS))}
            for char, confidence in zip(reading.text, reading.character_confidences, strict=True)
        ]
    if isinstance(reading, Found):
        members |= _found_members(reading)
    if reading.alternatives:
        members["alternatives"] = [_told(other) for other in reading.alternatives]
    if result.uncertain:
        members["uncertain"] = True
    return members


def _found_members(found: Found) -> dict[str, Any]:
    """How a crop was turned before it was read, and the words of a line."""
    members: dict[str, Any] = {} if found.angle is None else {"angle": found.angle}
    if found.words:
        members["words"] = [{**_told(word), "box": list(word.box)} for word in found.words]
    return members


def _told(read: Reading | Word) -> dict[str, Any]:
    return {"text": read.text, "confidence": min(1.0, round(read.confidence, CONFIDENCE_DIGITS))}


def timings_of(results: Sequence[CropResult], total_s: float) -> Timings:
    """How long each stage took; of several crops the longest time of each stage."""
    if len(results) == 1:
        [one] = results
        decode_s, queue_s, inference_s = one.decode_s, one.queue_s, one.inference_s
    else:
        decode_s = max([result.decode_s for result in results])
        queue_s = max([result.queue_s for result in results])
        inference_s = max([result.inference_s for result in results])
    return {
        "decode_ms": round(decode_s * 1000, MILLISECOND_DIGITS),
        "queue_ms": round(queue_s * 1000, MILLISECOND_DIGITS),
        "inference_ms": round(inference_s * 1000, MILLISECOND_DIGITS),
        "total_ms": round(total_s * 1000, MILLISECOND_DIGITS),
    }


def server_timing(timings: Timings) -> str:
    """The value of the header `Server-Timing`."""
    return "decode;dur={decode_ms}, queue;dur={queue_ms}, inference;dur={inference_ms}, total;dur={total_ms}".format_map(
        timings
    )
