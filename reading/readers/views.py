"""Reading crops turned and in parts, as the service does it with the same options, by any other reader."""

from __future__ import annotations

from collections.abc import Sequence

from artifact.orientation import Orientation
from artifact.text import Reading
from artifact.views import Views
from reading.readers.interface import Picture, Reader


class ViewsReader:
    """Reads each crop in all the ways that are asked for.

    Args:
        reader: Reads one picture after another as they are.
        orientation: Which turned views are read.
        split: Whether long crops are also read in parts.
    """

    def __init__(self, reader: Reader, orientation: Orientation, split: bool) -> None:
        self._reader = reader
        self._orientation = orientation
        self._split = split
        self.description = reader.description
        self.charset = reader.charset
        self.max_label_length = reader.max_label_length
        self.refused = 0

    def read(self, pictures: Sequence[Picture]) -> list[Reading]:
        """A reading for each picture."""
        views = [Views(picture.image, self._orientation, self._split) for picture in pictures]
        readings: list[dict[int, Reading | None]] = [{} for _ in views]
        while wanted := [(crop, index) for crop, view in enumerate(views) for index in view.wanted(readings[crop])]:
            for start in range(0, len(wanted), len(pictures)):
                some = wanted[start : start + len(pictures)]
                read = self._reader.read([Picture(views[crop].pictures[index]) for crop, index in some])
                for (crop, index), reading in zip(some, read, strict=True):
                    readings[crop][index] = reading
        return [view.found(own) or Reading("", 0.0) for view, own in zip(views, readings, strict=True)]

    def close(self) -> None:
        """Let go of connections."""
        self._reader.close()
