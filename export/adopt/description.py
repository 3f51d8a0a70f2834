"""The description of a recogniser that somebody else has exported: how its input is made and what its output means.

A description is a JSON object. `FIELDS` lists its members; docs/adopt.md explains each. Members that are left out come from the
family that `family` names, or have the defaults below.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, get_args

from artifact.metadata import Fit, PadSide, Resample
from export.graphs.interface import ExportError

Layout = Literal["nchw", "nhwc"]
Colours = Literal["rgb", "bgr", "grey"]
Output = Literal["logits", "probabilities"]
Axes = Literal["btc", "tbc", "bct"]
Decoding = Literal["ctc", "steps"]

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
MIN_SIDE: Final = 8
MAX_SIDE: Final = 4096
"""Largest height or width, in pixels."""


@dataclass(frozen=True, slots=True)
class Charset:
    """The entries that the classes stand for, in order: from one of three sources, and additional ones after it."""

    inline: tuple[str, ...] | None = None
    file: Path | None = None
    """A file with an entry in each line."""
    metadata: str | None = None
    """The key of the ONNX file's metadata that holds them, an entry in each line."""
    append: tuple[str, ...] = ()

    def entries(self, properties: Mapping[str, str]) -> tuple[str, ...]:
        """The entries.

        Args:
            properties: Metadata of the ONNX file.

        Raises:
            ExportError: They are missing, or cannot be read.
        """
        found = (*self._listed(properties), *self.append)
        if not found:
            raise ExportError("the charset has no entries: describe the characters that the classes stand for")
        if "" in found:
            raise ExportError(f"entry {found.index('') + 1} of the charset is empty: every class needs a character")
        return found

    def _listed(self, properties: Mapping[str, str]) -> Sequence[str]:
        if self.inline is not None:
            return self.inline
        if self.file is not None:
            try:
                return lines_of(self.file.read_bytes().decode("utf-8-sig"))
            except OSError as error:
                raise ExportError(f"cannot read the dictionary {self.file}: {error.strerror}") from error
            except UnicodeDecodeError as error:
                raise ExportError(
                    f"the dictionary {self.file} is not UTF-8 (byte {error.start + 1}): save it as such"
                ) from error
        if self.metadata is None:
            raise ExportError(
                "nothing says what the classes stand for: add a `charset` to the description, or --charset FILE, a dictionary "
                "with an entry in each line"
            )
        if self.metadata not in properties:
            there = ", ".join(sorted(properties)) or "nothing"
            raise ExportError(
                f"the charset should be in the file's metadata under {self.metadata!r}, which has {there}: "
                "give it with --charset FILE, a dictionary with an entry in each line"
            )
        return lines_of(properties[self.metadata])


def lines_of(text: str) -> list[str]:
    """Entries, one in each line. Only line feeds end a line, since a dictionary may have other separators as entries."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


@dataclass(frozen=True, slots=True)
class Description:
    """How pixels become the input of a graph, and its output a text."""

    size: tuple[int, int]
    """Height and width in pixels to which every picture is resized."""
    decoding: Decoding
    """`ctc`: columns, equal neighbours merged and blanks dropped; `steps`: a character each, up to the end token."""
    special: Literal["first", "last"] | int = "first"
    """The class of the blank, or of the end token; in JSON `blank` or `end`."""
    output: Output = "logits"
    charset: Charset = field(default_factory=Charset)
    layout: Layout = "nchw"
    colours: Colours = "rgb"
    divisor: float = 255.0
    """Pixels, 0 to 255, are divided by this first."""
    mean: tuple[float, ...] = (0.0,)
    """Then this is subtracted; one value for all channels, or one for each in the order in which the graph takes them."""
    std: tuple[float, ...] = (1.0,)
    """Then the result is divided by this."""
    axes: Axes = "btc"
    """Order of the output's axes: batch (b), steps or columns (t), classes (c)."""
    never: tuple[int, ...] = ()
    """Classes without a meaning, such as begin and pad, which are never read."""
    output_name: str | None = None
    """Which output to read, if the graph has several."""
    fit: Fit = "stretch"
    pad_value: tuple[int, int, int] | None = None
    pad_side: PadSide | None = None
    resample: Resample = "bicubic"
    architecture: str = "adopted"
    source: str | None = None
    licence: str | None = None
    notice: str | None = None

    def __post_init__(self) -> None:
        """Check that the fields do not contradict each other.

        Raises:
            ExportError: Two of them do.
        """
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
                raise ExportError(f"{name} must be a number, or three of them, not {list(values)}")
        if 0.0 in self.std or self.divisor == 0 or not math.isfinite(self.divisor):
            raise ExportError("std and divisor must not be 0")
        if not all(MIN_SIDE <= side <= MAX_SIDE for side in self.size):
            raise ExportError(f"size must be height and width from {MIN_SIDE} to {MAX_SIDE} pixels, not {list(self.size)}")
        if self.fit == "pad" and (self.pad_value is None or self.pad_side is None):
            raise ExportError("fit `pad` needs a pad_value (red, green, blue) and a pad_side (`end` or `both`)")
        if self.fit == "stretch" and (self.pad_value, self.pad_side) != (None, None):
            raise ExportError("pad_value and pad_side are for fit `pad`: leave them out, or say so")

    @property
    def special_name(self) -> str:
        """The name of class 0 of the artifact: the blank or the end."""
        return "blank" if self.decoding == "ctc" else "end"

    def special_class(self, classes: int) -> int:
        """The class of the blank or the end token."""
        if self.special == "last":
            return classes - 1
        return 0 if self.special == "first" else self.special

    def character_classes(self, classes: int) -> list[int]:
        """The classes of the charset's entries, in its order, of so many classes in all."""
        others = {self.special_class(classes), *self.never}
        return [number for number in range(classes) if number not in others]


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
    except ValueError as error:
        raise ExportError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ExportError(
            f'{where} must hold a JSON object, such as {{"size": [32, 128], "decoding": "ctc", "charset": "abc"}}'
        )
    family = values.pop("family", None)
    if family is not None and family not in families:
        raise ExportError(f"{where}: family must be one of {', '.join(families)}, not {family!r}")
    for name in values.keys() - FIELDS.keys():
        near = get_close_matches(name, FIELDS, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"those there are: family, {', '.join(FIELDS)}"
        raise ExportError(f"{where}: there is no field {name!r}; {hint}")
    read: dict[str, Any] = {}
    for name, value in values.items():
        try:
            read[name] = FIELDS[name](value)
        except ValueError as error:
            raise ExportError(f"{where}: {name} must be {error}, not {value!r}") from error
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
