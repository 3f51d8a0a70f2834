"""Log lines on stderr; those about a request carry its id."""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Final

from service.process.request import current_request

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s:%(about)s %(message)s"
OURS: Final = __name__.removesuffix(".process.logs")
"""The logger above all of the service's own."""
CONTEXT_KEY: Final = "request_context"
"""A thread that works for a request logs with `extra={CONTEXT_KEY: context}`; in the request's own task this is not needed."""


class RequestFormatter(logging.Formatter):
    """Puts `[request_id=...]` before the message of a line about a request."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback when there is one."""
        context = getattr(record, CONTEXT_KEY, None) or current_request.get()
        record.about = "" if context is None else f" [{context}]"
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """Formats each record as one line with a JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        context = getattr(record, CONTEXT_KEY, None) or current_request.get()
        if context is not None:
            line["request_id"] = context.request_id
            if context.trace_id is not None:
                line["trace_id"] = context.trace_id
            if context.span_id is not None:
                line["span_id"] = context.span_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(level: str, log_format: str = "text") -> None:
    """Send log lines of at least `level` to stderr, as text or as JSON.

    Of libraries no more than warnings: what they have to say about their insides helps nobody who runs this service.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else RequestFormatter(FORMAT))
    own_level = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(own_level, logging.WARNING), handlers=[handler])
    logging.getLogger(OURS).setLevel(own_level)
    # What is wrong with a client's form is told in the answer to that client.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
