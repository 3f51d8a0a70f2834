"""`python -m tests.reliability.hostile`: hostile requests beside steady good traffic. What do the good ones notice?"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import uvloop

from benchmarks.serving.client import OK, Connection, Traffic, connect, post
from service.config import BUNDLED_ARTIFACT
from tests.integration.server import ROOT, ServerProcess, running
from tests.reliability.attacker import LORIS, Told, attack_for
from tests.reliability.memory import MIB, resident_bytes

GOOD_PER_S = 40
CONNECTIONS = 64
RECEIVE_TIMEOUT_S = 3
MAX_SLOWDOWN = 2.0
MAX_GROWTH_MIB = 64


@dataclass
class Findings:
    """What came of one run."""

    answers: dict[str, Counter[str]] = field(default_factory=dict)
    slowest_s: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    calm_ms: list[list[float]] = field(default_factory=list)
    disturbed_ms: list[list[float]] = field(default_factory=list)
    """By phase."""
    lost: int = 0
    resident_bytes: list[int] = field(default_factory=list)

    def note(self, told: Told) -> None:
        self.answers.setdefault(told.name, Counter())[told.answer] += 1
        self.slowest_s[told.name] = max(told.duration_s, self.slowest_s.get(told.name, 0.0))
        if not told.permitted:
            self.wrong.append(f"{told.name}: {told.answer}")

    @property
    def growth_mib(self) -> float:
        return (max(self.resident_bytes) - self.resident_bytes[0]) / MIB

    @property
    def slowdown(self) -> float:
        """The median phase's p99 over that without hostile requests: other work on the machine comes in bursts."""
        return _p99(self.disturbed_ms) / _p99(self.calm_ms)

    def table(self) -> str:
        rows = ["| request | answers | slowest, ms |", "| --- | --- | --- |"]
        for name, answers in self.answers.items():
            told = ", ".join(f"{answer} x {count}" for answer, count in answers.items())
            slowest = "-" if name == LORIS else f"{1000 * self.slowest_s[name]:.0f}"
            rows.append(f"| {name} | {told} | {slowest} |")
        for label, latencies in (("undisturbed", self.calm_ms), ("beside hostile requests", self.disturbed_ms)):
            everything = [latency for phase in latencies for latency in phase]
            told = f"p50 {np.median(everything):.1f} ms, p99 of the median phase {_p99(latencies):.1f} ms"
            rows.append(f"good requests, {label}: {len(everything)}, {told}")
        rows.append(
            f"p99 x {self.slowdown:.2f}; {self.lost} good requests lost or refused; RSS +{self.growth_mib:.0f} MiB at most"
        )
        return "\n".join(rows)


class Attack:
    """One server, good traffic, and hostile requests beside it."""

    def __init__(self, server: ServerProcess) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self._address = (host, int(port))
        self._pid = server.process.pid
        # A process of its own: what it costs to send such requests must not delay those who measure.
        self._attacker = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.findings = Findings()

    async def run(self, phase_s: float, rounds: int) -> Findings:
        """Calm and disturbed phases in turn: the machine's other work falls on both."""
        await self._serve_good(min(phase_s, 3.0))  # warms up
        self._attacker.submit(attack_for, self._address, phase_s=0.0).result()
        self.findings = Findings()
        self.findings.resident_bytes.append(resident_bytes(self._pid))
        for _ in range(rounds):
            self.findings.calm_ms.append(await self._serve_good(phase_s))
            attack = asyncio.get_running_loop().run_in_executor(self._attacker, attack_for, self._address, phase_s)
            self.findings.disturbed_ms.append(await self._serve_good(phase_s))
            for told in await attack:
                self.findings.note(told)
        return self.findings

    async def _serve_good(self, duration_s: float) -> list[float]:
        """An open loop of single crops; latencies from the moment each was due."""
        # New connections in each phase: the server would close those that were idle for long.
        connections = [await connect(self._address, Connection(Traffic())) for _ in range(CONNECTIONS)]
        traffics = [connection._traffic for connection in connections]
        request = post((ROOT / "docs" / "samples" / "harbour.png").read_bytes(), "image/png")
        begin_s = time.monotonic()
        for number in range(int(duration_s * GOOD_PER_S)):
            due_s = begin_s + number / GOOD_PER_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            idle = next((good for good in connections if not good._traffic.in_flight), None)
            if idle is None:
                self.findings.lost += 1
                continue
            idle.send(request, due_s)
            self.findings.resident_bytes.append(resident_bytes(self._pid))
        await asyncio.gather(*(traffic.settle() for traffic in traffics))
        for connection in connections:
            connection.close()
        answers = [answer for traffic in traffics for answer in traffic.answers]
        self.findings.lost += sum(answer.status != OK for answer in answers)
        return [1000 * answer.latency_s for answer in answers]


def _p99(phases: list[list[float]]) -> float:
    return float(np.median([np.percentile(latencies, 99) for latencies in phases]))


def attack(phase_s: float, rounds: int) -> Findings:
    """Attack a server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with running(BUNDLED_ARTIFACT, log, receive_timeout_s=RECEIVE_TIMEOUT_S) as server:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                findings = runner.run(Attack(server).run(phase_s, rounds))
            if server.terminate() != 0 or "Traceback" in log.read_text():
                findings.wrong.append(f"the server did not end well: {log.read_text()}")
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.hostile", description=__doc__)
    parser.add_argument("--phase-s", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--busy-machine", action="store_true", help="do not judge latencies")
    given = parser.parse_args()
    findings = attack(given.phase_s, given.rounds)
    print(findings.table())
    failures = list(findings.wrong)
    if findings.lost:
        failures.append(f"{findings.lost} good requests lost")
    if findings.slowdown > MAX_SLOWDOWN and not given.busy_machine:
        failures.append(f"p99 of good requests is {findings.slowdown:.2f} times that without hostile ones")
    if findings.growth_mib > MAX_GROWTH_MIB:
        failures.append(f"RSS grew by {findings.growth_mib:.0f} MiB")
    print("\n".join(["FAILED", *failures]) if failures else "passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
