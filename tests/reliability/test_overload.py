from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

from benchmarks.serving.client import post
from benchmarks.serving.loads import OpenLoop, seconds_until_answered
from tests.integration.server import running
from tests.reliability.memory import MIB, resident_bytes
from tests.reliability.overload import Overload, address_of, capacity, read_log
from tests.toy_artifact import png_of, write_artifact

WORK = 60
"""Matrix products a crop: so slow that a client in Python can overload it."""
FACTOR, SECONDS = 10, 2.0
MAX_GROWTH_MIB = 24


def test_ten_times_too_much_is_read_or_refused_and_soon_over(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "slow.onnx", work=WORK)
    requests = [post(png_of(f"w{index}"), "image/png") for index in range(50)]

    async def scenario() -> tuple[Counter[int], float | None, int]:
        capacity_per_s = await capacity(address_of(server), 1.0, requests)
        before = resident_bytes(server.process.pid)
        load = OpenLoop(address_of(server), requests, FACTOR * capacity_per_s, SECONDS, seed=0)
        await load.run()
        recovery_s = await seconds_until_answered(address_of(server), requests[0])
        await load.stop()
        statuses = Counter(answer.status for answer in load.traffic.answers)
        assert statuses.total() == load.offered
        return statuses, recovery_s, resident_bytes(server.process.pid) - before

    with running(artifact, tmp_path / "log") as server:
        statuses, recovery_s, growth = asyncio.run(scenario())
        assert statuses.keys() == {200, 429}
        assert recovery_s is not None
        assert growth < MAX_GROWTH_MIB * MIB
        assert server.terminate() == 0
        assert "Traceback" not in server.log.read_text()


GOOD = Overload(4.0, 100.0, 30.0, Counter({200: 9, 429: 9}), [], [], 0.5, 100.0, 101.0)


def test_its_complaints() -> None:
    assert GOOD.complaints() == []
    assert replace(GOOD, statuses=Counter({200: 9, 429: 9, -1: 1})).complaints()
    assert replace(GOOD, statuses=Counter({200: 9})).complaints()
    assert replace(GOOD, recovery_s=None).complaints()
    assert replace(GOOD, recovery_s=1.5).complaints()
    assert replace(GOOD, after_mib=200.0).complaints()


def test_the_log_of_h2load(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1795572274000000\t200\t12000\n1795572274000001\t429\t500\n1795572274000002\t-1\t900\n")
    statuses, read_s, refused_s = read_log(log)
    assert statuses == {200: 1, 429: 1, -1: 1}
    assert (read_s, refused_s) == ([0.012], [0.0005])
