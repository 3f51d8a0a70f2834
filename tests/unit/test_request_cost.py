"""What a request costs in Python calls: they are most of its time, and unlike that they can be counted on any machine."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from service.core import watchdog
from service.tracing.sampling import ALWAYS, NEVER, Sampler
from service.tracing.tracing import Tracing
from tests.fakes import PATIENCE_S, FakeSession, toy_runtime, until
from tests.open_inference import INFER, files
from tests.toy_artifact import png_of
from tests.wire import connected, counting

MOST_CALLS = 150
"""Of functions in `service/` and `artifact/`, for one small PNG file from its bytes to those of the answer, on the event loop
and in the lane; the session computes nothing. Libraries are not counted."""
MOST_CALLS_OF_INFER = 170
"""The same for a binary request of the Open Inference Protocol."""
MOST_CALLS_OF_REFUSAL = 95
"""The same for an image that is refused by its head since the queue is full."""
N_REQUESTS = 10
REQUEST = b"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n%b"


class Untold(Tracing):
    """Takes no request that its caller does not take; nothing of OpenTelemetry is there."""

    def __init__(self) -> None:
        self.sampler = Sampler(NEVER, ALWAYS, NEVER)

    def stop(self, timeout_s: float) -> None:
        pass


def calls_of(request: bytes, expected: bytes, tracing: Tracing | None = None) -> list[Counter[str]]:
    """The calls that each of some equal requests makes, once all is warm."""

    async def run() -> list[Counter[str]]:
        with counting() as calls:
            async with connected(toy_runtime(FakeSession(), tracing=tracing, self_check_interval_s=0)) as connection:
                counted = []
                for _ in range(2 * N_REQUESTS):
                    calls.reset()
                    assert expected in await connection.ask(request)
                    await asyncio.sleep(0.01)  # the lane goes back to wait
                    counted.append(calls.counts.copy())
                return counted[N_REQUESTS:]

    return asyncio.run(run())


def test_a_small_image_costs_few_calls() -> None:
    content = png_of("word")
    costs = calls_of(REQUEST % (len(content), content), b'"text":"word"')
    cheapest = min(costs, key=Counter.total)
    assert 50 < cheapest.total() <= MOST_CALLS, "\n".join(f"{n} {name}" for name, n in sorted(cheapest.items()))


def test_a_request_that_is_not_traced_costs_one_decision() -> None:
    content = png_of("word")
    costs = calls_of(REQUEST % (len(content), content), b'"text":"word"', Untold())
    assert min(map(Counter.total, costs)) <= MOST_CALLS + 1
    for counts in costs:
        own = {name: n for name, n in counts.items() if name.startswith("service/tracing/")}
        assert own == {"service/tracing/sampling.py: Sampler.takes": 1}


def test_a_binary_tensor_costs_little_more() -> None:
    body, headers = files(png_of("word"), parameters={"binary_data_output": True})
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    request = b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (INFER.encode(), head, len(body), body)
    cheapest = min(calls_of(request, b"\x04\0\0\0word"), key=Counter.total)
    assert 50 < cheapest.total() <= MOST_CALLS_OF_INFER, "\n".join(f"{n} {name}" for name, n in sorted(cheapest.items()))


def test_a_request_is_refused_at_once_by_its_head_alone() -> None:
    content = png_of("word")
    head, body = REQUEST % (len(content), b""), content

    async def run() -> Counter[str]:
        session = FakeSession()
        runtime = toy_runtime(session, self_check_interval_s=0, tune=False, max_queue_items=1, max_queue_wait_ms=600_000)
        async with connected(runtime) as running:
            waiting, refused = running.another(), running.another()
            session.gate.clear()
            n_before = len(session.batches)
            try:
                answers = [asyncio.create_task(running.ask(head + body))]
                await until(lambda: len(session.batches) > n_before)
                answers.append(asyncio.create_task(waiting.ask(head + body)))
                await until(lambda: runtime.models.default.engine.refusal_of(1, False, 600.0) is not None)  # there is no room
                with counting() as calls:
                    for _ in range(N_REQUESTS):
                        calls.reset()
                        refused.tell(head)
                        answer = refused.written  # before anything else had its turn
                        refused.tell(body)
                    assert answer.startswith(b"HTTP/1.1 429 ")
                    assert not refused.n_tasks
            finally:
                session.gate.set()
            read = await asyncio.gather(*answers)
            read.append(await refused.ask(head + body))  # the bodies of those that were refused have been thrown away
            assert all(b'"text":"word"' in answer for answer in read)
            waiting.close()
            refused.close()
        return calls.counts

    counts = asyncio.run(run())
    assert 50 < counts.total() <= MOST_CALLS_OF_REFUSAL, "\n".join(f"{n} {name}" for name, n in sorted(counts.items()))


@pytest.mark.parametrize("path", [b"/livez", b"/v1/models"])
def test_other_requests_call_nothing_of_the_engine(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    # The watchdog asks the engine too, between requests: on a loaded machine these take longer than its pause.
    monkeypatch.setattr(watchdog, "LOOK_EVERY_S", PATIENCE_S)
    monkeypatch.setattr(watchdog, "LOOKS_PER_PATIENCE", 1)
    for counts in calls_of(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path, b"200 OK"):
        assert not [name for name in counts if name.startswith("service/engine/") and "alive" not in name]
