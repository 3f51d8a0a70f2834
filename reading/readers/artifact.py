"""Reading crops with an exported artifact in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from artifact.fit import fit_for
from artifact.metadata import CONFIDENCES_NAME, INPUT_NAME, TOKEN_IDS_NAME, ArtifactError, ArtifactMetadata
from artifact.session import open_cpu_session
from artifact.text import Reading, text_of
from reading.readers.interface import Picture, ReaderError


class ArtifactReader:
    """Reads with an `.onnx` file on the CPU."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        """Open an artifact.

        Args:
            path: The file.
            threads: Threads of a run; 0: ONNX Runtime's choice.

        Raises:
            ReaderError: There is no such file, or it is not an artifact that this version knows.
        """
        try:
            self.session = open_cpu_session(path, threads=threads)
            self.metadata = ArtifactMetadata.from_map(self.session.get_modelmeta().custom_metadata_map)
        except ArtifactError as error:
            raise ReaderError(str(error)) from error
        self.description = str(path)
        self.charset = self.metadata.charset
        self.max_label_length = self.metadata.max_label_length
        self.refused = 0

    def read(self, pictures: Sequence[Picture]) -> list[Reading]:
        """A reading for each picture, all of them in one run."""
        pixels = np.stack([fit_for(self.metadata, picture.image) for picture in pictures])
        ids, confidences = self.session.run([TOKEN_IDS_NAME, CONFIDENCES_NAME], {INPUT_NAME: pixels})
        return [text_of(*row, self.metadata.vocabulary) for row in zip(ids.tolist(), confidences.tolist(), strict=True)]

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
