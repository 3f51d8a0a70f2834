"""Spans on their way to the collector: a bounded queue and a thread of OpenTelemetry's, watched so that none is lost uncounted.

Whatever the collector does, requests do not wait for it, and the log has one line when it fails and one when it works again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from service.process.request import outside_requests

QUEUE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"
BATCH: Final = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
TIMES_MS: Final = {"OTEL_BSP_SCHEDULE_DELAY": 5000, "OTEL_BSP_EXPORT_TIMEOUT": 30_000}
"""Variables that the library reads, and its defaults."""
FLUSH_S: Final = 5.0
"""How long the last spans may take to be exported when the server stops."""
FAILING_FLUSH_S: Final = 0.5
"""The same while the collector takes none."""

logger = logging.getLogger(__name__)


class _FirstWords(logging.Handler):
    """Keeps what the exporter has to say about a failure, which it says at every attempt, instead of logging it: the first
    line, since the last one tells no more than that it gave up."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.reason = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.reason = self.reason or " ".join(record.getMessage().split())[:300]


_words: Final = _FirstWords()
"""Kept for good: the exporter speaks even when it has been ended."""


class _Exporter(SpanExporter):
    """OTLP over HTTP, to where `OTEL_EXPORTER_OTLP_*` says; called from one thread.

    Args:
        count: Told how many spans were `exported` or `failed`.
    """

    def __init__(self, count: Callable[[str, int], None]) -> None:
        self._inner = OTLPSpanExporter()
        self._count = count
        theirs = logging.getLogger("opentelemetry.exporter")
        theirs.addHandler(_words)
        theirs.propagate = False
        self._ended = False
        self._n_lost = 0
        self._lock = threading.Lock()
        self.n_waiting = 0
        """Spans that have ended and are not exported, those on their way included."""

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._n_lost > 0

    def reserve(self, most: int) -> bool:
        """Take one of so many places for spans that have ended and are not exported; `False`: there is none."""
        with self._lock:
            if self.n_waiting >= most:
                return False
            self.n_waiting += 1
            return True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them, which may take some attempts and seconds."""
        _words.reason = ""
        try:
            result = self._inner.export(spans)
        except Exception as error:
            _words.reason = f"{type(error).__name__}: {str(error)[:200]}"
            result = SpanExportResult.FAILURE
        with self._lock:
            self.n_waiting -= len(spans)
        if result is SpanExportResult.SUCCESS:
            self._count("exported", len(spans))
            if self._n_lost:
                logger.info("the collector takes spans again; %d were lost", self._n_lost)
            self._n_lost = 0
        else:
            self._count("failed", len(spans))
            if not self._n_lost:
                reason = _words.reason or "no reason given"
                logger.warning("the collector takes no spans, which are lost until it does (%s)", reason)
            self._n_lost += len(spans)
        return result

    def shutdown(self) -> None:
        """Give up what is on its way, after this attempt."""
        if not self._ended:
            self._ended = True
            self._inner.shutdown()  # type: ignore[no-untyped-call]


class Outlet(BatchSpanProcessor):
    """Takes spans that have ended; beyond the bound of its queue they are dropped, and counted.

    Args:
        environment: Has `OTEL_BSP_*`.
        count: Told how many spans were `exported`, `failed` or `dropped`, from any thread.

    Raises:
        ValueError: A number in the environment is none that makes sense.
    """

    def __init__(self, environment: Mapping[str, str], count: Callable[[str, int], None]) -> None:
        self._most = _number(environment, QUEUE, 2048)
        self._count = count
        self._exporter = _Exporter(count)
        batch = min(_number(environment, BATCH, 512), self._most)
        for name, default in TIMES_MS.items():
            _number(environment, name, default, 10**9)  # the library would tell with a traceback
        super().__init__(self._exporter, max_queue_size=self._most, max_export_batch_size=batch)

    def on_end(self, span: ReadableSpan) -> None:
        """Queue it, if there is room."""
        if self._exporter.reserve(self._most):
            super().on_end(span)
        else:
            self._count("dropped", 1)

    def stop(self, timeout_s: float) -> None:
        """Export what waits within `timeout_s`, or less when it cannot be; the rest is lost."""
        ending = threading.Thread(target=outside_requests, args=(self.shutdown,), name="tracing-stop", daemon=True)
        ending.start()
        ending.join(min(max(0.0, timeout_s), FAILING_FLUSH_S if self._exporter.failing else FLUSH_S))
        if ending.is_alive():
            self._exporter.shutdown()
            logger.warning("the last %d spans were not exported in time", self._exporter.n_waiting)


def _number(environment: Mapping[str, str], name: str, default: int, most: int = 10**6) -> int:
    given = environment.get(name, "").strip() or str(default)
    if not given.isascii() or not given.isdigit() or not 0 < int(given) <= most:
        raise ValueError(f"{name}={given[:80]} is no number from 1 to {most:,}")
    return int(given)
