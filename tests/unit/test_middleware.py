from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from service.errors import NOT_READY
from service.metrics import Metrics
from service.middleware import Measure

SCOPE = {"type": "http", "path": "/v1/recognize"}


async def receive() -> Any:
    return {"type": "http.request", "body": b""}


def serve(app: Any, metrics: Metrics) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Measure(app, metrics)(SCOPE, receive, send))
    return sent


def test_a_request_cut_off_at_the_end_of_the_drain_is_a_problem() -> None:
    async def cancelled(*_: Any) -> None:
        raise asyncio.CancelledError

    metrics = Metrics()
    start, body = serve(cancelled, metrics)
    assert start["status"] == 503
    assert json.loads(body["body"])["type"] == NOT_READY.type
    text = metrics.render().decode()
    assert 'parseq_request_duration_seconds_count{status="503"} 1.0' in text
    assert "parseq_requests_in_flight 0.0" in text


def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    async def half(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        serve(half, Metrics())
