"""`python -m tests.reliability.siege`: many attackers at once, beside a steady good stream. What does it notice?

Phases with and without attackers take turns, so that the machine's other work falls on both. A good request is one of a PNG
file (decoded at once), a WebP file or a crop in JSON (both decoded by the pool). Ends with exit code 1 when too few of them are
read or too late, memory grows, the log is flooded, or a probe is not answered.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import itertools
import json
import multiprocessing
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import uvloop
from PIL import Image

from benchmarks.serving.client import post
from service.config import BUNDLED_ARTIFACT
from tests.integration.server import PATIENCE_S, ROOT, ServerProcess, running
from tests.reliability.besiegers import Address, Force, Seen, besiege, slow_list
from tests.reliability.clients import Line, read_answer
from tests.reliability.memory import MIB, resident_bytes

GOOD_PER_S = 20
GIVE_UP_S = 10.0
"""How long a good client waits."""
PROBE_EVERY_S, PROBE_GIVES_UP_S = 1.0, 5.0
SAMPLE_EVERY_S = 0.1
READ = "read"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is promised."""

    min_share: float = 0.99
    """Of the good requests that are read, beside attackers; and of the probes that are answered."""
    max_slowdown: float = 3.0
    """Of the p99 of good requests: the median besieged phase's over the median calm one's."""
    max_growth_mib: float = 64.0
    busy_machine: bool = False
    """Whether good requests may be refused in calm phases too: then the share is that of the calm ones."""


PROMISED = Bounds()


@dataclass(slots=True)
class Phase:
    """What the good stream saw, and what the server took meanwhile."""

    latencies_ms: dict[str, list[float]] = field(default_factory=dict)
    """Of the requests that were read, by kind."""
    answers: Counter[str] = field(default_factory=Counter)
    probes: Counter[str] = field(default_factory=Counter)
    most_bytes: int = 0
    log_lines: int = 0
    refused: float = 0.0
    """Problems that clients were told."""

    def percentile_ms(self, percent: float, kind: str | None = None) -> float:
        """Infinite when nothing was read."""
        values = self.latencies_ms.get(kind, []) if kind else [each for some in self.latencies_ms.values() for each in some]
        return float(np.percentile(values, percent)) if values else float("inf")

    def row(self, name: str) -> str:
        kinds = [f"{self.percentile_ms(99, kind):.0f}" for kind in KINDS]
        cells = [f"{self.percentile_ms(50):.0f}", f"{self.percentile_ms(99):.0f}", *kinds, f"{self.most_bytes / MIB:.0f}"]
        cells = [name, _told(self.answers), *cells, _told(self.probes), f"{self.refused:.0f}", str(self.log_lines)]
        return f"| {' | '.join(cells)} |"


KINDS = ("PNG", "WebP", "JSON")
COLUMNS = (
    "phase",
    "good requests",
    "p50 ms",
    "p99 ms",
    *(f"{kind} p99" for kind in KINDS),
    "RSS MiB",
    "probes",
    "refused",
    "log lines",
)
HEADER = f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|"


@dataclass(slots=True)
class Findings:
    """What came of all phases."""

    calm: list[Phase] = field(default_factory=list)
    besieged: list[Phase] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def slowdown(self) -> float:
        return _median_p99(self.besieged) / _median_p99(self.calm)

    @property
    def before_bytes(self) -> int:
        """Resident at most in the first calm phase: what good traffic alone takes."""
        return self.calm[0].most_bytes

    @property
    def growth_mib(self) -> float:
        return (max(phase.most_bytes for phase in self.besieged) - self.before_bytes) / MIB

    def complaints(self, bounds: Bounds) -> list[str]:
        found = list(self.wrong)
        calm = _sum(phase.answers for phase in self.calm)
        if calm.keys() != {READ} and not bounds.busy_machine:
            found.append(f"answers although nobody attacked: {_told(calm)}")
        least = bounds.min_share * (_share(calm) if bounds.busy_machine else 1.0)
        for what, told in (
            ("answers", _sum(phase.answers for phase in self.besieged)),
            ("probes", _sum(phase.probes for phase in self.besieged)),
        ):
            if _share(told) < least:
                found.append(f"{what}: fewer than {least:.1%} were good: {_told(told)}")
        if not self.slowdown <= bounds.max_slowdown:
            found.append(f"p99 of good requests is {self.slowdown:.2f} times the calm one, more than {bounds.max_slowdown:g}")
        if self.growth_mib >= bounds.max_growth_mib:
            found.append(f"RSS grew by {self.growth_mib:.0f} MiB, not less than {bounds.max_growth_mib:g}")
        lines, refused = (sum(getattr(phase, name) for phase in self.besieged) for name in ("log_lines", "refused"))
        if lines and lines >= refused:
            found.append(f"the log grew by {lines} lines for {refused:.0f} refusals")
        return found

    def summary(self) -> str:
        opened, told, sent = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
        for seen in self.seen:
            opened, told, sent = opened + seen.opened, told + seen.told, sent + seen.sent_bytes
        lines = ["| attackers | connections | KiB sent | told |", "| --- | --- | --- | --- |"]
        for kind in opened:
            answers = Counter({answer: count for (of, answer), count in told.items() if of == kind})
            lines.append(f"| {kind} | {opened[kind]} | {sent[kind] // 1024} | {_told(answers)} |")
        lines.append(f"p99 x {self.slowdown:.2f}; RSS +{self.growth_mib:.0f} MiB at most, from {self.before_bytes / MIB:.0f}")
        return "\n".join(lines)


