"""The query parameters of a recognition request: all are known, none is given twice, each is a boolean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from pydantic import TypeAdapter, ValidationError

from service.errors import INVALID_QUERY, Problem
from service.http.problems import invalid_request

PARAMETERS: Final = {
    "characters": "Also answer the confidence of each character.",
    "list": "Answer a list also to a single crop that is the body or the only file of a form; then a crop that fails has its "
    "error in the list, with status 200.",
}
"""What there is, and what it is for."""
MAX_TOLD_NAMES: Final = 3
MAX_TOLD_CHARACTERS: Final = 40

_boolean: Final = TypeAdapter(bool)


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a client wants its answer."""

    characters: bool = False
    list: bool = False


NO_WISHES: Final = Wishes()


def read_query(query: bytes) -> Wishes:
    """Read the part of the address behind the question mark.

    Raises:
        Problem: A parameter is not known, has no boolean, or has two that differ.
    """
    if not query:
        return NO_WISHES
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    unknown = list(dict.fromkeys(name for name, _ in pairs if name not in PARAMETERS))
    if unknown:
        told = ", ".join(f"`{name[:MAX_TOLD_CHARACTERS]}`" for name in unknown[:MAX_TOLD_NAMES])
        raise Problem(INVALID_QUERY, f"There is no query parameter {told}; those there are: {', '.join(PARAMETERS)}.")
    wishes: dict[str, bool] = {}
    for name, value in pairs:
        wanted = _read_boolean(name, value)
        if wishes.setdefault(name, wanted) is not wanted:
            raise Problem(INVALID_QUERY, f"The query parameter `{name}` is given twice, with different values.")
    return Wishes(**wishes)


def _read_boolean(name: str, value: str) -> bool:
    try:
        return _boolean.validate_python(value)
    except ValidationError as error:
        [told] = error.errors(include_url=False, include_input=False, include_context=False)
        raise invalid_request([{**told, "loc": ("query", name)}]) from error
