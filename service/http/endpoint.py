"""`POST /v1/recognize`: the one endpoint that is called often, as plain ASGI.

FastAPI's routing and dependencies would cost as much as all the rest of a request; the interface is described in
`openapi.py` instead, and a test holds the two together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service import errors
from service.core.recognizer import CropResult
from service.core.runtime import Runtime
from service.engine.types import EngineDownError, QueueFullError
from service.errors import ClientLeftError, Problem
from service.http import answers
from service.http.bodies.parse import BodyLimits, Crops, read_crops
from service.http.gates.doorman import busy_detail
from service.http.gates.request_ids import CLIENT_KEY
from service.http.query import Wishes, read_query
from service.http.timeouts import wanted_timeout_ms

RECOGNIZE_PATHS: Final = ("/v1/recognize", "/recognize")

logger = logging.getLogger(__name__)


class RecognizeEndpoint:
    """The endpoint of one runtime: an ASGI app that answers whatever happens, and measures each request."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._metrics = runtime.metrics
        self._limits = BodyLimits.of(runtime.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started_s = time.monotonic()
        self._metrics.requests_in_flight.inc()
        status = errors.INTERNAL.status
        try:
            answer = await self._answer(scope, receive)
            status = answer.status_code
            await answer(scope, receive, send)
        finally:
            duration_s = time.monotonic() - started_s
            self._metrics.requests_in_flight.dec()
            self._metrics.request_ended(status, duration_s)
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("%s %s: %d in %.1f ms", scope["method"], scope["path"], status, duration_s * 1000)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        """The answer: a reading, or the problem that came instead of it."""
        try:
            return await self._recognize(scope, receive)
        except EngineDownError:
            problem = Problem(errors.NOT_READY, "The server is starting, draining or about to be restarted.")
        except Problem as error:
            problem = error.bare()
        except ClientLeftError:
            return Response(status_code=errors.CLIENT_CLOSED_REQUEST)
        except asyncio.CancelledError:
            # The server's patience with requests in flight is over (PARSEQ_DRAIN_TIMEOUT_S, or a second signal).
            problem = Problem(errors.NOT_READY, "The server stopped before the request was answered. Send it again.")
        except Exception:
            logger.exception("a request failed")
            problem = Problem(errors.INTERNAL, "The server failed on this request.")
        self._metrics.problem_told(problem.kind.slug)
        return problem.response()

    async def _recognize(self, scope: Scope, receive: Receive) -> Response:
        settings = self._runtime.settings
        headers = dict(scope["headers"])
        wishes = read_query(scope["query_string"])
        wanted_ms = wanted_timeout_ms(headers)
        crops = await read_crops(scope, headers, receive, self._limits)
        started_s = time.monotonic()
        configured_ms = settings.request_timeout_ms if len(crops.sources) == 1 else settings.batch_timeout_ms
        model = self._runtime.models.default  # the one that reads the crops, whatever is loaded meanwhile
        try:
            results = await model.recognizer.recognize(
                crops.sources, min(wanted_ms, configured_ms) / 1000, lambda: _client_left(receive), scope.get(CLIENT_KEY)
            )
        except QueueFullError as error:
            detail, retry_after_s = busy_detail(error, len(crops.sources))
            raise Problem(errors.QUEUE_FULL, detail, headers={"Retry-After": str(retry_after_s)}) from error
        total_s = time.monotonic() - started_s
        self._metrics.recognition_duration.observe(total_s)
        return self._render(crops, results, wishes, model.name, answers.timings_of(results, total_s))

    def _render(
        self, crops: Crops, results: list[CropResult], wishes: Wishes, model: str, timings: answers.Timings
    ) -> Response:
        timing_header = {"Server-Timing": answers.server_timing(timings)}
        first = results[0].reading
        if wishes.list or not crops.single:
            for result in results:
                if isinstance(result.reading, Problem):
                    self._metrics.problem_told(result.reading.kind.slug)
            ids = (str(index) if source.id is None else source.id for index, source in enumerate(crops.sources))
            body = answers.recognition_list(ids, results, wishes.characters, model, timings)
        elif isinstance(first, Problem):
            first.headers.update(timing_header)
            raise first
        else:
            body = answers.recognition(crops.sources[0].id, first, wishes.characters, model, timings)
        return Response(body, media_type="application/json", headers=timing_header)


async def _client_left(receive: Receive) -> None:
    """Return when the client closes the connection; the body has been read, so nothing else is of interest."""
    while (await receive())["type"] != "http.disconnect":
        pass
