"""Refusals while the server is busy: their wording, and a cheap way to refuse by the head alone.

Under overload most requests are refused, and every refusal takes time from requests that are read. So a request that would not
be let in now is refused before its body is read, without tasks, exceptions or parsing. This is only a shortcut: it refuses
what admission would refuse, and admission decides about all other requests.
"""

from __future__ import annotations

import logging
import math

from service.config import Settings
from service.core.models import Model
from service.engine.types import QueueFullError, Refusal
from service.errors import QUEUE_FULL, Problem
from service.http.head import Count, Head

logger = logging.getLogger(__name__)


def busy(error: QueueFullError, n_items: int) -> Problem:
    """The problem for a request with `n_items` crops that was turned away."""
    # The header has whole seconds, and 0 would invite clients to try again at once.
    retry_after_s = max(1, math.ceil(error.retry_after_s))
    if error.refusal is Refusal.QUEUE_FULL:
        reason = f"The queue has no room for {n_items} more crops (PARSEQ_MAX_QUEUE_ITEMS)."
    elif error.refusal is Refusal.CLIENT_SHARE:
        reason = f"Others wait too, and this client has used its share of the queue: no room for {n_items} more of its crops."
    else:
        name = "PARSEQ_MAX_QUEUE_WAIT_MS" if n_items == 1 else "PARSEQ_MAX_BATCH_QUEUE_WAIT_MS"
        reason = f"It would wait {1000 * error.wait_s:.0f} ms, longer than its deadline or {name} allows."
    return Problem(QUEUE_FULL, f"{reason} Try again in {retry_after_s} s.", headers={"Retry-After": str(retry_after_s)})


class Doorman:
    """Refuses recognition requests by their heads.

    Args:
        settings: Of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._single_ms = settings.request_timeout_ms
        self._batch_ms = settings.batch_timeout_ms

    def check(self, head: Head) -> Problem | None:
        """Refuse a request that would not be let in now. Faults of the head itself are left to the dialect.

        The HTTP server throws away what still comes of the body.
        """
        if head.announced is None or head.announced.count is None or math.isnan(head.timeout_ms):
            return None
        refusal = self._refusal_of(head, head.announced.count)
        if refusal is None:
            return None
        model, error, n_items = refusal
        model.observer.refused(1, error.refusal)
        problem = busy(error, n_items)
        if (
            b"expect" in head.headers
        ):  # After a refusal instead of `100 Continue` a client may send its body or not: the next bytes could be either.
            problem.headers["Connection"] = "close"
        logger.debug("%s %s: %d by its head", head.method, head.path, problem.status)
        return problem

    def _refusal_of(self, head: Head, count: Count) -> tuple[Model, QueueFullError, int] | None:
        """The model that refuses, why, and the number of crops; `None`: no refusal."""
        model = head.model
        if model is None:
            return None
        engine = model.engine
        refusal = engine.refusal_of(1, False, min(head.timeout_ms, self._single_ms) / 1000, head.client)
        if refusal is None:
            return None
        if count is Count.ONE:
            return model, refusal, 1
        # The number of crops is not known yet: refuse only if every possible number would be refused.
        as_bulk = engine.refusal_of(2, True, min(head.timeout_ms, self._batch_ms) / 1000, head.client)
        if as_bulk is None:
            return None
        return (model, as_bulk, 2) if count is Count.SEVERAL else (model, refusal, 1)
