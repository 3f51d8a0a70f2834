"""From the body of a request to its answer, in any dialect."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from service import errors
from service.config import Settings
from service.core.metrics import Metrics
from service.core.models import Model, Models
from service.engine.types import EngineDownError, QueueFullError
from service.errors import ClientLeftError, Problem
from service.http.bodies.body import Body
from service.http.dialects.dialect import NOTHING_ANNOUNCED, Dialect
from service.http.gates.doorman import busy
from service.http.head import Head
from service.http.problems import Answer, Problems

CLIENT_CLOSED_REQUEST: Final = 499
"""Status of an answer nobody will read, because the client left; it appears in metrics only."""

logger = logging.getLogger(__name__)


class Endpoint:
    """Answers requests that have passed the gates, whatever happens.

    Args:
        models: The served models.
        settings: Of the service.
        metrics: Told how long recognition takes.
        problems: Words and counts what went wrong.
    """

    def __init__(self, models: Models[Model], settings: Settings, metrics: Metrics, problems: Problems) -> None:
        self._models = models
        self._single_ms = settings.request_timeout_ms
        self._batch_ms = settings.batch_timeout_ms
        self._metrics = metrics
        self._problems = problems

    async def answer(self, dialect: Dialect, head: Head, body: Body) -> Answer:
        """The answer to a request: what was read, or a problem."""
        try:
            return await self._recognize(dialect, head, body)
        except Problem as error:
            problem = error.bare()
        except ClientLeftError:
            return Answer(CLIENT_CLOSED_REQUEST, b"", "text/plain")
        except asyncio.CancelledError:
            # The server stops without waiting for requests in flight any longer (PARSEQ_DRAIN_TIMEOUT_S, or a second signal).
            problem = Problem(errors.NOT_READY, "The server stopped before the request was answered. Send it again.")
        except Exception:
            logger.exception("a request failed")
            problem = Problem(errors.INTERNAL, "The server failed on this request.")
        return self._problems.answer(problem, dialect.problem)

    async def _recognize(self, dialect: Dialect, head: Head, body: Body) -> Answer:
        crops = await dialect.parse(head, body)
        started_s = time.monotonic()
        n_crops = len(crops.images)
        timeout_ms = min(crops.timeout_ms, self._single_ms if n_crops == 1 else self._batch_ms)
        # The model of this name that is served now: the one found by the head may have been replaced. If none has that name any
        # more, or this very version is asked for, the one found is still there: it ends after its last request.
        asked = head.announced or NOTHING_ANNOUNCED
        model = self._models.default if asked.model is None else self._models.get(asked.model)
        if model is None or asked.version not in (None, model.version):
            model = head.model
        if model is None:
            raise ValueError("no model has been chosen")
        try:
            results = await model.recognizer.recognize(
                crops.images, timeout_ms / 1000, body.client_left, head.client, crops.bulk, crops.options
            )
        except QueueFullError as error:
            raise busy(error, n_crops) from error
        except EngineDownError as error:
            raise Problem(errors.NOT_READY, "The server is starting, draining or about to be restarted.") from error
        total_s = time.monotonic() - started_s
        trace = head.context.trace
        self._metrics.recognition_duration.observe(total_s, None if trace is None else trace.exemplar)
        answer = await dialect.answer(head, crops, results, model, total_s)
        self._problems.count_within(results)
        return answer
