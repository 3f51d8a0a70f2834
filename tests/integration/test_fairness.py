"""A real server beside clients that want all of it: slow images, and more crops than there are places."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest

from service.config import BUNDLED_ARTIFACT
from tests.images import encode, gradient
from tests.integration.server import PATIENCE_S, ServerProcess, running

PATH = "/v1/recognize"
N_SINGLES = 20
HARBOUR = (Path(__file__).parents[2] / "docs" / "samples" / "harbour.png").read_bytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("fairness")
    settings: dict[str, Any] = {"lanes": 1, "decode_threads": 1, "max_queue_wait_ms": 30_000, "request_timeout_ms": 60_000}
    with running(BUNDLED_ARTIFACT, folder / "log", forked=True, **settings) as server:
        yield server


def images(content: bytes, copies: int) -> dict[str, Any]:
    return {"images": [{"content": base64.b64encode(content).decode()}] * copies}


@contextmanager
def hogs(url: str, threads: int, body: dict[str, Any], address: str = "127.0.0.1") -> Iterator[list[int]]:
    """Clients at one address that post the same list over and over; the statuses of their answers."""
    statuses, stop = list[int](), threading.Event()

    def post() -> None:
        with httpx.Client(base_url=url, timeout=PATIENCE_S, transport=httpx.HTTPTransport(local_address=address)) as client:
            while not stop.is_set():
                statuses.append(client.post(PATH, json=body).status_code)
                stop.wait(0.2)

    workers = [threading.Thread(target=post, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield statuses
    finally:
        stop.set()
        for worker in workers:
            worker.join(PATIENCE_S)


def wait_until(condition: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends_s
        time.sleep(0.01)


def singles(url: str) -> list[float]:
    """Latencies of crops in a request each, of a kind that decode threads decode; all of them are read."""
    latencies_s = []
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        for _ in range(N_SINGLES):
            started_s = time.monotonic()
            answer = client.post(PATH, json=images(HARBOUR, 1))
            latencies_s.append(time.monotonic() - started_s)
            assert answer.status_code == 200
            assert answer.json()["results"][0]["text"] == "HARBOUR"
    return latencies_s


def decode_s_per_image(server: ServerProcess) -> float:
    name = "parseq_image_decode_duration_seconds"
    return server.metric(f"{name}_sum") / max(1.0, server.metric(f"{name}_count"))


def test_single_crops_do_not_wait_for_lists_of_slow_images(server: ServerProcess) -> None:
    slow = encode(gradient(2000, 2000), "JPEG", progressive=True)
    with hogs(server.url, 1, images(slow, 100)):
        # Those that are decoded before the single crops come are slow ones alone.
        wait_until(lambda: decode_s_per_image(server) > 0)
        slow_s = decode_s_per_image(server)
        beside_s = singles(server.url)
        left = server.metric('parseq_decode_waiting_images{kind="bulk"}')
    assert left > 0  # in order of arrival the single crops would have come after all of them
    assert median(beside_s) < 100 * slow_s / 4


def test_a_client_that_asks_for_much_leaves_room_for_a_modest_one(server: ServerProcess) -> None:
    with hogs(server.url, 6, images(HARBOUR, 128), address="127.0.0.2") as statuses:
        wait_until(lambda: statuses.count(429) >= 6)
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as modest:
            for _ in range(3):
                answer = modest.post(PATH, json=images(HARBOUR, 8))
                assert answer.status_code == 200
                assert [result["text"] for result in answer.json()["results"]] == ["HARBOUR"] * 8
