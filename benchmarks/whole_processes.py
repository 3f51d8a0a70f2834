"""One queue in front of a device, against whole processes that share it: what each process's own batches cost.

python -m benchmarks.whole_processes [--processes 2 4] [--connections 64] [--slices 5] [--slice-s 8]

A stand-in for a GPU: a session that sleeps T(n) = a + b n under a lock that all processes share. It is slow enough that HTTP
limits nothing, so the ratios hold on a busy machine too. N whole processes, each with queue and engine, listen on one port
(SO_REUSEPORT); they and the one process take turns in slices.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvicorn
import uvloop
from numpy.typing import NDArray

from benchmarks.serving.arithmetic import median, percentile
from benchmarks.serving.artifacts import NULL_TEXT_LENGTH, single_requests
from benchmarks.serving.client import OK, Address
from benchmarks.serving.loads import ClosedLoop
from service.config import BUNDLED_ARTIFACT, Settings
from service.core.runtime import Runtime
from service.engine.types import Outputs, Wanted
from service.process.logs import configure_logging
from service.serving import uvicorn_config
from service.sessions.artifact import LoadedArtifact, read_artifact
from service.sessions.topology import plan_topology

ROOT: Final = Path(__file__).parents[1]
RAMP_S: Final = 1.5
LARGEST: Final = 64
PATIENCE_MS: Final = 60_000


class SharedDevice:
    """A session that sleeps while it holds the device.

    Args:
        lock: A file; whoever has locked it has the device.
        steps: Length of what it reads.
        fixed_s: Seconds of any run.
        crop_s: Seconds more for each crop.
    """

    def __init__(self, lock: Path, steps: int, fixed_s: float, crop_s: float) -> None:
        self._lock = lock.open("wb")
        self._ids = np.zeros((LARGEST, steps), np.int64)
        self._ids[:, :NULL_TEXT_LENGTH] = 1
        self._ones = np.ones((LARGEST, steps), np.float32)
        self._fixed_s, self._crop_s = fixed_s, crop_s

    def run(self, crops: NDArray[np.uint8]) -> tuple[Any, Any]:
        """Read uint8 `[batch, height, width, 3]`."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            time.sleep(self._fixed_s + self._crop_s * len(crops))
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        return self._ids[: len(crops)], self._ones[: len(crops)]

    def run_with(self, crops: NDArray[np.uint8], wanted: Wanted) -> Outputs:
        """The same."""
        return Outputs(*self.run(crops))


def serve(args: argparse.Namespace) -> None:
    """One whole process."""
    configure_logging("info", "text")
    # Nobody is refused: a refusal would be answered by the next request, and those would take the machine's time.
    patient = {"max_queue_wait_ms": PATIENCE_MS, "request_timeout_ms": PATIENCE_MS}
    settings = Settings(artifact=BUNDLED_ARTIFACT, lanes=1, intra_op_threads=1, max_batch_size=LARGEST, tune=False, **patient)
    metadata, _ = read_artifact(BUNDLED_ARTIFACT)
    device = SharedDevice(args.lock, metadata.max_label_length + 1, args.fixed_ms / 1000, args.crop_ms / 1000)
    artifact = LoadedArtifact(metadata, device, "cuda", plan_topology(settings, "cpu", 1))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", args.serve))
    listener.listen(2048)
    uvicorn.Server(uvicorn_config(settings, Runtime(settings, artifact))).run(sockets=[listener])


def start(n_processes: int, args: argparse.Namespace, lock: Path) -> tuple[Address, list[subprocess.Popen[bytes]]]:
    """Whole processes on a port of their own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.whole_processes", "--serve", str(port), "--lock", str(lock)]
    command += ["--fixed-ms", str(args.fixed_ms), "--crop-ms", str(args.crop_ms)]
    with (lock.parent / f"{n_processes}.log").open("wb") as log:
        started = [subprocess.Popen(command, cwd=ROOT, env={**os.environ}, stderr=log) for _ in range(n_processes)]
    return ("127.0.0.1", port), started


def _are_ready(log: Path, n_processes: int) -> bool:
    return log.read_text(encoding="utf-8").count("ready after") == n_processes


async def slice_of(address: Address, args: argparse.Namespace) -> tuple[float, float]:
    """Crops a second and p99 in seconds, of one slice."""
    load = ClosedLoop(address, single_requests(), args.connections)
    await load.start()
    await asyncio.sleep(RAMP_S)
    begin_s = time.monotonic()
    await asyncio.sleep(args.slice_s)
    end_s = time.monotonic()
    await load.stop()
    good = [answer for answer in load.traffic.between(begin_s, end_s) if answer.status == OK]
    p99_s = percentile([answer.latency_s for answer in good], 0.99)
    return len(good) / (end_s - begin_s), 0.0 if p99_s is None else p99_s


async def compare(args: argparse.Namespace) -> None:
    """All in turns; prints medians and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        counts = [1, *args.processes]
        # One at a time has the device, so each group has a lock of its own and they may all be up at once.
        groups = {count: start(count, args, Path(folder) / f"device-{count}") for count in counts}
        try:
            while not all(_are_ready(Path(folder) / f"{count}.log", count) for count in counts):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            found: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
            for _ in range(args.slices):
                for count, (address, _) in groups.items():
                    found[count].append(await slice_of(address, args))
        finally:
            for _, processes in groups.values():
                for process in processes:
                    process.terminate()
            for _, processes in groups.values():
                for process in processes:
                    process.wait()
    one_rate, one_p99 = (median([value[index] for value in found[1]]) or 1.0 for index in (0, 1))
    print("| processes | crops/s | of one queue | p99 ms | of one queue |\n| --- | --- | --- | --- | --- |")
    for count, values in found.items():
        rate, p99 = (median([value[index] for value in values]) or 0.0 for index in (0, 1))
        print(f"| {count} | {rate:.0f} | {rate / one_rate:.2f} | {1000 * p99:.0f} | {p99 / one_p99:.2f} |")


def main() -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], help="(default: %(default)s)")
    parser.add_argument("--connections", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--slices", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--slice-s", type=float, default=8.0, help="(default: %(default)s)")
    parser.add_argument("--fixed-ms", type=float, default=100.0, help="T(n): of any run (default: %(default)s)")
    parser.add_argument("--crop-ms", type=float, default=6.25, help="T(n): for each crop (default: %(default)s)")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--lock", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args)
        return 0
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(compare(args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
