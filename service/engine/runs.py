"""One run of a session, with a check of what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from artifact.allowed import allowed_matrix
from service.engine.types import Confidences, Crop, InferenceError, Item, Outputs, Session, TokenIds, Wanted

CONFIDENCE_SLACK: Final = 1e-3
"""A softmax in half precision may come out this much above one."""


def run_checked(session: Session, crops: Sequence[Crop]) -> tuple[TokenIds, Confidences]:
    """Run one batch and check the result: a row for each crop, probabilities within [0, 1].

    Raises:
        InferenceError: The session gave something else. What the session itself raises passes through.
    """
    token_ids, confidences = session.run(np.stack(crops))
    # Written out, since most runs come here and a call would cost them more than the line.
    if len(token_ids) != len(crops) or confidences.shape != token_ids.shape or token_ids.ndim != 2:
        raise InferenceError(f"{len(crops)} crops gave ids {token_ids.shape} and confidences {confidences.shape}")
    # Written so that NaN fails too: a poisoned device context answers NaN without an error.
    if not bool(np.all((confidences >= 0.0) & (confidences <= 1.0 + CONFIDENCE_SLACK))):
        raise InferenceError("the session gave confidences that are not probabilities")
    return token_ids, confidences


def run_with_checked(session: Session, crops: Sequence[Crop], wanted: Wanted) -> Outputs:
    """The same where more is wanted than the usual.

    Raises:
        InferenceError: The session gave something else. What the session itself raises passes through.
    """
    outputs = session.run_with(np.stack(crops), wanted)
    _check(len(crops), 2, outputs.token_ids, outputs.confidences)
    if wanted.top:
        _check(len(crops), 3, outputs.top_ids, outputs.top_confidences)
    return outputs


def _check(n_crops: int, axes: int, ids: TokenIds | None, confidences: Confidences | None) -> None:
    if ids is None or confidences is None:
        raise InferenceError("the session gave no candidates")
    if len(ids) != n_crops or confidences.shape != ids.shape or ids.ndim != axes:
        raise InferenceError(f"{n_crops} crops gave ids {ids.shape} and confidences {confidences.shape}")
    if not bool(np.all((confidences >= 0.0) & (confidences <= 1.0 + CONFIDENCE_SLACK))):
        raise InferenceError("the session gave confidences that are not probabilities")


def wanted_by(batch: Sequence[Item]) -> Wanted:
    """What a run must be told, and must give, so that every item of its batch has what it wants."""
    rows = [item.allowed for item in batch]
    entries = next((len(row) for row in rows if row is not None), None)
    allowed = None if entries is None else allowed_matrix(rows, entries)
    return Wanted(allowed, any(item.wants_top for item in batch))
