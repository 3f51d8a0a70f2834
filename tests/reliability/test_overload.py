from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from benchmarks.serving.client import Answer, post
from benchmarks.serving.loads import OpenLoop, seconds_until_answered
from tests.integration.server import running
from tests.reliability.memory import MIB, resident_bytes
from tests.reliability.overload import Overload, address_of, capacity, read_log
from tests.toy_artifact import png_of, write_artifact

WORK = 60
"""Matrix products a crop: so slow that a client in Python can overload it."""
FACTOR, SECONDS = 10, 2.0
MAX_GROWTH_MIB = 24
MAX_REFUSAL_RATIO = 0.5
"""Of the median latencies of what is refused and what is read."""
MIN_GOODPUT = 0.2
"""Of the capacity that is still read: the clients, and whatever else the machine does, take their part of the same cores."""


@pytest.mark.serial
@pytest.mark.usefixtures("both_forms")
def test_ten_times_too_much_is_read_or_refused_and_soon_over(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "slow.onnx", work=WORK)
    requests = [post(png_of(f"w{index}"), "image/png") for index in range(50)]

    async def scenario() -> tuple[list[Answer], float, float | None, int]:
        capacity_per_s = await capacity(address_of(server), 1.0, requests)
        before = resident_bytes(server.process.pid)
        load = OpenLoop(address_of(server), requests, FACTOR * capacity_per_s, SECONDS, seed=0)
        await load.run()
        recovery_s = await seconds_until_answered(address_of(server), requests[0])
        await load.stop()
        assert len(load.traffic.answers) == load.offered
        growth = resident_bytes(server.process.pid) - before
        # Once more: the machine may have had other work in between.
        capacity_per_s = min(capacity_per_s, await capacity(address_of(server), 1.0, requests))
        return load.traffic.answers, capacity_per_s, recovery_s, growth

    with running(artifact, tmp_path / "log") as server:
        answers, capacity_per_s, recovery_s, growth = asyncio.run(scenario())
        latencies_s = {status: [each.latency_s for each in answers if each.status == status] for status in (200, 429)}
        assert {answer.status for answer in answers} == {200, 429}
        assert median(latencies_s[429]) < MAX_REFUSAL_RATIO * median(latencies_s[200])
        # What was let in last is read after the load has ended.
        took_s = max(each.finished_s for each in answers) - min(each.sent_s for each in answers)
        assert len(latencies_s[200]) / took_s > MIN_GOODPUT * capacity_per_s
        assert recovery_s is not None
        assert growth < MAX_GROWTH_MIB * MIB
        assert server.terminate() == 0
        assert "Traceback" not in server.log.read_text()


GOOD = Overload(4.0, 100.0, 30.0, Counter({200: 1800, 429: 9}), [0.9] * 100, [0.1] * 100, 0.5, 100.0, 101.0)


def test_its_complaints() -> None:
    assert GOOD.complaints() == []
    assert replace(GOOD, statuses=Counter({200: 1800, 429: 9, -1: 1})).complaints()
    assert replace(GOOD, statuses=Counter({200: 1800})).complaints()
    assert replace(GOOD, statuses=Counter({200: 1200, 429: 9})).complaints() == [
        "4x: 0.40 of the capacity was read, less than 0.5"
    ]
    assert replace(GOOD, refused_s=[0.1] * 90 + [0.6] * 10).complaints()
    assert replace(GOOD, read_s=[0.9] * 90 + [2.1] * 10).complaints()
    assert replace(GOOD, recovery_s=None).complaints()
    assert replace(GOOD, recovery_s=1.5).complaints()
    assert replace(GOOD, after_mib=200.0).complaints()


def test_the_log_of_h2load(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1795572274000000\t200\t12000\n1795572274000001\t429\t500\n1795572274000002\t-1\t900\n")
    statuses, read_s, refused_s = read_log(log)
    assert statuses == {200: 1, 429: 1, -1: 1}
    assert (read_s, refused_s) == ([0.012], [0.0005])
