"""Log lines on stderr; those about a request carry its id."""

from __future__ import annotations

import logging
import warnings
from typing import Final

from service.request_context import current_request

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s:%(about)s %(message)s"
CONTEXT_KEY: Final = "request_context"
"""A thread that works for a request logs with `extra={CONTEXT_KEY: context}`; tasks need not."""


class RequestFormatter(logging.Formatter):
    """Puts `[request_id=...]` before the message of a line about a request."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback when there is one."""
        context = getattr(record, CONTEXT_KEY, None) or current_request.get()
        record.about = "" if context is None else f" [{context}]"
        return super().format(record)


def configure_logging(level: str) -> None:
    """Send log lines of at least `level` to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(RequestFormatter(FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # What these two have to say about a client's data is said in the answer to that client.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"PIL\.")
