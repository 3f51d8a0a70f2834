"""Saying no while the server is busy: the wording of a refusal, and one by the headers alone.

When everybody posts at once, most requests are refused, and what that costs is taken from those that are read. So a request
that would not be let in now is answered before its body is read, without tasks, exceptions or parsing. This is only a
shortcut: it says no where admission would say the same, and admission has the last word on all others.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Final

from starlette.types import Message, Scope, Send

from service.config import Settings
from service.core.metrics import Metrics
from service.engine.engine import Engine
from service.engine.types import QueueFullError, Refusal
from service.errors import PROBLEM_MEDIA_TYPE, QUEUE_FULL, Problem
from service.http.bodies.parse import BodyForm, form_of
from service.http.gates.request_ids import CLIENT_KEY, GUARDS, REQUEST_ID_HEADER, context_of
from service.http.timeouts import wanted_timeout_ms
from service.process.logs import CONTEXT_KEY

_DOCUMENT_HEAD: Final = Problem(QUEUE_FULL, "").body()[: -len(b'"}')]
_CONTENT_TYPE: Final = (b"content-type", PROBLEM_MEDIA_TYPE.encode())
_CLOSE: Final = (b"connection", b"close")

logger = logging.getLogger(__name__)


def busy_detail(error: QueueFullError, n_items: int) -> tuple[str, int]:
    """What a client is told: the detail, in plain ASCII without quotes, and the seconds of `Retry-After`."""
    # The header has whole seconds, and 0 would be an invitation to hammer.
    retry_after_s = max(1, math.ceil(error.retry_after_s))
    if error.refusal is Refusal.QUEUE_FULL:
        reason = f"The queue has no room for {n_items} more crops (PARSEQ_MAX_QUEUE_ITEMS)."
    elif error.refusal is Refusal.CLIENT_SHARE:
        reason = f"Others wait too, and this client has used its share of the queue: no room for {n_items} more of its crops."
    else:
        name = "PARSEQ_MAX_QUEUE_WAIT_MS" if n_items == 1 else "PARSEQ_MAX_BATCH_QUEUE_WAIT_MS"
        reason = f"It would wait {1000 * error.wait_s:.0f} ms, longer than its deadline or {name} allows."
    return f"{reason} Try again in {retry_after_s} s.", retry_after_s


class Doorman:
    """Refuses recognition requests by their headers.

    Args:
        engine: The one that would take them now.
        settings: Of the service.
        metrics: Told of each refusal.
    """

    def __init__(self, engine: Callable[[], Engine], settings: Settings, metrics: Metrics) -> None:
        self._engine = engine
        self._settings = settings
        self._metrics = metrics

    async def refuses(self, scope: Scope, send: Send) -> bool:
        """Whether the request would not be let in now; then it has been answered and counted.

        What is wrong with the headers themselves is left to others to say. The body is left to the HTTP server, which throws
        away what still comes of it.
        """
        started_s = time.monotonic()
        headers = dict(scope["headers"])
        told = self._refusal_of(headers, scope.get(CLIENT_KEY))
        if told is None:
            return False
        context = context_of(scope["headers"])
        for message in _answer(*told, context.request_id, asked_first=b"expect" in headers):
            await send(message)
        duration_s = time.monotonic() - started_s
        self._metrics.refused(1, told[0].refusal)
        self._metrics.problem_told(QUEUE_FULL.slug)
        self._metrics.request_ended(QUEUE_FULL.status, duration_s)
        if logger.isEnabledFor(logging.DEBUG):
            line = "%s %s: %d in %.1f ms, by its headers"
            values = scope["method"], scope["path"], QUEUE_FULL.status, duration_s * 1000
            logger.debug(line, *values, extra={CONTEXT_KEY: context})
        return True

    def _refusal_of(self, headers: Mapping[bytes, bytes], client: Hashable) -> tuple[QueueFullError, int] | None:
        """The refusal, and the number of crops it is about."""
        form = form_of(headers, self._settings.max_body_bytes)
        if form is None:
            return None
        try:
            wanted_ms = wanted_timeout_ms(headers)
        except Problem:
            return None
        timeout_s = min(wanted_ms, self._settings.request_timeout_ms) / 1000
        refusal = self._engine().refusal_of(1, False, timeout_s, client)
        if refusal is None:
            return None
        if form is BodyForm.RAW:
            return refusal, 1
        # How many crops there are is not known yet: no to all requests that it may be, the smallest ones included.
        timeout_s = min(wanted_ms, self._settings.batch_timeout_ms) / 1000
        as_bulk = self._engine().refusal_of(2, True, timeout_s, client)
        if as_bulk is None:
            return None
        return (as_bulk, 2) if form is BodyForm.JSON else (refusal, 1)


def _answer(error: QueueFullError, n_items: int, request_id: str, asked_first: bool) -> tuple[Message, Message]:
    """The problem document as `Problem.response` would give it, the numbers put into a text made before."""
    detail, retry_after_s = busy_detail(error, n_items)
    body = b'%b%b"}' % (_DOCUMENT_HEAD, detail.encode("ascii"))
    headers = [
        (b"retry-after", b"%d" % retry_after_s),
        (b"content-length", b"%d" % len(body)),
        _CONTENT_TYPE,
        (REQUEST_ID_HEADER, request_id.encode("ascii")),
        *GUARDS,
    ]
    if asked_first:  # (100-continue) It may send its body now or may not: what comes next could not be told apart.
        headers.append(_CLOSE)
    return (
        {"type": "http.response.start", "status": QUEUE_FULL.status, "headers": headers},
        {"type": "http.response.body", "body": body},
    )
