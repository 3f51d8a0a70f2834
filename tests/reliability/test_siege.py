"""A sample of `make siege`, with fewer attackers and generous bounds: machines that run tests do other things beside."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from tests.integration.server import PATIENCE_S, ROOT
from tests.reliability.besiegers import HALF, LIST, MUTE, PIPELINING, Seen
from tests.reliability.memory import MIB
from tests.reliability.siege import KINDS, PROMISED, READ, Findings, Phase

SHORT = "--phase-s 2 --rounds 2 --rate 8 --scale 0.2 --min-share 0.6 --max-slowdown 30 --busy-machine"


@pytest.mark.serial
def test_good_requests_are_served_beside_many_attackers_at_once() -> None:
    command = [sys.executable, "-m", "tests.reliability.siege", *SHORT.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"| {kind} | " in done.stdout for kind in (PIPELINING, MUTE, HALF, LIST))


def phase(latency_ms: float, **changes: object) -> Phase:
    made = Phase({kind: [latency_ms] * 100 for kind in KINDS}, Counter({READ: 300}), Counter({READ: 30}), 100 * MIB, 0, 50.0)
    return replace(made, **changes)  # type: ignore[arg-type]


def complaints(**changes: object) -> list[str]:
    besieged = [phase(30.0), phase(25.0, **changes), phase(25.0)]
    return Findings([phase(10.0)] * 3, besieged, [Seen()]).complaints(PROMISED)


def test_its_complaints() -> None:
    assert complaints() == []
    assert complaints(answers=Counter({READ: 295, "TimeoutError": 5})) == []
    assert len(complaints(answers=Counter({READ: 290, "429": 10}))) == 1
    assert len(complaints(probes=Counter({READ: 28, "TimeoutError": 2}))) == 1
    assert len(complaints(most_bytes=164 * MIB)) == 1
    assert complaints(log_lines=149) == []
    assert len(complaints(log_lines=150)) == 1
    slow = Findings([phase(10.0)], [phase(31.0)], [Seen()])
    assert len(slow.complaints(PROMISED)) == 1
    calm = Findings([phase(10.0, answers=Counter({READ: 299, "503": 1}))], [phase(10.0)], [Seen()])
    assert len(calm.complaints(PROMISED)) == 1


def test_on_a_busy_machine_the_share_is_that_of_calm_phases() -> None:
    calm, worse = Counter({READ: 150, "429": 150}), Counter({READ: 140, "429": 160})
    findings = Findings([phase(10.0, answers=calm)], [phase(10.0, answers=calm)], [Seen()])
    assert findings.complaints(replace(PROMISED, busy_machine=True)) == []
    assert len(findings.complaints(PROMISED)) == 2
    findings.besieged[0].answers = worse
    assert len(findings.complaints(replace(PROMISED, busy_machine=True))) == 1


def test_what_was_never_read_has_no_latency_to_be_proud_of() -> None:
    nothing = Findings([phase(10.0)], [phase(10.0, latencies_ms={}, answers=Counter({"TimeoutError": 9}))], [Seen()])
    assert nothing.slowdown == pytest.approx(float("inf"))
    assert len(nothing.complaints(PROMISED)) == 2
