"""Reading crops with an exported artifact in ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from export.artifact import CONFIDENCES_NAME, EOS_ID, INPUT_NAME, TOKEN_IDS_NAME, ArtifactError, ArtifactMetadata
from model.preprocess import resize
from model.reader import Picture, Reading

LOG_ERRORS = 3


class ArtifactReader:
    """Reads with an `.onnx` file on the CPU."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        """Open an artifact.

        Args:
            path: the file.
            threads: of a run; 0: ONNX Runtime's choice.

        Raises:
            ArtifactError: there is no such file, or it is not an artifact that this version knows.
        """
        self.session = open_session(path, threads)
        self.metadata = ArtifactMetadata.from_map(self.session.get_modelmeta().custom_metadata_map)
        self.description = str(path)
        self.charset = self.metadata.charset
        self.max_label_length = self.metadata.max_label_length
        self.refused = 0

    def read(self, pictures: Sequence[Picture]) -> list[Reading]:
        """A reading for each picture, all of them in one run."""
        size = self.metadata.image_height, self.metadata.image_width
        pixels = np.stack([resize(picture.image, size) for picture in pictures])
        ids, confidences = self.session.run([TOKEN_IDS_NAME, CONFIDENCES_NAME], {INPUT_NAME: pixels})
        return [reading(*row, self.charset) for row in zip(ids.tolist(), confidences.tolist(), strict=True)]

    def close(self) -> None:
        """Nothing to let go of."""


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session on the CPU that sleeps while it waits.

    Raises:
        ArtifactError: the file cannot be read, or is no ONNX file.
    """
    if not path.is_file():
        raise ArtifactError(f"there is no artifact {path}: write one with `parseq-export`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = LOG_ERRORS
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises classes of its own for each cause
        raise ArtifactError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: export the model again") from error


def reading(token_ids: Sequence[int], confidences: Sequence[float], charset: str) -> Reading:
    """One crop's tokens as text and confidence."""
    length = token_ids.index(EOS_ID) if EOS_ID in token_ids else len(token_ids)
    text = "".join(charset[token_id - 1] for token_id in token_ids[:length])
    return Reading(text, math.prod(confidences[: length + 1]))
