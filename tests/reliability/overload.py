"""Far more requests than can be read: what is still read, how late, how quickly the rest is refused, and how soon it is
over.

    python -m tests.reliability.overload --seconds 30 --factors 4 10

h2load (Debian: nghttp2-client) offers the load, since a client in Python could not without taking the server's cores.
Ends with exit code 1 when a request is lost or answered with anything but 200 and 429, when refusals or answers come late,
when too little of the capacity is left for reading, when it takes longer than a second to be well again, or when memory
grows.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.serving.arithmetic import percentile
from benchmarks.serving.artifacts import crop_files, made_up_artifact, single_requests
from benchmarks.serving.client import Address
from benchmarks.serving.loads import ClosedLoop, seconds_until_answered
from service.config import BUNDLED_ARTIFACT, Settings
from tests.integration.server import ServerProcess, running
from tests.reliability.memory import MIB, resident_bytes

MAX_CONNECTIONS = 400
"""Each asks again when it has its answer and its turn has come, so there must be more than are let in at once."""
CAPACITY_CLIENTS = 8
"""Few enough that a slow model does not refuse them."""
CAPACITY_S = 5.0
MAX_RECOVERY_S = 1.0
MAX_GROWTH_MIB = 32.0
"""Buffers of so many connections stay; what leaks would grow with every overload."""
BUDGET_S = Settings.model_fields["max_queue_wait_ms"].default / 1000
"""Who would have to wait for longer is refused."""
MAX_REFUSAL_BUDGETS = 0.5
"""p99 of refusals, in budgets: one that takes as long as the wait it spares is worth nothing."""
MAX_READ_BUDGETS = 2.0
"""p99 of what is read: a budget, its run and the way back."""
MIN_GOODPUT = 0.5
"""Of the capacity that is still read while the rest is refused, which takes part of the same cores."""
OK, BUSY = 200, 429


@dataclass(frozen=True, slots=True)
class Overload:
    """One of them."""

    factor: float
    capacity_per_s: float
    seconds: float
    statuses: Counter[int]
    read_s: list[float]
    """Latencies of what was read."""
    refused_s: list[float]
    recovery_s: float | None
    """From the last request of the overload to the first answer with 200 to one made after it."""
    before_mib: float
    after_mib: float

    def complaints(self) -> list[str]:
        found = []
        if unexpected := {status: count for status, count in self.statuses.items() if status not in (OK, BUSY)}:
            found.append(f"answers other than 200 and 429: {unexpected}")
        if not self.statuses[OK] or not self.statuses[BUSY]:
            found.append(f"it was no overload: {self.statuses}")
        for what, latencies_s, budgets in (
            ("refusals", self.refused_s, MAX_REFUSAL_BUDGETS),
            ("answers", self.read_s, MAX_READ_BUDGETS),
        ):
            p99_s = percentile(latencies_s, 0.99) or 0.0
            if p99_s > budgets * BUDGET_S:
                found.append(
                    f"p99 of {what} is {p99_s:.2f} s, more than {budgets:g} of the {BUDGET_S:g} s of PARSEQ_MAX_QUEUE_WAIT_MS"
                )
        if self.goodput < MIN_GOODPUT:
            found.append(f"{self.goodput:.2f} of the capacity was read, less than {MIN_GOODPUT:g}")
        if self.recovery_s is None or self.recovery_s > MAX_RECOVERY_S:
            found.append(f"well again after {self.recovery_s} s")
        if self.after_mib - self.before_mib > MAX_GROWTH_MIB:
            found.append(f"memory grew from {self.before_mib:.0f} to {self.after_mib:.0f} MiB")
        return [f"{self.factor:g}x: {complaint}" for complaint in found]

    @property
    def goodput(self) -> float:
        """What was read, as a share of what can be."""
        return self.statuses[OK] / self.seconds / self.capacity_per_s

    def row(self) -> str:
        read, refused = self.statuses[OK], self.statuses[BUSY]
        p50, p99, refused_p50, refused_p99 = (
            f"{1000 * (percentile(values, share) or 0):.0f}"
            for values in (self.read_s, self.refused_s)
            for share in (0.5, 0.99)
        )
        recovery = "never" if self.recovery_s is None else f"{self.recovery_s:.2f}"
        cells = [
            f"{self.factor:g}x",
            f"{sum(self.statuses.values()) / self.seconds:.0f}",
            f"{read / self.seconds:.0f}",
            f"{self.goodput:.2f}",
            p50, p99, str(refused), refused_p50, refused_p99, recovery, f"{self.before_mib:.0f}", f"{self.after_mib:.0f}",
        ]  # fmt: skip
        return "| " + " | ".join(cells) + " |"


COLUMNS = (
    "offered", "requests/s", "read/s", "of capacity", "p50 ms", "p99 ms", "refused", "p50 ms", "p99 ms", "well again in s",
    "MiB before", "after",
)  # fmt: skip
HEADER = "| " + " | ".join(COLUMNS) + " |\n" + "| --- " * len(COLUMNS) + "|"


def address_of(server: ServerProcess) -> Address:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


async def capacity(address: Address, seconds: float, requests: Sequence[bytes]) -> float:
    """Requests a second that are read when 32 connections do not wait."""
    loop = ClosedLoop(address, requests, CAPACITY_CLIENTS)
    await loop.start()
    started_s = time.monotonic()
    await asyncio.sleep(seconds)
    end_s = time.monotonic()
    await loop.stop()
    read = [answer for answer in loop.traffic.between(started_s, end_s) if answer.status == OK]
    return len(read) / (end_s - started_s)


async def overload(server: ServerProcess, factor: float, capacity_per_s: float, seconds: float, folder: Path) -> Overload:
    """Offer so many times what the server can do."""
    body, log = folder / "body", folder / f"h2load-{factor:g}.tsv"
    content, media_type = crop_files()[0]
    body.write_bytes(content)
    offered_per_s = factor * capacity_per_s
    connections = max(1, min(MAX_CONNECTIONS, round(offered_per_s)))
    rate = max(1, round(offered_per_s / connections))
    command = ["h2load", "--h1", "-D", f"{seconds:g}", "-c", str(connections), "--rps", str(rate)]
    command += ["-d", str(body), "-H", f"content-type: {media_type}", f"--log-file={log}", f"{server.url}/v1/recognize"]
    before = resident_bytes(server.process.pid)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    assert await process.wait() == 0
    ended_s = time.monotonic()
    waited_s = await seconds_until_answered(address_of(server), single_requests()[0], pause_s=0.01)
    recovery_s = None if waited_s is None else time.monotonic() - ended_s
    statuses, read_s, refused_s = read_log(log)
    after = resident_bytes(server.process.pid)
    return Overload(
        factor, capacity_per_s, seconds, statuses, read_s, refused_s, recovery_s, before / MIB, after / MIB
    )  # fmt: skip


def read_log(log: Path) -> tuple[Counter[int], list[float], list[float]]:
    """h2load's lines: start in microseconds, status (-1: lost), duration in microseconds."""
    statuses: Counter[int] = Counter()
    latencies_s: dict[int, list[float]] = {OK: [], BUSY: []}
    for line in log.read_text().splitlines():
        _, status, microseconds = (int(field) for field in line.split("\t"))
        statuses[status] += 1
        latencies_s.setdefault(status, []).append(microseconds / 1e6)
    return statuses, latencies_s[OK], latencies_s[BUSY]


