"""One run of a session, with a check of what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from service.engine.types import Confidences, Crop, InferenceError, Session, TokenIds

CONFIDENCE_SLACK: Final = 1e-3
"""A softmax in half precision may come out this much above one."""


def run_checked(session: Session, crops: Sequence[Crop]) -> tuple[TokenIds, Confidences]:
    """Run one batch and check the result: a row for each crop, probabilities within [0, 1].

    Raises:
        InferenceError: The session gave something else. What the session itself raises passes through.
    """
    token_ids, confidences = session.run(np.stack(crops))
    if len(token_ids) != len(crops) or confidences.shape != token_ids.shape or token_ids.ndim != 2:
        raise InferenceError(f"{len(crops)} crops gave ids {token_ids.shape} and confidences {confidences.shape}")
    # Written so that NaN fails too: a poisoned device context answers NaN without an error.
    if not bool(np.all((confidences >= 0.0) & (confidences <= 1.0 + CONFIDENCE_SLACK))):
        raise InferenceError("the session gave confidences that are not probabilities")
    return token_ids, confidences
