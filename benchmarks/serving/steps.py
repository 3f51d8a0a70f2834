"""The steps of the benchmark: each measures one slice of load between two measurements of the bare session."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields

from benchmarks.serving.arithmetic import CpuUse, cpu_use, mean, median, percentile, ratio, read_cpu
from benchmarks.serving.artifacts import batch_request, single_requests
from benchmarks.serving.bare import BareModel, Pace, Topology
from benchmarks.serving.client import OK, REFUSALS, Answer, Traffic
from benchmarks.serving.loads import ClosedLoop, OpenLoop, seconds_until_answered
from benchmarks.serving.server import Server

RAMP_S = 0.3
"""Load before a slice begins."""
BARE_S = 0.6
"""Each measurement of the bare session, at most."""
BATCH_CROPS = 32
BULK_CONNECTIONS = 2
"""One batch request is read while the next one waits."""
MEAN_PAUSE_S = 0.03
"""Between the single posts beside the batch requests."""
OVERLOAD = 4.0
STEADY_LOAD = 0.7
CLOSED = {"c1": 1, "c8": 8, "c32": 32, "c64": 64, "c256": 256}
FOR_GPUS = frozenset({"c256"})
"""Steps that say nothing on a CPU, which is busy long before."""
STEPS = (*CLOSED, "r70", "batch32", "overload4x", "null_c64", "mixed")


@dataclass(slots=True)
class Row:
    """One step of one model: a slice, or the medians of several. `None` where a figure has no meaning."""

    step: str
    model: str
    crops_per_s: float | None = None
    ratio: float | None = None
    """Throughput over the bare session with a thread for each core, at the batch of `reference_batch`."""
    ratio_best: float | None = None
    """Throughput over the best bare topology."""
    cpu_ratio: float | None = None
    """Crops per CPU-second of the server over those of the bare session."""
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_ms_per_request: float | None = None
    """Of the server, for each request it answered with 200."""
    refused: float | None = None
    """Requests answered with 429 or 503."""
    failed: float | None = None
    """Requests answered with anything else but 200, or not at all."""
    client_cpu: float | None = None
    """Share of all cores."""
    foreign_cpu: float | None = None
    """Share of all cores, of what is neither server nor client."""
    goodput: float | None = None
    """Overload: posts answered with 200 before the offering ended, over what 32 connections got in the same time."""
    refused_p99_ms: float | None = None
    recovery_s: float | None = None
    """Open load: from the last post offered to the first 200 for a post made after it."""
    slowdown: float | None = None
    """Mixed: p99 over the unloaded p50."""
    slices: int = 1


def medians(rows: Sequence[Row]) -> Row:
    """One row of many slices of a step."""
    first = rows[0]
    kept = {"step": first.step, "model": first.model, "slices": len(rows)}
    names = [item.name for item in fields(Row) if item.name not in kept]
    return Row(**kept, **{name: median(getattr(row, name) for row in rows) for name in names})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Window:
    """What happened during a slice."""

    elapsed_s: float
    answers: list[Answer]
    cpu: CpuUse

    def good(self) -> list[Answer]:
        """The answers that were readings."""
        return [answer for answer in self.answers if answer.status == OK]

    def rate(self, crops_per_request: int = 1) -> float:
        """Crops read a second."""
        return crops_per_request * len(self.good()) / self.elapsed_s


@dataclass(slots=True)
class Bench:
    """One model, served and bare.

    Args:
        model: The name shown.
        server: It is served there.
        bare: The same artifact.
        cores: That server and client may use.
        best: The best bare topology.
        slice_s: Length of a slice.
    """

    model: str
    server: Server
    bare: BareModel
    cores: int
    best: Topology
    slice_s: float
    round: int = 0
    _singles: list[bytes] = field(default_factory=single_requests)
    _batch: bytes = field(default_factory=lambda: batch_request(BATCH_CROPS))

    async def run(self, step: str) -> Row:
        """One slice of a step."""
        if step in CLOSED:
            return await self._closed(step)
        special: dict[str, Callable[[], Awaitable[Row]]] = {
            "r70": self._steady,
            "batch32": self._batch_request,
            "overload4x": self._overload,
            "mixed": self._mixed,
        }
        return await special[step]()

    async def null(self) -> Row:
        """One slice of `null_c64`; there is nothing bare to compare it with."""
        load = ClosedLoop(self.server.address, self._singles, 64)
        return _row("null_c64", self.model, await self._window(load))

    async def _closed(self, step: str) -> Row:
        connections = CLOSED[step]
        load = ClosedLoop(self.server.address, self._singles, connections)
        return await self._beside_bare(step, min(connections, BATCH_CROPS), lambda: self._window(load))

    async def _batch_request(self) -> Row:
        load = ClosedLoop(self.server.address, [self._batch], 1)
        return await self._beside_bare("batch32", BATCH_CROPS, lambda: self._window(load), BATCH_CROPS)

    async def _steady(self) -> Row:
        rate = STEADY_LOAD * await self._saturation(self.slice_s / 2)
        load = OpenLoop(self.server.address, self._singles, rate, self.slice_s, self.round)
        return await self._offered("r70", load)

    async def _overload(self) -> Row:
        saturation = await self._saturation(self.slice_s)
        load = OpenLoop(self.server.address, self._singles, OVERLOAD * saturation, 2 * self.slice_s, self.round)
        row = await self._offered("overload4x", load)
        row.goodput = ratio(row.crops_per_s, saturation)
        return row

    async def _offered(self, step: str, load: OpenLoop) -> Row:
        """A slice of open load, and how long after it a single post is answered."""
        recovery_s: float | None = None

        async def measure() -> Window:
            nonlocal recovery_s
            before = read_cpu(self.server.session_id)
            await load.run()
            after = read_cpu(self.server.session_id)
            recovery_s = await seconds_until_answered(self.server.address, self._singles[0])
            await load.stop()
            in_time = load.traffic.between(before.at_s, after.at_s)
            return Window(after.at_s - before.at_s, in_time, cpu_use(before, after, self.cores))

        row = await self._beside_bare(step, BATCH_CROPS, measure)
        row.recovery_s = recovery_s
        # The latencies are those of all posts, also of those that were answered when the offering was over.
        answers = load.traffic.answers
        _fill_latencies(row, answers)
        row.refused_p99_ms = _percentile_ms([answer for answer in answers if answer.status in REFUSALS], 0.99)
        return row

    async def _mixed(self) -> Row:
        alone = ClosedLoop(self.server.address, self._singles, 1, mean_pause_s=MEAN_PAUSE_S)
        unloaded_ms = _percentile_ms((await self._window(alone, 2 * self.slice_s)).good(), 0.5)
        bulk = ClosedLoop(self.server.address, [self._batch], BULK_CONNECTIONS)
        singles = ClosedLoop(self.server.address, self._singles, 1, mean_pause_s=MEAN_PAUSE_S)
        await bulk.start()
        row = _row("mixed", self.model, await self._window(singles, 2 * self.slice_s))
        await bulk.stop()
        row.crops_per_s = row.cpu_ms_per_request = None  # of the single crops alone they would mislead
        row.slowdown = ratio(row.p99_ms, unloaded_ms)
        return row

    async def _saturation(self, seconds: float) -> float:
        """Crops a second with 32 connections, now."""
        load = ClosedLoop(self.server.address, self._singles, BATCH_CROPS)
        return (await self._window(load, seconds)).rate()

    async def _window(self, load: ClosedLoop, seconds: float | None = None) -> Window:
        """Load for a slice that begins and ends with an answer, so that no part of a batch is counted."""
        await load.start()
        ramp_ends_s = time.monotonic() + RAMP_S
        begin_s = await _answer_after(load.traffic, ramp_ends_s)
        before = read_cpu(self.server.session_id)
        end_s = await _answer_after(load.traffic, begin_s + (self.slice_s if seconds is None else seconds))
        after = read_cpu(self.server.session_id)
        await load.stop()
        return Window(end_s - begin_s, load.traffic.between(begin_s, end_s), cpu_use(before, after, self.cores))

    async def _beside_bare(
        self, step: str, batch: int, measure: Callable[[], Awaitable[Window]], crops_per_request: int = 1
    ) -> Row:
        """A slice between two measurements of the bare session."""
        bare_before = self._measure_bare(batch)
        window = await measure()
        bare_after = self._measure_bare(batch)
        wide, best = ([before, after] for before, after in zip(bare_before, bare_after, strict=True))
        row = _row(step, self.model, window, crops_per_request)
        row.ratio = ratio(row.crops_per_s, mean([pace.crops_per_s for pace in wide]))
        row.ratio_best = ratio(row.crops_per_s, mean([pace.crops_per_s for pace in best]))
        crops_per_cpu_s = ratio(crops_per_request * len(window.good()), window.cpu.server_s)
        row.cpu_ratio = ratio(crops_per_cpu_s, mean([pace.crops_per_cpu_s for pace in wide]))
        return row

    def _measure_bare(self, batch: int) -> tuple[Pace, Pace]:
        """The wide session at this batch, and the best topology."""
        seconds = min(BARE_S, self.slice_s)
        return self.bare.measure(self.bare.wide(batch), seconds), self.bare.measure(self.best, seconds)


async def _answer_after(traffic: Traffic, moment_s: float) -> float:
    """Wait for the first answer after a moment; when it came."""
    while (came_s := await traffic.next_answer()) < moment_s:
        pass
    return came_s


def _row(step: str, model: str, window: Window, crops_per_request: int = 1) -> Row:
    """What a slice says by itself."""
    row = Row(step, model, crops_per_s=window.rate(crops_per_request))
    _fill_latencies(row, window.answers)
    cpu_s_per_request = ratio(window.cpu.server_s, len(window.good()))
    row.cpu_ms_per_request = None if cpu_s_per_request is None else 1000 * cpu_s_per_request
    row.client_cpu, row.foreign_cpu = window.cpu.client_share, window.cpu.foreign_share
    return row


def _fill_latencies(row: Row, answers: Sequence[Answer]) -> None:
    statuses = Counter(answer.status for answer in answers)
    good = [answer for answer in answers if answer.status == OK]
    row.p50_ms, row.p99_ms = _percentile_ms(good, 0.5), _percentile_ms(good, 0.99)
    row.refused = sum(statuses[status] for status in REFUSALS)
    row.failed = len(answers) - len(good) - row.refused


def _percentile_ms(answers: Sequence[Answer], share: float) -> float | None:
    value_s = percentile([answer.latency_s for answer in answers], share)
    return None if value_s is None else 1000 * value_s
