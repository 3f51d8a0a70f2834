"""Limits hold for a pod as a whole, whichever front process a connection has come to; and so do fairness and the metrics."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from service.http.connection.limit import SLOW_BODY_S
from tests.integration.connections import head
from tests.integration.fronts import fronts_of
from tests.integration.in_process import read_answer
from tests.integration.server import PATIENCE_S, ServerProcess, running
from tests.reliability.memory import resident_bytes
from tests.toy_artifact import png_of, write_artifact

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="front processes need Linux")

PNG = {"content-type": "image/png"}
MIB = 2**20
MOST_OF_A_FRONT = 70 * MIB
"""Resident, that it shares with others included; a body or picture comes on top."""
MOST = 12
"""Connections; with so many, each of two fronts gets some but for one time in two thousand."""


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("pod")
    limits = {"max_connections": MOST, "max_bodies_bytes": 4 * MIB, "max_body_bytes": 2 * MIB, "max_image_bytes": 2 * MIB}
    with running(write_artifact(folder / "toy.onnx"), folder / "log", http_workers=2, **limits) as server:
        yield server


@contextmanager
def connection(server: ServerProcess) -> Iterator[socket.socket]:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), PATIENCE_S) as opened:
        yield opened


def settle(server: ServerProcess, sample: str, least: float) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while server.metric(sample) < least:
        assert time.monotonic() < end_s, sample
        time.sleep(0.01)


def test_a_front_is_small(pod: ServerProcess) -> None:
    assert httpx.post(f"{pod.url}/v1/recognize", content=png_of("word"), headers=PNG).status_code == 200
    assert max(resident_bytes(front) for front in fronts_of(pod)) < MOST_OF_A_FRONT


def told_when_late(pod: ServerProcess, body: bytes) -> list[int]:
    """Status of some connections more than there may be, while those send their bodies; nothing if that took too long."""
    while pod.metric("parseq_connections") > 1:  # those of earlier questions end when their fronts have seen it
        time.sleep(0.01)
    time.sleep(0.2)
    with ExitStack() as stack:
        held = [stack.enter_context(connection(pod)) for _ in range(MOST)]
        started_s = time.monotonic()
        for each in held:
            each.sendall(head(body=body) + body[:-1])
        time.sleep(0.5)  # or the connection of who asks next takes the place of one of them
        settle(pod, "parseq_connections", MOST + 1)  # with the one that asks
        told = []
        for _ in range(8):
            with connection(pod) as late:
                late.sendall(head(body=body) + body)
                told.append(read_answer(late)[0])
        if time.monotonic() - started_s > SLOW_BODY_S:
            return []
        for each in held:
            each.sendall(body[-1:])
        assert [read_answer(each)[0] for each in held] == [200] * MOST
    return told


def test_connections_of_all_fronts_count(pod: ServerProcess) -> None:
    body = png_of("word")
    # Requests that are arriving do not give way at once; on a machine that stood still meanwhile they do, and it says nothing.
    told = told_when_late(pod, body) or told_when_late(pod, body)
    assert told == [429] * 8
    assert httpx.post(f"{pod.url}/v1/recognize", content=body, headers=PNG).status_code == 200


def test_bodies_of_all_fronts_count(pod: ServerProcess) -> None:
    with ExitStack() as stack:
        for _ in range(5):
            held = stack.enter_context(connection(pod))
            held.sendall(head(body=bytes(MIB)) + bytes(MIB - 1))
        settle(pod, "parseq_body_bytes", 3.5 * MIB)
        assert pod.metric("parseq_body_bytes") < 4.5 * MIB
        assert pod.metric('parseq_problems_total{problem="no-room-for-body"}') >= 1


def test_any_front_tells_the_metrics_of_all(pod: ServerProcess) -> None:
    before = pod.metric('parseq_request_duration_seconds_count{status="200"}')
    for _ in range(20):  # each over a connection of its own
        assert httpx.post(f"{pod.url}/v1/recognize", content=png_of("word"), headers=PNG).status_code == 200
    told = [pod.metric('parseq_request_duration_seconds_count{status="200"}') for _ in range(6)]
    assert told == [before + 20] * 6
    openmetrics = httpx.get(f"{pod.url}/metrics", headers={"accept": "application/openmetrics-text"})
    assert openmetrics.text.endswith("# EOF\n")
    assert f'parseq_request_duration_seconds_count{{status="200"}} {before + 20}' in openmetrics.text
