"""What the metrics that one could scale on say at known loads: which of them tells busy from overloaded?

    .venv/bin/python -m benchmarks.scaling_signals

Single crops at random moments (Poisson) at shares of what 32 connections get, and streams of 32-crop requests. Figures are over
a slice of load; predicted wait is the mean of samples. docs/deployment.md tells what follows.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.serving.artifacts import batch_request, single_requests
from benchmarks.serving.client import OK, REFUSALS, Address
from benchmarks.serving.loads import ClosedLoop, OpenLoop
from benchmarks.serving.server import running
from service.config import BUNDLED_ARTIFACT
from service.process.cpu import cpu_budget

LOADS = (0.3, 0.5, 0.7, 0.9, 1.1, 2.0)
SAMPLE_S = 0.2
COLUMNS = ("load", "requests/s", "refused", "CPU", "busy lanes", "queue wait p99 s", "predicted wait s")
QUEUE_WAIT = "parseq_queue_wait_seconds_bucket"
Samples = dict[tuple[str, str], float]
"""Values by name and by `le`; of other labels the sum."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifact", type=Path, default=BUNDLED_ARTIFACT)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each load (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(options.artifact, Path(folder, "log"), {}) as server:
        print(f"{server.description}\n\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
        asyncio.run(_all_loads(server.address, options.seconds))


async def _all_loads(address: Address, seconds: float) -> None:
    singles = single_requests()
    for warm in (False, True):
        capacity = await _row("32 connections", address, ClosedLoop(address, singles, 32), seconds, shown=warm)
    for index, share in enumerate(LOADS):
        await _row(f"{share:.0%}", address, OpenLoop(address, singles, share * capacity, seconds, index), seconds)
    await _row("2 connections, 32-crop requests", address, ClosedLoop(address, [batch_request(32)], 2), seconds)


async def _row(name: str, address: Address, load: ClosedLoop | OpenLoop, seconds: float, shown: bool = True) -> float:
    """One load; requests answered with 200 a second."""
    before, started_s = await asyncio.to_thread(_scrape, address), time.monotonic()
    offering = asyncio.create_task(load.run() if isinstance(load, OpenLoop) else load.start())
    predicted: list[float] = []
    while time.monotonic() - started_s < seconds:
        await asyncio.sleep(SAMPLE_S)
        predicted.append((await asyncio.to_thread(_scrape, address))["parseq_predicted_wait_seconds", ""])
    after, elapsed_s = await asyncio.to_thread(_scrape, address), time.monotonic() - started_s
    await offering
    await load.stop()
    statuses = [answer.status for answer in load.traffic.answers if answer.finished_s <= started_s + elapsed_s]
    good, refused = statuses.count(OK), sum(status in REFUSALS for status in statuses)
    grown = {key: value - before.get(key, 0.0) for key, value in after.items()}
    if shown:
        print(
            f"| {name} | {good / elapsed_s:.0f} | {refused / max(1, len(statuses)):.0%} "
            f"| {grown['process_cpu_seconds_total', ''] / elapsed_s / cpu_budget():.0%} "
            f"| {grown['parseq_inference_duration_seconds_sum', ''] / elapsed_s:.2f} "
            f"| {_p99(grown)} | {sum(predicted) / len(predicted):.3f} |",
            flush=True,
        )
    return good / elapsed_s


def _scrape(address: Address) -> Samples:
    with urllib.request.urlopen("http://{}:{}/metrics".format(*address)) as answer:  # nosec B310  # loopback
        text = answer.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, sample.labels.get("le", "")
            found[key] = found.get(key, 0.0) + sample.value
    return found


def _p99(grown: Samples) -> str:
    """The bucket that holds it."""
    buckets = sorted((float(le), count) for (name, le), count in grown.items() if name == QUEUE_WAIT)
    below = 0.0
    for bound, count in buckets:
        if count >= 0.99 * buckets[-1][1]:
            return f"{below:g} to {bound:g}"
        below = bound
    return "-"


if __name__ == "__main__":
    main()
