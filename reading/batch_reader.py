"""Reading within other engines: a function from a batch of columns to the same batch with what was read.

For `map_batches` of Ray Data, functions of daft, `predict_batch_udf` of Spark (docs/bulk.md has five lines for each).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from artifact.orientation import Orientation
from artifact.text import Reading
from model.data.pictures import BrokenImageError, read_file
from reading.pictures.opening import as_seen, open_picture
from reading.readers.artifact import artifact_of
from reading.readers.interface import Picture, Reader
from reading.readers.opening import open_reader
from reading.readers.options import ReaderOptions, Split


class BatchReader:
    """Adds the columns `text`, `confidence` and `error` to a batch.

    It can be pickled: what is sent is the artifact's name, and each process opens it once, when it first reads.
    """

    def __init__(
        self,
        artifact: str | Path,
        column: str = "image",
        *,
        prefix: str = "",
        threads: int = 1,
        orientation: Orientation = "upright",
        split: Split = "none",
        allowed: str | None = None,
    ) -> None:
        """Say how to read; nothing is opened yet.

        Args:
            artifact: An exported `.onnx` file, which must be there on each machine, or `bundled`.
            column: Of the crops: image files as bytes, arrays (height, width, 3) of uint8, structs with `bytes` or `path` (as
                Hugging Face has it), pictures of Pillow, or paths of files. `None` is a crop with an error.
            prefix: Of the new columns, for batches that have a `text` of their own.
            threads: Threads of a run.
            orientation: Which turned views of a crop are read.
            split: Whether long crops are also read in parts.
            allowed: Which characters may be read, as `--charset` of `parseq-read` has it; `None`: all.
        """
        self.column = column
        self.prefix = prefix
        self.options = ReaderOptions(
            artifact=artifact_of(artifact).absolute(), threads=threads, orientation=orientation, split=split, allowed=allowed
        )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with `text` (or None), `confidence` (or nan) and `error` (or None) of each crop, as numpy arrays.

        Raises:
            ValueError: There is no such column, or the batch has one of the new columns already.
            ReaderError: The artifact cannot be opened.
        """
        if self.column not in batch:
            raise ValueError(f"the batch has no column {self.column!r}: it has {', '.join(batch)}")
        names = [f"{self.prefix}{name}" for name in ("text", "confidence", "error")]
        taken = [name for name in names if name in batch]
        if taken:
            raise ValueError(f"the batch has a column {taken[0]!r} already: give BatchReader a prefix, such as prefix='read_'")
        outcomes = self.read(batch[self.column])
        readings = [None if isinstance(outcome, str) else outcome for outcome in outcomes]
        texts = [None if reading is None else reading.text for reading in readings]
        confidences = [np.nan if reading is None else reading.confidence for reading in readings]
        errors = [outcome if isinstance(outcome, str) else None for outcome in outcomes]
        values = (np.array(texts, object), np.array(confidences, np.float64), np.array(errors, object))
        return {**batch, **dict(zip(names, values, strict=True))}

    def read(self, crops: Sequence[Any]) -> list[Reading | str]:
        """What was read in each crop, or why nothing was."""
        outcomes: list[Reading | str] = [""] * len(crops)
        pictures: dict[int, Picture] = {}
        for index, crop in enumerate(crops):
            try:
                pictures[index] = Picture(_picture(crop))
            except BrokenImageError as error:
                outcomes[index] = str(error)
        for index, outcome in zip(pictures, _read(_reader(self.options), list(pictures.values())), strict=True):
            outcomes[index] = outcome
        return outcomes


@lru_cache(maxsize=4)
def _reader(options: ReaderOptions) -> Reader:
    return open_reader(options)


def _read(reader: Reader, pictures: list[Picture]) -> list[Reading | str]:
    if not pictures:
        return []
    try:
        return list(reader.read(pictures))
    except Exception as error:  # ONNX Runtime's errors have no other common base
        if len(pictures) == 1:
            return [" ".join(str(error).split())[:200] or type(error).__name__]
        # One crop must not cost the others their texts.
        return [outcome for picture in pictures for outcome in _read(reader, [picture])]


def _picture(crop: Any) -> Image.Image:
    if isinstance(crop, Mapping):
        crop = crop["path"] if crop.get("bytes") is None else crop["bytes"]
    if crop is None:
        raise BrokenImageError("no picture")
    if isinstance(crop, str | Path):
        return open_picture(read_file(Path(crop)))
    if isinstance(crop, bytes | bytearray | memoryview):
        return open_picture(bytes(crop))
    if isinstance(crop, Image.Image):
        return as_seen(crop)
    try:
        return as_seen(Image.fromarray(np.ascontiguousarray(crop)))
    except (TypeError, ValueError) as error:
        raise BrokenImageError(f"not a picture ({error})") from None
