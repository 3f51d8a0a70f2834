"""How crops shall be read: the query parameters of docs/api.md."""

from __future__ import annotations

from typing import Literal, TypedDict


class Options(TypedDict, total=False):
    """Options of a call. What is not given, the server decides."""

    model: str
    """Name or alias of the model; default: the server's first."""
    characters: bool
    """Also the confidence of each character."""
    alternatives: int
    """So many of the most probable texts, 1 to 5."""
    charset: str
    """What may be read, such as `digits` or `uppercase,chars:.-`."""
    orientation: Literal["upright", "auto", "full"]
    """Whether turned views are read too."""
    split: Literal["none", "auto"]
    """Whether lines are also read word by word."""


def query_of(options: Options) -> dict[str, str]:
    """The query parameters. An answer is always asked for as a list, so that a crop that fails has its error there.

    Raises:
        TypeError: There is no such option.
    """
    if unknown := options.keys() - Options.__annotations__.keys():
        raise TypeError(f"no such option: {', '.join(sorted(unknown))}; there are {', '.join(Options.__annotations__)}")
    words = {name: ("true" if value else "false") if isinstance(value, bool) else str(value) for name, value in options.items()}
    return {**words, "list": "true"}
