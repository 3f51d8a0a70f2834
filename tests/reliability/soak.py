"""Hours in minutes: mixed traffic at 70 % of what the service can do, while its sessions fail, dawdle and clients leave.

    python -m tests.reliability.soak --minutes 30

Every crop has a text that is known beforehand, every request an id of its own, and every answer is compared with both.
Ends with exit code 1 when an answer is wrong, lost or doubled, when the counters do not add up, or when memory grows.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop

from benchmarks.serving.arithmetic import percentile
from service.config import BUNDLED_ARTIFACT
from tests.chaos.wild_requests import Expected, WildRequests
from tests.integration.server import ServerProcess, come_to_rest, outcomes, running, unsettled
from tests.reliability import faulty_server
from tests.reliability.clients import Crowd, Record
from tests.reliability.faulty_server import Faults
from tests.reliability.known_crops import bundled_crops, toy_crops
from tests.reliability.memory import Slope, resident_bytes, slope_of
from tests.toy_artifact import write_artifact

LOAD = 0.7
LEAVING_SHARE = 0.05
FAULTS = Faults(error_share=0.02, slow_share=0.01, slow_s=0.2)
CAPACITY_CLIENTS = 32
CAPACITY_SECONDS = 30
WARM_UP_SHARE = 0.2
"""Of the time: samples of memory from then on count."""
TOY_DEVICE_S = 0.06
"""The toy computes next to nothing but takes its time, so that 70 % of what it can do stay that when the machine gets busy."""
MAX_SLOPE_MIB_PER_HOUR = 6.0
PICTURE = Path("build") / "soak.png"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a soak showed."""

    capacity_per_s: float
    record: Record
    memory: list[tuple[float, int]]
    """Seconds since the load began, and bytes."""
    crops: dict[str, float]
    """The service's own counters: admitted, and by outcome."""
    unsettled: float
    answered_by_server: float
    """Its count of answers that reached somebody."""
    errors_logged: int
    """Runs that failed, as the service's log tells: that the faults were there."""

    @property
    def slope(self) -> Slope:
        warm_s = WARM_UP_SHARE * self.memory[-1][0]
        return slope_of([sample for sample in self.memory if sample[0] >= warm_s])

    def complaints(self) -> list[str]:
        """What is wrong, apart from memory."""
        record = self.record
        wanted_zero = {
            "answers wrong": record.wrong,
            "answers lost": record.lost,
            "answers doubled": record.doubled,
            "crops admitted and without an outcome": self.unsettled,
            "requests with neither an answer nor a client that left": record.sent - record.answered - record.left - record.lost,
        }
        found = [f"{what}: {count:g}" for what, count in wanted_zero.items() if count]
        if not record.answered <= self.answered_by_server <= record.sent:
            found.append(
                f"clients have {record.answered} answers of {record.sent}, the server counts {self.answered_by_server:g}"
            )
        return [*found, *record.complaints]


def soak(kind: str, seconds: float, capacity_seconds: float, folder: Path) -> Outcome:
    """Run one; `kind` is `toy` or `bundled`."""
    artifact, faults = BUNDLED_ARTIFACT, FAULTS
    if kind == "toy":
        artifact, faults = write_artifact(folder / "toy.onnx", work=1), replace(FAULTS, device_s=TOY_DEVICE_S)
    with running(artifact, folder / "log", module=faulty_server.MODULE, variables=faults.environment()) as server:
        crops = toy_crops() if kind == "toy" else bundled_crops(server.url)
        server.process.send_signal(faulty_server.ARM)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_soak(server, crops, seconds, capacity_seconds))


