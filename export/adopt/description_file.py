"""A description as JSON: which members it may have, and what is said of one that is wrong.

`FIELDS` lists the members; docs/adopt.md explains each. Members that are left out come from the family that `family` names, or
have the defaults of `Description`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args

from artifact.metadata import Fit, PadSide, Resample
from export.adopt.description import Axes, Charset, Colours, Decoding, Description, Layout, Output
from export.graphs.interface import ExportError
from model.errors import LONGEST_SHOWN

CHOICES: Final = {
    "layout": Layout,
    "colours": Colours,
    "output": Output,
    "axes": Axes,
    "decoding": Decoding,
    "fit": Fit,
    "pad_side": PadSide,
    "resample": Resample,
}


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text that is not empty")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number")
    return float(value)


def _numbers(value: Any) -> tuple[float, ...]:
    try:
        return tuple(map(_number, value)) if isinstance(value, list) else (_number(value),)
    except ValueError:
        raise ValueError("a number, or a list of three") from None


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a whole number from 0")
    return value


def _wholes(count: int | None, wanted: str) -> Callable[[Any], tuple[int, ...]]:
    def read(value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or (count is not None and len(value) != count):
            raise ValueError(wanted)
        try:
            return tuple(map(_whole, value))
        except ValueError:
            raise ValueError(wanted) from None

    return read


def _pixel(value: Any) -> tuple[int, ...]:
    found = _wholes(3, "three whole numbers from 0 to 255: red, green, blue")(value)
    if max(found) > 255:
        raise ValueError("three whole numbers from 0 to 255: red, green, blue")
    return found


def _place(value: Any) -> str | int:
    if value in ("first", "last"):
        return str(value)
    try:
        return _whole(value)
    except ValueError:
        raise ValueError("`first`, `last`, or the number of the class, from 0") from None


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value)
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ValueError("a text, or a list of texts")
    return tuple(value)


def _charset(value: Any) -> dict[str, Any]:
    """The fields of a `Charset`; a path is kept as it is given."""
    if isinstance(value, str | list):
        return {"inline": _texts(value)}
    sources = {"file", "metadata"}
    if not isinstance(value, dict) or value.keys() - sources - {"append"} or len(value.keys() & sources) > 1 or not value:
        raise ValueError('the characters, or an object with one of "file" and "metadata", and perhaps "append"')
    return {name: _texts(entry) if name == "append" else _text(entry) for name, entry in value.items()}


def _choice(name: str) -> Callable[[Any], str]:
    allowed = get_args(CHOICES[name])

    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return str(value)

    return read


FIELDS: Final[Mapping[str, Callable[[Any], Any]]] = {
    **{name: _choice(name) for name in CHOICES},
    "size": _wholes(2, "a list of height and width in pixels"),
    "blank": _place,
    "end": _place,
    "charset": _charset,
    "divisor": _number,
    "mean": _numbers,
    "std": _numbers,
    "never": _wholes(None, "a list of classes, by their numbers from 0"),
    "output_name": _text,
    "pad_value": _pixel,
    **dict.fromkeys(("architecture", "source", "licence", "notice"), _text),
}
"""What a description may say beside `family`, and how it is read; what is raised says what it should be."""


def read_description(text: str, where: str, folder: Path, families: Mapping[str, Description]) -> Description:
    """Parse the JSON of a description.

    Args:
        text: The JSON object.
        where: The file's name, for messages.
        folder: The folder to which paths in it are relative.
        families: Descriptions on which it may be based, by name.

    Raises:
        ExportError: Something in it is wrong; the message names the field and what it should be.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ExportError(
            f'{where} must hold a JSON object, such as {{"size": [32, 128], "decoding": "ctc", "charset": "abc"}}'
        )
    family = values.pop("family", None)
    if family is not None and family not in families:
        raise ExportError(f"{where}: family must be one of {', '.join(families)}, not {family!r:{LONGEST_SHOWN}}")
    for name in values.keys() - FIELDS.keys():
        near = get_close_matches(name, FIELDS, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"those there are: family, {', '.join(FIELDS)}"
        raise ExportError(f"{where}: there is no field {name!r:{LONGEST_SHOWN}}; {hint}")
    read: dict[str, Any] = {}
    for name, value in values.items():
        try:
            read[name] = FIELDS[name](value)
        except ValueError as error:
            raise ExportError(f"{where}: {name} must be {error}, not {value!r:{LONGEST_SHOWN}}") from error
    return _complete(read, families[family] if family else None, where, folder)


def _complete(read: dict[str, Any], family: Description | None, where: str, folder: Path) -> Description:
    """The description from the fields that were read, and those of a family for the rest."""
    base = {} if family is None else {entry.name: getattr(family, entry.name) for entry in fields(family)}
    decoding = read.get("decoding", base.get("decoding"))
    for name in ("size", "decoding"):
        if name not in read and name not in base:
            raise ExportError(f"{where}: {name} is missing; nothing can be taken for granted there")
    wanted, other = ("blank", "end") if decoding == "ctc" else ("end", "blank")
    if other in read:
        raise ExportError(f"{where}: `{other}` is not for decoding `{decoding}`, which has `{wanted}`")
    if wanted in read:
        read["special"] = read.pop(wanted)
    elif family is None or decoding != family.decoding:
        raise ExportError(f"{where}: `{wanted}` is missing: say which class it is, `first`, `last` or its number")
    if "charset" in read:
        of_file = dict(read["charset"])
        if "file" in of_file:
            of_file["file"] = folder / of_file["file"]
        # The entries after a dictionary can be given alone.
        kept = base["charset"] if set(of_file) == {"append"} and base else Charset()
        read["charset"] = Charset(**{entry.name: getattr(kept, entry.name) for entry in fields(Charset)} | of_file)
    if read.get("fit") == "stretch":
        base |= {"pad_value": None, "pad_side": None}
    try:
        return Description(**{**base, **read})
    except ExportError as error:
        raise ExportError(f"{where}: {error}") from error
