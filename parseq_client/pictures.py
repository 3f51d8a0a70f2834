"""What can be read: image files in memory or on disk, pictures that can save themselves, and regions of a page."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


class Readable(Protocol):
    """An open file, in binary mode."""

    def read(self) -> bytes:
        """All that is left in it."""
        ...


@runtime_checkable
class Saving(Protocol):
    """A picture of Pillow."""

    def save(self, fp: Any, format: str) -> object:
        """Write it as an image file."""
        ...


Image = bytes | bytearray | memoryview | str | os.PathLike[str] | Readable | Saving
"""The bytes of an image file, its path, an open file, or a picture of Pillow."""


@dataclass(frozen=True, slots=True)
class Region:
    """Where a word is on a page, in pixels of the upright page (docs/regions.md): a box, or four points.

    Args:
        box: Left, top, right, bottom.
        points: Top left, top right, bottom right, bottom left of the text.
        id: Comes back with the result; default: the position in the list.
    """

    box: Sequence[float] | None = None
    points: Sequence[Sequence[float]] | None = None
    id: str | None = None

    def members(self) -> dict[str, Any]:
        """The JSON of it."""
        shape: dict[str, Any] = {}
        if self.box is not None:
            shape["box"] = [float(number) for number in self.box]
        if self.points is not None:
            shape["points"] = [[float(number) for number in point] for point in self.points]
        return shape


def file_of(image: Image) -> bytes:
    """The bytes of an image file. A picture of Pillow becomes a PNG file.

    Raises:
        OSError: The file cannot be read.
        TypeError: It is none of these.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, Saving):
        target = io.BytesIO()
        image.save(target, "PNG")
        return target.getvalue()
    if not hasattr(image, "read") or not isinstance(found := image.read(), bytes):
        raise TypeError(
            f"{type(image).__name__} is no image: give bytes, a path, a file opened in binary mode or a Pillow image"
        )
    return found
