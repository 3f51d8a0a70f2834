"""How a server ends under load: in an orderly way, and when its session hangs."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.integration.server import PATIENCE_S, ServerProcess, running, wait_until_refused
from tests.reliability import faulty_server
from tests.reliability.faulty_server import Faults
from tests.toy_artifact import png_of, write_artifact

pytestmark = pytest.mark.usefixtures("both_forms")

PNG = {"content-type": "image/png"}
IN_FLIGHT = 64
PATIENT = {"lanes": 1, "max_batch_size": 4, "max_queue_wait_ms": 600_000}


@contextmanager
def held(folder: Path, **settings: int) -> Iterator[tuple[ServerProcess, Path]]:
    """A server whose runs do not end until the file that comes with it is there."""
    artifact, gate = write_artifact(folder / "toy.onnx"), folder / "gate"
    variables = Faults(gate=str(gate)).environment()
    with running(artifact, folder / "log", module=faulty_server.MODULE, variables=variables, **PATIENT, **settings) as server:
        server.process.send_signal(faulty_server.ARM)
        yield server, gate


async def post_all(server: ServerProcess) -> list[httpx.Response]:
    """The answers to many requests at once."""
    async with httpx.AsyncClient(timeout=PATIENCE_S, limits=httpx.Limits(max_connections=IN_FLIGHT)) as client:
        url = f"{server.url}/v1/recognize"
        return await asyncio.gather(*(client.post(url, content=png_of(f"w{i}"), headers=PNG) for i in range(IN_FLIGHT)))


def wait_until_all_are_in_flight(server: ServerProcess) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while server.metric("parseq_crops_in_flight") < IN_FLIGHT:
        assert time.monotonic() < end_s, server.log.read_text()
        time.sleep(0.01)


def test_sigterm_with_64_requests_in_flight_loses_none(tmp_path: Path) -> None:
    with held(tmp_path, request_timeout_ms=600_000) as (server, gate):

        async def scenario() -> list[httpx.Response]:
            posts = asyncio.create_task(post_all(server))
            await asyncio.to_thread(wait_until_all_are_in_flight, server)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(wait_until_refused, server)
            gate.touch()
            return await posts

        answers = asyncio.run(scenario())
        assert [answer.json()["text"] for answer in answers] == [f"w{index}" for index in range(IN_FLIGHT)]
        assert server.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(("deadline_ms", "status"), [(500, 504), (600_000, 503)])
def test_a_session_that_hangs_ends_the_process_and_nobody_waits_in_vain(tmp_path: Path, deadline_ms: int, status: int) -> None:
    with held(tmp_path, request_timeout_ms=deadline_ms, stuck_after_s=1, drain_timeout_s=1) as (server, _):
        answers = asyncio.run(post_all(server))
        assert server.process.wait(PATIENCE_S) == 4
        log = server.log.read_text()
    assert {answer.status_code for answer in answers} == {status}
    assert log.splitlines()[-1].startswith("parseq-serve: ended, to be restarted: an inference run has not ended within 1 s")
    assert "Traceback" not in log
