"""The known answer of an artifact: a drawn crop that the graph reads with confidence, for a server to check itself with."""

from __future__ import annotations

import base64
import io
import json
from typing import Final

import numpy as np
from PIL import Image

from artifact.metadata import CONFIDENCES_NAME, INPUT_NAME, TOKEN_IDS_NAME, ArtifactMetadata
from artifact.session import open_cpu_session
from artifact.text import text_of
from export.gate.crops import word_crops

CANDIDATES: Final = 128
SEED: Final = 11
MIN_LENGTH: Final = 3
MIN_CONFIDENCE: Final = 0.9
"""Smallest confidence of the text: far from a near tie, so that other processors and devices read the same."""


def known_answer(artifact: bytes, metadata: ArtifactMetadata) -> str | None:
    """The entry for the artifact's metadata; `None` if the graph reads no drawn crop with confidence.

    There is none for artifacts with symbols either: different symbols could spell the same text.

    Args:
        artifact: The ONNX file, which has passed the parity gate.
        metadata: The metadata of that artifact.
    """
    if metadata.symbols is not None:
        return None
    size = (metadata.image_height, metadata.image_width)
    crops = np.stack([crop.pixels for crop in word_crops(size, metadata.charset, metadata.max_label_length, CANDIDATES, SEED)])
    session = open_cpu_session(artifact)
    all_ids, confidences = session.run([TOKEN_IDS_NAME, CONFIDENCES_NAME], {INPUT_NAME: crops})
    readings = [text_of(*row, metadata.charset) for row in zip(all_ids.tolist(), confidences.tolist(), strict=True)]
    certainties = [reading.confidence if MIN_LENGTH <= len(reading.text) < all_ids.shape[1] else 0.0 for reading in readings]
    best = int(np.argmax(certainties))
    if certainties[best] < MIN_CONFIDENCE:
        return None
    text = readings[best].text
    file = io.BytesIO()
    Image.fromarray(crops[best]).save(file, "PNG")
    return json.dumps({"png": base64.b64encode(file.getvalue()).decode(), "text": text}, ensure_ascii=False)
