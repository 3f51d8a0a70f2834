"""The query parameters of a recognition request: unknown ones are refused, and so is one given twice with different values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic import TypeAdapter, ValidationError

from service.errors import INVALID_QUERY, Problem
from service.http.problems import invalid_request

MODEL: Final = "model"
MODEL_MEANING: Final = "Name of the model that shall read, as `/v1/models` lists them; default: the first of those."
FLAGS: Final = {
    "characters": "Also answer the confidence of each character.",
    "list": "Answer a list also to a single crop that is the body or the only file of a form; then a crop that fails has its "
    "error in the list, with status 200.",
}
"""The boolean parameters, with their descriptions."""
MAX_TOLD_NAMES: Final = 3
MAX_TOLD_CHARACTERS: Final = 40

_boolean: Final = TypeAdapter(bool)


@dataclass(frozen=True, slots=True)
class Wishes:
    """Which model a client wants, and which form of answer."""

    model: str | None = None
    """Name of the model; `None`: the default model."""

    characters: bool = False
    list: bool = False


NO_WISHES: Final = Wishes()


def model_of(query: bytes) -> str | None:
    """The model that is asked for, whatever else is wrong with the query; `None`: the default model."""
    return next((value for name, value in _pairs(query) if name == MODEL), None)


def read_query(query: bytes) -> Wishes:
    """Read the part of the address behind the question mark.

    Raises:
        Problem: A parameter is unknown, is not the boolean it must be, or is given twice with different values.
    """
    if not query:
        return NO_WISHES
    pairs = _pairs(query)
    unknown = list(dict.fromkeys(name for name, _ in pairs if name not in FLAGS and name != MODEL))
    if unknown:
        told = ", ".join(f"`{name[:MAX_TOLD_CHARACTERS]}`" for name in unknown[:MAX_TOLD_NAMES])
        raise Problem(INVALID_QUERY, f"There is no query parameter {told}; those there are: {', '.join((*FLAGS, MODEL))}.")
    wishes: dict[str, Any] = {}
    for name, value in pairs:
        wanted = value if name == MODEL else _read_boolean(name, value)
        if wishes.setdefault(name, wanted) != wanted:
            raise Problem(INVALID_QUERY, f"The query parameter `{name}` is given twice, with different values.")
    return Wishes(**wishes)


def _pairs(query: bytes) -> list[tuple[str, str]]:
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True)


def _read_boolean(name: str, value: str) -> bool:
    try:
        return _boolean.validate_python(value)
    except ValidationError as error:
        [told] = error.errors(include_url=False, include_input=False, include_context=False)
        raise invalid_request([{**told, "loc": ("query", name)}]) from error