async def _run(server: ServerProcess, factors: list[float], seconds: float, folder: Path) -> list[str]:
    capacity_per_s = await capacity(address_of(server), CAPACITY_S, single_requests())
    print(f"capacity: {capacity_per_s:.0f} requests/s from {CAPACITY_CLIENTS} connections\n{HEADER}", flush=True)
    complaints = []
    for factor in factors:
        result = await overload(server, factor, capacity_per_s, seconds, folder)
        print(result.row(), flush=True)
        complaints += result.complaints()
    return complaints


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--model", default="bundled", help="or an architecture, with made-up weights, such as parseq-tiny")
    parser.add_argument("--factors", type=float, nargs="+", default=[4.0, 10.0])
    arguments = parser.parse_args()
    if shutil.which("h2load") is None:
        print("h2load is missing: apt-get install nghttp2-client", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        complaints = measure(arguments.model, arguments.factors, arguments.seconds, Path(name))
    print("\n".join(complaints) or "every request was answered with 200 or 429")
    return 1 if complaints else 0


def measure(model: str, factors: list[float], seconds: float, folder: Path) -> list[str]:
    """Start a service, overload it, stop it."""
    artifact = BUNDLED_ARTIFACT if model == "bundled" else made_up_artifact(model, folder)
    with running(artifact, folder / "log", tune=1) as server:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            complaints = runner.run(_run(server, factors, seconds, folder))
        if server.terminate() != 0 or "Traceback" in server.log.read_text():
            complaints.append(server.log.read_text())
    return complaints


if __name__ == "__main__":
    sys.exit(main())