class Siege:
    """One server, a good stream, and attackers beside it."""

    def __init__(self, server: ServerProcess, force: Force, good_per_s: float = GOOD_PER_S) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self._server = server
        self._address: Address = (host, int(port))
        self._force = force
        self._good_per_s = good_per_s
        self._requests = good_requests()
        self._free: list[Line] = []

    async def run(self, phase_s: float, rounds: int) -> Findings:
        findings = Findings()
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as attackers:
            attackers.submit(slow_list, self._force.list_images).result()  # made before anybody measures
            await self._phase(min(phase_s, 3.0))  # warms up
            for number in range(rounds):
                findings.calm.append(await self._phase(phase_s))
                print(findings.calm[-1].row(f"calm {number + 1}"), flush=True)
                attack = loop.run_in_executor(attackers, besiege, self._address, self._force, phase_s)
                findings.besieged.append(await self._phase(phase_s, attack))
                print(findings.besieged[-1].row(f"besieged {number + 1}"), flush=True)
                findings.seen.append(await attack)
                await asyncio.to_thread(self._wait_until_idle)
        return findings

    async def _phase(self, seconds: float, attack: asyncio.Future[Seen] | None = None) -> Phase:
        phase = Phase()
        lines = _count_lines(self._server.log)
        refused = await asyncio.to_thread(self._refusals)
        beside = [asyncio.create_task(self._probe(phase)), asyncio.create_task(self._watch_memory(phase))]
        try:
            await self._serve_good(phase, seconds)
            if attack is not None:
                await attack
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        phase.refused = await asyncio.to_thread(self._refusals) - refused
        phase.log_lines = _count_lines(self._server.log) - lines
        return phase

    async def _serve_good(self, phase: Phase, seconds: float) -> None:
        """An open loop; latencies from the moment each request was due."""
        begin_s = time.monotonic()
        requests = itertools.cycle(self._requests)
        async with asyncio.TaskGroup() as asking:
            for number in range(int(seconds * self._good_per_s)):
                due_s = begin_s + number / self._good_per_s
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                asking.create_task(self._ask(phase, *next(requests), due_s))
        while self._free:
            self._free.pop().writer.close()

    async def _ask(self, phase: Phase, kind: str, request: bytes, due_s: float) -> None:
        line: Line | None = None
        try:
            async with asyncio.timeout(GIVE_UP_S):
                line = await self._line()
                line.writer.write(request)
                status, _, body = await read_answer(line.reader)
        except (OSError, EOFError, TimeoutError) as error:
            phase.answers[type(error).__name__] += 1
            if line is not None:
                line.writer.transport.abort()
            return
        answer = _answer(status, body)
        phase.answers[answer] += 1
        if answer == READ:
            phase.latencies_ms.setdefault(kind, []).append(1000 * (time.monotonic() - due_s))
        self._free.append(line)

    async def _line(self) -> Line:
        """A connection that is kept, unless the server has closed it meanwhile, as it may to make room; or a new one."""
        while self._free:
            line = self._free.pop()
            if not line.reader.at_eof() and not line.writer.is_closing():
                return line
            line.writer.close()
        return Line(*await asyncio.open_connection(*self._address))

    async def _probe(self, phase: Phase) -> None:
        """As an orchestrator does: a new connection each time."""
        while True:
            try:
                async with asyncio.timeout(PROBE_GIVES_UP_S):
                    reader, writer = await asyncio.open_connection(*self._address)
                    try:
                        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                        status, _, _ = await read_answer(reader)
                    finally:
                        writer.transport.abort()
            except (OSError, EOFError, TimeoutError) as error:
                phase.probes[type(error).__name__] += 1
            else:
                phase.probes[READ if status == 200 else str(status)] += 1
            await asyncio.sleep(PROBE_EVERY_S)

    async def _watch_memory(self, phase: Phase) -> None:
        while True:
            phase.most_bytes = max(phase.most_bytes, resident_bytes(self._server.process.pid))
            await asyncio.sleep(SAMPLE_EVERY_S)

    def _refusals(self) -> float:
        text = httpx.get(f"{self._server.url}/metrics", timeout=PATIENCE_S).text
        return sum(float(value) for value in re.findall(r"^parseq_problems_total\{.*\} (\S+)$", text, re.M))

    def _wait_until_idle(self) -> None:
        """What attackers have left behind is no part of the next calm phase."""
        end_s = time.monotonic() + PATIENCE_S
        while self._server.metric("parseq_crops_in_flight") and time.monotonic() < end_s:
            time.sleep(0.2)