async def _soak(
    server: ServerProcess, crops: Sequence[tuple[Expected, bytes]], seconds: float, capacity_seconds: float
) -> Outcome:
    host, port = server.url.removeprefix("http://").split(":")
    probe = Crowd((host, int(port)), WildRequests(1, crops))
    capacity_per_s = await probe.answers_per_s(CAPACITY_CLIENTS, capacity_seconds)
    answered_before = answered(server)
    crowd = Crowd((host, int(port)), WildRequests(2, crops), LEAVING_SHARE)
    memory: list[tuple[float, int]] = []
    sampling = asyncio.create_task(_sample(server, memory, seconds / 1000))
    await crowd.open(LOAD * capacity_per_s, seconds)
    sampling.cancel()
    await asyncio.to_thread(come_to_rest, server)
    counted = {"admitted": server.metric("parseq_crops_admitted_total"), **outcomes(server)}
    crowd.record.complaints = [*probe.record.complaints, *crowd.record.complaints]
    return Outcome(
        capacity_per_s,
        crowd.record,
        memory,
        counted,
        unsettled(server),
        answered(server) - answered_before,
        server.log.read_text().count("an error made on purpose"),
    )


async def _sample(server: ServerProcess, memory: list[tuple[float, int]], interval_s: float) -> None:
    started_s = time.monotonic()
    while True:
        memory.append((time.monotonic() - started_s, resident_bytes(server.process.pid)))
        await asyncio.sleep(max(0.1, interval_s))


def answered(server: ServerProcess) -> float:
    """Requests that the service answered, and whose clients were still there."""
    statuses = (200, 400, 413, 415, 422, 429, 500, 503, 504)
    return sum(server.metric(f'parseq_request_duration_seconds_count{{status="{status}"}}') for status in statuses)


def table(kind: str, outcome: Outcome) -> str:
    record, slope = outcome.record, outcome.slope
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(record.statuses.items()))
    crops = ", ".join(f"{name} {count:g}" for name, count in outcome.crops.items())
    p50, p99 = (percentile(record.latencies_s, share) or 0.0 for share in (0.5, 0.99))
    first, last = outcome.memory[0][1] / 2**20, outcome.memory[-1][1] / 2**20
    rows = [
        ("artifact", kind),
        ("load", f"{outcome.memory[-1][0] / 60:.1f} min at {LOAD:.0%} of {outcome.capacity_per_s:.0f} requests/s"),
        ("requests", f"{record.sent} sent, {record.answered} answered and checked, {record.left} left on purpose"),
        ("statuses", statuses),
        ("wrong, lost, doubled", f"{record.wrong}, {record.lost}, {record.doubled}"),
        ("crops", f"{crops}; without an outcome {outcome.unsettled:g}"),
        ("latency of 200", f"p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms"),
        ("memory", f"{first:.1f} MiB at the start, {last:.1f} MiB at the end"),
        ("slope", f"{slope.mib_per_hour:+.2f} MiB/h (standard error {slope.error_mib_per_hour:.2f})"),
        ("rise along the slope", f"{slope.rise_mib:+.2f} MiB"),
    ]  # fmt: skip
    return "\n".join(f"{name:<22} {value}" for name, value in rows)


def draw(outcome: Outcome, path: Path) -> None:
    """Memory over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 2.6), layout="constrained")
    axes.plot([at_s / 60 for at_s, _ in outcome.memory], [value / 2**20 for _, value in outcome.memory], linewidth=0.8)
    axes.axvline(WARM_UP_SHARE * outcome.memory[-1][0] / 60, color="grey", linestyle=":")
    axes.set(xlabel="minutes", ylabel="resident memory, MiB", ylim=(0, 1.2 * max(value for _, value in outcome.memory) / 2**20))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--artifact", choices=("toy", "bundled"), default="toy")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = soak(arguments.artifact, 60 * arguments.minutes, CAPACITY_SECONDS, Path(folder))
    print(table(arguments.artifact, outcome))
    draw(outcome, arguments.picture)
    print(f"{'picture':<22} {arguments.picture}")
    complaints = outcome.complaints()
    slope = outcome.slope
    if slope.mib_per_hour - 2 * slope.error_mib_per_hour > MAX_SLOPE_MIB_PER_HOUR:
        complaints.append(f"memory grows by {slope.mib_per_hour:.1f} MiB/h")
    print("\n".join(complaints) or "nothing was wrong, lost or doubled")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
