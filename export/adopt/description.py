"""The description of a recogniser that somebody else has exported: how its input is made and what its output means.

docs/adopt.md explains its parts; export/adopt/description_file.py reads it from JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from artifact.metadata import Fit, PadSide, Resample
from export.graphs.interface import ExportError

Layout = Literal["nchw", "nhwc"]
Colours = Literal["rgb", "bgr", "grey"]
Output = Literal["logits", "probabilities"]
Axes = Literal["btc", "tbc", "bct"]
Decoding = Literal["ctc", "steps"]

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
