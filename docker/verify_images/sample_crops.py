"""Crops with known texts, alone and many at once."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from container import GRACE_S, Container
from steps import ROOT, CheckError, check, passed, wait_until

SAMPLES: Final = {"bakery": "Bakery", "harbour": "HARBOUR", "platform": "Platform", "price": "$12.50"}
"""Text by name of the file in docs/samples."""
JSON: Final = "application/json"
REQUESTS: Final = 3
CROPS_PER_REQUEST: Final = 48


def read_samples(container: Container) -> None:
    """Post each sample on its own."""
    for name, text in SAMPLES.items():
        status, answer = container.post(_sample(name), "image/png")
        check(status == 200 and answer.get("text") == text, f"reads docs/samples/{name}.png as {text}", (status, answer))


def read_many(container: Container) -> int:
    """Post several requests of many crops at once; how many crops that were."""
    body, texts = _large_request()
    with ThreadPoolExecutor(REQUESTS) as pool:
        for status, answer in pool.map(lambda _: container.post(body, JSON), range(REQUESTS)):
            _check_answer(status, answer, texts)
    passed(f"reads {REQUESTS} requests of {CROPS_PER_REQUEST} crops at once")
    return REQUESTS * CROPS_PER_REQUEST


def stop_under_load(container: Container) -> None:
    """Stop a server that has work: everything is answered, and it ends well."""
    body, texts = _large_request()
    with ThreadPoolExecutor(REQUESTS) as pool:
        waiting = [pool.submit(container.post, body, JSON) for _ in range(REQUESTS)]
        wait_until(
            "requests are in flight",
            lambda: metric(container, "parseq_requests_in_flight") == REQUESTS or all(each.done() for each in waiting),
            lambda: container.alive,
        )
        unanswered = sum(not each.done() for each in waiting)
        check(unanswered == REQUESTS, f"{REQUESTS} requests of {CROPS_PER_REQUEST} crops are in flight", unanswered)
        exit_code = container.stop()
        for each in waiting:
            _check_answer(*each.result(), texts)
    passed("after the stop signal every crop of them was read and answered")
    check(exit_code == 0, f"the container ended with exit code 0 within its grace of {GRACE_S} s", exit_code)
    check("stopped" in container.log, "the service says that it stopped by itself", container.log)


def metric(container: Container, name: str) -> float:
    """The value of a metric without labels."""
    lines = [line for line in container.get("/metrics").splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].split()[1])


def _large_request() -> tuple[bytes, list[str]]:
    names = [list(SAMPLES)[index % len(SAMPLES)] for index in range(CROPS_PER_REQUEST)]
    images = [{"content": base64.b64encode(_sample(name)).decode()} for name in names]
    return json.dumps({"images": images}).encode(), [SAMPLES[name] for name in names]


def _check_answer(status: int, answer: dict[str, Any], texts: list[str]) -> None:
    if status != 200 or [result.get("text") for result in answer["results"]] != texts:
        raise CheckError(f"a request of {len(texts)} crops was answered with {status}: {answer}")


def _sample(name: str) -> bytes:
    return (ROOT / "docs" / "samples" / f"{name}.png").read_bytes()
