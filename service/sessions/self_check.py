"""A crop whose text is known: whether a model still reads it tells a device that computes from one that answers garbage."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artifact.metadata import KNOWN_ANSWER_KEY, ArtifactError, ArtifactMetadata
from artifact.text import text_length
from service.engine.runs import run_checked
from service.engine.types import Session
from service.sessions.session import word_crops


class WrongAnswerError(Exception):
    """A session did not read the known crop as it should."""


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """A crop, uint8 `[height, width, 3]`, and the token ids that a model gives for it, up to the end of the text."""

    crop: NDArray[np.uint8]
    token_ids: tuple[int, ...]

    def check(self, session: Session) -> None:
        """Read the crop with a session and compare.

        Raises:
            WrongAnswerError: The session reads something else.
            Exception: Whatever the session raises.
        """
        token_ids = read_crop(session, self.crop)
        if token_ids != self.token_ids:
            raise WrongAnswerError(f"the known crop reads as the tokens {token_ids}, not {self.token_ids}")


def read_crop(session: Session, crop: NDArray[np.uint8]) -> tuple[int, ...]:
    """The ids of the text of one crop.

    Raises:
        Exception: Whatever the session raises.
    """
    ids = run_checked(session, [crop])[0][0].tolist()
    return tuple(ids[: text_length(ids)])


def stored_answer(metadata: ArtifactMetadata, metadata_props: Mapping[str, str]) -> KnownAnswer | None:
    """The known answer an artifact carries, as the exporter wrote it; `None`: it carries none.

    Raises:
        ArtifactError: The entry cannot be used.
    """
    if KNOWN_ANSWER_KEY not in metadata_props:
        return None
    try:
        entry = json.loads(metadata_props[KNOWN_ANSWER_KEY])
        text = entry["text"]
        with Image.open(io.BytesIO(base64.b64decode(entry["png"], validate=True)), formats=("PNG",)) as image:
            size = image.size
            crop = np.asarray(image.convert("RGB")) if size == (metadata.image_width, metadata.image_height) else None
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error, OSError, SyntaxError) as error:
        raise ArtifactError("the artifact's known answer is damaged: export the model again") from error
    if crop is None or not isinstance(text, str) or not text or not set(text) <= set(metadata.charset):
        raise ArtifactError(f"the artifact's known answer does not fit it ({size}, {text!r:.200}): export the model again")
    return KnownAnswer(crop, tuple(metadata.charset.index(char) + 1 for char in text))


def learned_answer(metadata: ArtifactMetadata, session: Session) -> KnownAnswer:
    """A known answer for an artifact that carries none: what the model reads on a drawn word now.

    Raises:
        Exception: Whatever the session raises.
    """
    [crop] = word_crops(metadata.image_height, metadata.image_width, 1)
    return KnownAnswer(crop, read_crop(session, crop))
