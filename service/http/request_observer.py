"""What is counted, logged and traced of each request to recognise, in whatever protocol it comes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import Histogram

from service import errors
from service.core.metrics import Metrics
from service.http.endpoint import CLIENT_CLOSED_REQUEST
from service.http.head import Head
from service.http.problems import Answer
from service.process.request import Attributes
from service.tracing.tracing import Tracing

_Sent = TypeVar("_Sent")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerSpan:
    """What the span of a request says, by the conventions of its protocol."""

    name: str
    attributes: Attributes
    failed: bool
    """Whether the server is to blame for how it ended."""


class RequestObserver:
    """Sees requests to recognise from their heads to the end of their answers.

    Args:
        metrics: Where they are counted.
        tracing: Takes the spans of those that are traced; `None`: none is.
    """

    def __init__(self, metrics: Metrics, tracing: Tracing | None) -> None:
        self._metrics = metrics
        self._durations: dict[int, Histogram] = {}
        self._tracing = tracing

    async def observe(
        self,
        head: Head,
        answering: Awaitable[Answer],
        send: Callable[[Answer], Awaitable[_Sent]],
        span_of: Callable[[Head, int], ServerSpan],
    ) -> _Sent:
        """Have a request answered, and tell how that ended: in the metrics, the log, and its trace if it has one.

        Args:
            head: Of the request. The model that a gate has found for it, or still finds, is in use until the end.
            answering: Gives the answer.
            send: Sends it.
            span_of: Describes a request that is traced, by its head and the status of its answer.
        """
        started_s = time.monotonic()
        self._metrics.requests_in_flight.inc()
        status = errors.INTERNAL.status
        try:
            answer = await answering
            status = answer.status
            return await send(answer)
        except asyncio.CancelledError:
            status = CLIENT_CLOSED_REQUEST  # nobody waits for the answer any more
            raise
        finally:
            self._metrics.requests_in_flight.dec()
            self.ended(head, started_s, status, span_of)

    def ended(self, head: Head, started_s: float, status: int, span_of: Callable[[Head, int], ServerSpan]) -> None:
        """Tell how a request ended: one that was observed, or was refused before.

        Args:
            head: Of the request.
            started_s: When it began, on the monotonic clock.
            status: Of its answer.
            span_of: Describes a request that is traced, by its head and the status of its answer.
        """
        if head.model is not None:
            head.model.request_ended()
        duration_s = time.monotonic() - started_s
        trace = head.context.trace
        durations = self._durations.get(status)
        if durations is None:
            durations = self._durations[status] = self._metrics.request_duration.labels(str(status))
        durations.observe(duration_s, None if trace is None else trace.exemplar)
        logger.debug("%s %s: %d in %.1f ms", head.method, head.path, status, duration_s * 1000)
        if trace is not None and self._tracing is not None:
            span = span_of(head, status)
            self._tracing.end(head.context, span.name, started_s, span.attributes, span.failed)
