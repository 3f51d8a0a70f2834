"""The JSON of recognition answers and the timings beside it, built without validation: the tests hold them to the schemas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from artifact.text import Reading
from service.core.recognizer import CropResult
from service.errors import Problem

CONFIDENCE_DIGITS: Final = 6
MILLISECOND_DIGITS: Final = 3

Timings = dict[str, float]
"""Milliseconds by stage."""

# No NaN can get here: the engine refuses confidences that are not probabilities.
encode_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def recognition(id_: str | None, reading: Reading, characters: bool, model: str, timings: Timings) -> bytes:
    """The answer for a single crop."""
    name = {} if id_ is None else {"id": id_}
    return _encode({**name, **_text(reading, characters), "model": model, "timings": _as_members(timings)})


def recognition_list(
    ids: Iterable[str | None], results: Sequence[CropResult], characters: bool, model: str, timings: Timings
) -> bytes:
    """The answer for several crops: a text or an error for each, in order."""
    rendered = [{"id": id_, **_render(result, characters)} for id_, result in zip(ids, results, strict=True)]
    return _encode({"results": rendered, "model": model, "timings": _as_members(timings)})


def timings_of(results: Sequence[CropResult], total_s: float) -> Timings:
    """Where the time went; of several crops the longest of each stage."""
    return {
        "decode": _ms(max([result.decode_s for result in results])),
        "queue": _ms(max([result.queue_s for result in results])),
        "inference": _ms(max([result.inference_s for result in results])),
        "total": _ms(total_s),
    }


def server_timing(timings: Timings) -> str:
    """The value of the header `Server-Timing`."""
    return ", ".join([f"{stage};dur={duration_ms}" for stage, duration_ms in timings.items()])


def _encode(value: dict[str, Any]) -> bytes:
    return encode_json(value).encode()


def _render(result: CropResult, characters: bool) -> dict[str, Any]:
    reading = result.reading
    return {"error": reading.document()} if isinstance(reading, Problem) else _text(reading, characters)


def _text(reading: Reading, characters: bool) -> dict[str, Any]:
    text = {"text": reading.text, "confidence": _confidence(reading.confidence)}
    return {**text, "characters": _characters(reading)} if characters else text


def _characters(reading: Reading) -> list[dict[str, Any]]:
    pairs = zip(reading.text, reading.character_confidences, strict=True)
    return [{"char": char, "confidence": _confidence(value)} for char, value in pairs]


def _confidence(value: float) -> float:
    return min(1.0, round(value, CONFIDENCE_DIGITS))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, MILLISECOND_DIGITS)


def _as_members(timings: Timings) -> dict[str, float]:
    return {f"{stage}_ms": duration_ms for stage, duration_ms in timings.items()}
