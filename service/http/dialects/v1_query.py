"""The query parameters of a recognition request: unknown ones are refused, and so is one given twice with different values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args
from urllib.parse import parse_qsl

from pydantic import TypeAdapter, ValidationError

from artifact.allowed import EXPLICIT, FORMS, AllowedError, parts_of
from artifact.alternatives import MAX_ALTERNATIVES, count_of
from artifact.orientation import Orientation
from service.core.read_options import NO_OPTIONS, ReadOptions
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
ORIENTATION: Final = "orientation"
SPLIT: Final = "split"
SPLITS: Final = ("none", "auto")
ALTERNATIVES: Final = "alternatives"
CHARSET: Final = "charset"
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
    options: ReadOptions = NO_OPTIONS
    """How the crops are to be read."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that says how crops are to be read."""

    field: str
    """Of `ReadOptions`, that it sets."""
    read: Callable[[str], Any]
    """Its value from the text of the query; raises a `Problem`."""
    meaning: str
    schema: Mapping[str, Any]
    """Of OpenAPI."""


def _read_orientation(value: str) -> str:
    return _one_of(ORIENTATION, get_args(Orientation), value)


def _read_split(value: str) -> bool:
    return _one_of(SPLIT, SPLITS, value) == "auto"


def _one_of(name: str, choices: Sequence[str], value: str) -> str:
    if value not in choices:
        raise Problem(INVALID_QUERY, f"The query parameter `{name}` must be one of {', '.join(choices)}.")
    return value


def _read_alternatives(value: str) -> int:
    try:
        return count_of(value)
    except ValueError as error:
        raise Problem(INVALID_QUERY, f"`{ALTERNATIVES}` {error}.") from error


def _read_charset(value: str) -> str:
    try:
        parts_of(value)
    except AllowedError as error:
        raise Problem(INVALID_QUERY, f"`{CHARSET}`: {error}.") from error
    return value


READING: Final[Mapping[str, Parameter]] = {
    ORIENTATION: Parameter(
        "orientation",
        _read_orientation,
        "`upright`: crops are read as they are. `auto`: those at least 1.5 times as high as wide also turned by 90 and 270 "
        "degrees, and doubtful ones that are not wide. `full`: those that are read with little confidence also upside "
        "down. The most plausible text is answered; unless it is `upright`, `angle` tells how the picture was turned. Default: "
        "a setting of the server.",
        {"type": "string", "enum": list(get_args(Orientation))},
    ),
    SPLIT: Parameter(
        "split",
        _read_split,
        "`auto`: crops at least 5 times as wide as high are also cut at the gaps between words, or read in windows.",
        {"type": "string", "enum": list(SPLITS)},
    ),
    ALTERNATIVES: Parameter(
        "alternatives",
        _read_alternatives,
        "Also answer the most probable texts of each crop, so many at most.",
        {"type": "integer", "minimum": 1, "maximum": MAX_ALTERNATIVES},
    ),
    CHARSET: Parameter(
        "allowed",
        _read_charset,
        f"Read these characters only: {FORMS}. Several parts have commas between them; `{EXPLICIT}` is the last one.",
        {"type": "string", "minLength": 1, "examples": ["digits", "uppercase,digits", "chars:0123456789.,"]},
    ),
}
"""The parameters that say how crops are to be read."""

NO_WISHES: Final = Wishes()


def model_of(query: bytes) -> str | None:
    """The model that is asked for, whatever else is wrong with the query; `None`: the default model."""
    return next((value for name, value in _pairs(query) if name == MODEL), None)


def read_query(query: bytes) -> Wishes:
    """Read the part of the address behind the question mark.

    Raises:
        Problem: A parameter is unknown, has a value it cannot have, or is given twice with different values.
    """
    if not query:
        return NO_WISHES
    pairs = _pairs(query)
    known = (*FLAGS, MODEL, *READING)
    unknown = list(dict.fromkeys(name for name, _ in pairs if name not in known))
    if unknown:
        told = ", ".join(f"`{name[:MAX_TOLD_CHARACTERS]}`" for name in unknown[:MAX_TOLD_NAMES])
        raise Problem(INVALID_QUERY, f"There is no query parameter {told}; those there are: {', '.join(known)}.")
    wishes: dict[str, Any] = {}
    for name, value in pairs:
        wanted = value if name == MODEL else READING[name].read(value) if name in READING else _read_boolean(name, value)
        if wishes.setdefault(name, wanted) != wanted:
            raise Problem(INVALID_QUERY, f"The query parameter `{name}` is given twice, with different values.")
    options = {READING[name].field: wishes.pop(name) for name in READING if name in wishes}
    return Wishes(**wishes, options=ReadOptions(**options) if options else NO_OPTIONS)


def _pairs(query: bytes) -> list[tuple[str, str]]:
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True)


def _read_boolean(name: str, value: str) -> bool:
    try:
        return _boolean.validate_python(value)
    except ValidationError as error:
        [told] = error.errors(include_url=False, include_input=False, include_context=False)
        raise invalid_request([{**told, "loc": ("query", name)}]) from error
