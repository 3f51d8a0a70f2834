"""The query parameters of a recognition request: unknown ones are refused, and so is one given twice with different values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args
from urllib.parse import parse_qsl

from pydantic import TypeAdapter, ValidationError

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
CHOICES: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    ORIENTATION: (
        get_args(Orientation),
        "`upright`: crops are read as they are. `auto`: those at least 1.5 times as high as wide also turned by 90 and 270 "
        "degrees. `full`: those that are read with little confidence also upside down. The most plausible text is answered; "
        "unless it is `upright`, `angle` tells how the picture was turned. Default: a setting of the server.",
    ),
    SPLIT: (
        ("none", "auto"),
        "`auto`: crops at least 5 times as wide as high are also cut at the gaps between words, or read in windows.",
    ),
}
"""The parameters with a few values each: which, and what they mean."""
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
    unknown = list(dict.fromkeys(name for name, _ in pairs if name not in PARSERS))
    if unknown:
        told = ", ".join(f"`{name[:MAX_TOLD_CHARACTERS]}`" for name in unknown[:MAX_TOLD_NAMES])
        raise Problem(INVALID_QUERY, f"There is no query parameter {told}; those there are: {', '.join(PARSERS)}.")
    wishes: dict[str, Any] = {}
    for name, value in pairs:
        wanted = PARSERS[name](name, value)
        if wishes.setdefault(name, wanted) != wanted:
            raise Problem(INVALID_QUERY, f"The query parameter `{name}` is given twice, with different values.")
    options = {name: wishes.pop(name) for name in CHOICES if name in wishes}
    if SPLIT in options:
        options[SPLIT] = options[SPLIT] == "auto"
    return Wishes(**wishes, options=ReadOptions(**options) if options else NO_OPTIONS)


def _pairs(query: bytes) -> list[tuple[str, str]]:
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True)


def _read_text(_name: str, value: str) -> str:
    return value


def _read_choice(name: str, value: str) -> str:
    choices, _ = CHOICES[name]
    if value not in choices:
        raise Problem(INVALID_QUERY, f"The query parameter `{name}` must be one of {', '.join(choices)}.")
    return value


def _read_boolean(name: str, value: str) -> bool:
    try:
        return _boolean.validate_python(value)
    except ValidationError as error:
        [told] = error.errors(include_url=False, include_input=False, include_context=False)
        raise invalid_request([{**told, "loc": ("query", name)}]) from error


PARSERS: Final[Mapping[str, Callable[[str, str], Any]]] = {
    **dict.fromkeys(FLAGS, _read_boolean),
    **dict.fromkeys(CHOICES, _read_choice),
    MODEL: _read_text,
}
"""What reads the value of each parameter, which may come as often as it likes with the same value."""
