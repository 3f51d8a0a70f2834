"""An artifact in ONNX Runtime, to be measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from artifact.metadata import INPUT_NAME
from export.gate.crops import SEED, crops_of_lengths, word_crops
from reading.latency.measure import Run
from reading.readers.artifact import ArtifactReader


class ArtifactSubject:
    """An artifact. A label is drawn on the crop, so with an early exit the run takes as long as the text needs."""

    def __init__(self, path: Path, threads: int) -> None:
        """Open the artifact.

        Raises:
            ReaderError: It cannot be used.
        """
        self.reader = ArtifactReader(path, threads)
        metadata = self.reader.metadata
        self.name = f"ONNX Runtime {path.name}"
        self.max_label_length = metadata.max_label_length
        self.size = metadata.image_height, metadata.image_width
        self.about: dict[str, object] = {
            "onnxruntime": onnxruntime.__version__,
            "device": "cpu",
            "threads": threads or "default",
            "decode": metadata.decode_mode,
            "refine_iters": metadata.refine_iters,
            "precision": metadata.precision,
            "early_exit": metadata.early_exit,
        }

    def _run(self, pixels: NDArray[np.uint8]) -> Run:
        return lambda: self.reader.session.run(None, {INPUT_NAME: pixels})

    def of_batch(self, size: int) -> Run:
        """A run of `size` drawn words."""
        drawn = word_crops(self.size, self.reader.charset, self.max_label_length, size, SEED)
        return self._run(np.stack([crop.pixels for crop in drawn]))

    def of_length(self, length: int) -> Run:
        """A run of one crop with a drawn text of `length` characters."""
        [crop] = crops_of_lengths(self.size, self.reader.charset, [length], np.random.default_rng(SEED))
        return self._run(crop.pixels[None])