def good_requests() -> list[tuple[str, bytes]]:
    """One of each kind, with its name."""
    content = (ROOT / "docs" / "samples" / "harbour.png").read_bytes()
    webp = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(webp, "WEBP", quality=90)
    document = json.dumps({"images": [{"content": base64.b64encode(content).decode()}]}).encode()
    bodies = ((content, "image/png"), (webp.getvalue(), "image/webp"), (document, "application/json"))
    return [(kind, post(*body)) for kind, body in zip(KINDS, bodies, strict=True)]


def _answer(status: int, body: bytes) -> str:
    with contextlib.suppress(ValueError):
        document = json.loads(body)
        for result in document.get("results", [document]):
            error = result.get("error")
            status = status if error is None else error["status"]
    return READ if status == 200 else str(status)


def _told(answers: Counter[str]) -> str:
    return ", ".join(f"{count} x {answer}" for answer, count in answers.most_common()) or "-"


def _sum(counters: Iterable[Counter[str]]) -> Counter[str]:
    return sum(counters, Counter())


def _share(told: Counter[str]) -> float:
    return told[READ] / max(1, told.total())


def _median_p99(phases: list[Phase]) -> float:
    return float(np.median([phase.percentile_ms(99) for phase in phases]))


def _count_lines(log: Path) -> int:
    return log.read_bytes().count(b"\n")


def siege(force: Force, phase_s: float, rounds: int, good_per_s: float) -> Findings:
    """Besiege a server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with running(BUNDLED_ARTIFACT, log) as server:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                findings = runner.run(Siege(server, force, good_per_s).run(phase_s, rounds))
            if server.terminate() != 0 or "Traceback" in log.read_text():
                findings.wrong.append(f"the server did not end well: {log.read_text()[-4000:]}")
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.reliability.siege", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phase-s", type=float, default=35.0, help="seconds of a phase; there is a slow list every 30 s")
    parser.add_argument("--rounds", type=int, default=4, help="each is a calm and a besieged phase")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of attackers, and of the images in a slow list")
    parser.add_argument("--rate", type=float, default=GOOD_PER_S, help="good requests a second")
    parser.add_argument("--own-addresses", action="store_true", help="attackers do not share the good clients' address")
    parser.add_argument("--min-share", type=float, default=PROMISED.min_share)
    parser.add_argument("--max-slowdown", type=float, default=PROMISED.max_slowdown)
    parser.add_argument("--busy-machine", action="store_true", help="good requests may be refused in calm phases too")
    given = parser.parse_args()
    whole = Force()
    pipelining, mute, half_heads, list_images = (
        max(1, round(given.scale * count)) for count in (whole.pipelining, whole.mute, whole.half_heads, whole.list_images)
    )
    force = Force(pipelining, mute, half_heads, list_images, own_addresses=given.own_addresses)
    bounds = Bounds(given.min_share, given.max_slowdown, busy_machine=given.busy_machine)
    print(
        f"{force.pipelining} pipelining, {force.mute} that do not read, {force.half_heads} half heads, "
        f"a list of {force.list_images} slow images every {force.list_every_s:g} s\n{HEADER}",
        flush=True,
    )
    findings = siege(force, given.phase_s, given.rounds, given.rate)
    print(findings.summary())
    complaints = findings.complaints(bounds)
    print("\n".join(["FAILED", *complaints]) if complaints else "passed")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
