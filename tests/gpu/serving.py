"""How fast the service is on the GPU: `benchmarks/serve.py` with more and more front processes, and what limited it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.process.cpu import cpu_budget
from service.sessions.topology import GPU_MAX_BATCH_SIZE
from tests.gpu.material import Graph
from tests.gpu.stage import Stage
from tests.gpu.table import Row

ROOT = Path(__file__).parents[2]
MODELS = ("parseq", "parseq-tiny", "parseq-mini")
"""The first of them that the material has is served, in fp16; by the names that they have where speed is measured."""
STEP = "c256"
"""The GPU runs 64 crops at a time, two such batches are in flight, and the next ones must be waiting."""
SLICE_S = 4.0
NEEDS_S = 45.0
"""For one start of the service and its measurement; with less it is not begun."""
ENDING_S = 8.0
"""Of a measurement that takes too long: for it to end the service that it has started."""
FULL = 0.9
"""Of a device or a core."""
WORTH_MORE = 1.1
"""More front processes are tried while each doubling reads so many times as much."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one measurement has found."""

    workers: int
    cores: int
    row: Mapping[str, Any]
    """Of `benchmarks/serve.py`."""
    alone: float | None
    """Crops a second of the session alone, in batches that the service runs; `None`: that was not measured."""

    @property
    def crops_per_s(self) -> float:
        """Crops read a second."""
        return float(self.row["crops_per_s"] or 0)

    @property
    def of_alone(self) -> float:
        """Share of what the session reads alone; where that was not measured, of the benchmark's best bare session."""
        return self.crops_per_s / self.alone if self.alone else float(self.row["ratio_best"] or 0)

    @property
    def server_cores(self) -> float:
        """Cores that the service kept busy."""
        return self.crops_per_s * float(self.row["cpu_ms_per_request"] or 0) / 1000

    @property
    def client_cores(self) -> float:
        """Cores that the client kept busy; it is one process."""
        return self.cores * float(self.row["client_cpu"] or 0)

    @property
    def limit(self) -> str:
        """What kept it from reading more."""
        busy = self.server_cores + self.client_cores + self.cores * float(self.row["foreign_cpu"] or 0)
        if self.of_alone >= FULL:
            return "the GPU"
        if busy >= FULL * self.cores:
            return f"the {self.cores} cores"
        if self.client_cores >= FULL:
            return "the client, which is one process"
        return "the front processes" if self.workers > 1 else "the one process that does HTTP"

    @property
    def is_full(self) -> bool:
        """Whether more front processes cannot help."""
        return self.limit.startswith("the GPU") or self.limit.endswith("cores") or self.limit.startswith("the client")

    def __str__(self) -> str:
        """All figures in one line."""
        return (
            f"{self.crops_per_s:,.0f} crops/s, {self.of_alone:.2f} of the session alone; "
            f"p50 {self.row['p50_ms'] or 0:.1f} ms, p99 {self.row['p99_ms'] or 0:.1f} ms; server {self.server_cores:.1f} "
            f"and client {self.client_cores:.1f} of {self.cores} cores; refused {self.row['refused'] or 0:.0f}, "
            f"failed {self.row['failed'] or 0:.0f}; limited by {self.limit}"
        )


def run(stage: Stage) -> None:
    """A row for each number of front processes."""
    graphs = {graph.pace: graph for graph in stage.material.graphs if graph.precision == "fp16"}
    graph = next((graphs[name] for name in MODELS if name in graphs), None)
    if graph is None:
        stage.add("the service", "skipped", f"the material has none of {', '.join(MODELS)} in fp16")
        return
    cores, workers, before = cpu_budget(), 1, 0.0
    while True:
        of = f"{graph.pace}, fp16, {workers} front process{'es' if workers > 1 else ''}"
        if stage.left_s < NEEDS_S:
            stage.add(of, "skipped", f"{max(0.0, stage.left_s):.0f} s were left, and it may need {NEEDS_S:.0f}")
            return
        try:
            row = measure(stage, stage.material.path(graph), workers)
        except MeasurementError as error:
            stage.add(of, "FAILED", str(error))
            return
        found = Load(workers, cores, row, pace_of(stage.rows.read(), graph))
        failed = not found.crops_per_s or bool(found.row["failed"])
        stage.add(of, "FAILED" if failed else "measured", str(found), limit=found.limit, **found.row)
        workers *= 2
        if failed or found.is_full or workers > cores or found.crops_per_s < WORTH_MORE * before:
            return
        before = found.crops_per_s


class MeasurementError(RuntimeError):
    """The benchmark gave nothing; the message says why."""


def command(artifact: Path, rows: Path, provider: str, workers: int) -> list[str]:
    """The benchmark's."""
    settings = [f"provider={provider}", f"http_workers={workers}"]
    options = ["--step", STEP, "--slices", "1", "--slice-s", str(SLICE_S), "--json", str(rows), "--setting", *settings]
    return [sys.executable, "-m", "benchmarks.serve", "--artifact", str(artifact), *options]


def pace_of(rows: Sequence[Row], graph: Graph) -> float | None:
    """What the stage before measured of this graph: crops a second at the best batch that the service runs."""
    for row in rows:
        if row.of.startswith(f"{graph.pace}, {graph.precision}, ") and "batches" in row.figures:
            rates = [at["crops_per_s"] for size, at in row.figures["batches"].items() if int(size) <= GPU_MAX_BATCH_SIZE]
            return max(rates, default=None)
    return None


def measure(stage: Stage, artifact: Path, workers: int) -> dict[str, Any]:
    """Run the benchmark once; its row.

    Raises:
        MeasurementError: It failed, or took too long.
    """
    rows, log = stage.folder / f"serving-{workers}.json", stage.folder / f"serving-{workers}.log"
    rows.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("w", encoding="utf-8") as output:
        arguments = command(artifact, rows, stage.provider, workers)
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=output, stderr=output, env=environment)
        try:
            process.wait(max(0.0, stage.left_s - ENDING_S))
        except subprocess.TimeoutExpired as error:
            raise MeasurementError("not done: the time of this stage was over") from error
        finally:
            _end(process)
    if process.returncode != 0 or not rows.exists():
        end = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise MeasurementError(f"benchmarks.serve ended with {process.returncode}: {' '.join(end)[-300:]} ({log})")
    row: dict[str, Any] = json.loads(rows.read_text(encoding="utf-8"))[0]
    return row


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt it if it still runs, so that it ends the service that it has started."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(ENDING_S / 2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
