"""Reading crops with an exported artifact in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from artifact.alternatives import read_with_alternatives
from artifact.files import BUNDLED_MODEL
from artifact.fit import fit_for
from artifact.metadata import (
    ALLOWED_NAME,
    CONFIDENCES_NAME,
    INPUT_NAME,
    TOKEN_IDS_NAME,
    TOP_CONFIDENCES_NAME,
    TOP_IDS_NAME,
    ArtifactError,
    ArtifactMetadata,
)
from artifact.session import open_cpu_session
from artifact.text import Reading, text_of
from reading.readers.interface import Picture, ReaderError, allowed_row

BUNDLED: Final = "bundled"
"""Instead of a file: the artifact that the service serves by default."""
BUNDLED_FILE: Final = Path(__file__).parents[2] / "service" / "bundled" / f"{BUNDLED_MODEL}.onnx"


def artifact_of(name: str | Path) -> Path:
    """The file that `--artifact` names."""
    return BUNDLED_FILE if str(name) == BUNDLED else Path(name)


class ArtifactReader:
    """Reads with an `.onnx` file on the CPU."""

    def __init__(self, path: Path, threads: int = 0, *, alternatives: int = 0, allowed: str | None = None) -> None:
        """Open an artifact.

        Args:
            path: The file; `bundled`: the one that comes with the service.
            threads: Threads of a run; 0: ONNX Runtime's choice.
            alternatives: How many texts each crop gets; 0: the one that was read.
            allowed: Which characters may be read, as `artifact.allowed` has it; `None`: all.

        Raises:
            ReaderError: There is no such file, it is not an artifact that this version knows, or it cannot be asked for that.
        """
        self.description = str(path)  # of the bundled one not where it lies, which says nothing on another machine
        path = artifact_of(path)
        try:
            self.session = open_cpu_session(path, threads=threads)
            self.metadata = ArtifactMetadata.from_map(self.session.get_modelmeta().custom_metadata_map)
        except ArtifactError as error:
            raise ReaderError(str(error)) from error
        self.charset = self.metadata.charset
        self.max_label_length = self.metadata.max_label_length
        self.refused = 0
        self._alternatives = alternatives
        if alternatives and not self.metadata.top_count:
            raise ReaderError(f"{path} gives no alternatives: export it with `parseq-export --top 5`")
        if allowed is not None and not self.metadata.has_allowed:
            raise ReaderError(f"{path} cannot be told which characters to read: export it with `parseq-export --allowed`")
        self._allowed = None if allowed is None else allowed_row(allowed, self.metadata.vocabulary)

    def read(self, pictures: Sequence[Picture]) -> list[Reading]:
        """A reading for each picture, all of them in one run."""
        pixels = np.stack([fit_for(self.metadata, picture.image) for picture in pictures])
        feed: dict[str, NDArray[Any]] = {INPUT_NAME: pixels}
        if self._allowed is not None:
            feed[ALLOWED_NAME] = self._allowed[None]
        vocabulary, wanted = self.metadata.vocabulary, [TOKEN_IDS_NAME, CONFIDENCES_NAME]
        if not self._alternatives:
            ids, confidences = self.session.run(wanted, feed)
            return [text_of(*row, vocabulary) for row in zip(ids.tolist(), confidences.tolist(), strict=True)]
        outputs = self.session.run([*wanted, TOP_IDS_NAME, TOP_CONFIDENCES_NAME], feed)
        rows = zip(*(values.tolist() for values in outputs), strict=True)
        return [
            read_with_alternatives(ids, confidences, top_ids, top_confidences, vocabulary, self._alternatives)
            for ids, confidences, top_ids, top_confidences in rows
        ]

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
