"""A sample of `make hostile`: what is answered, what is lost and what memory it takes; latencies are for a quiet machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.integration.server import PATIENCE_S, ROOT
from tests.reliability.attacker import LORIS
from tests.reliability.hostile_requests import hostile_requests


@pytest.mark.serial
def test_hostile_requests_are_told_documented_problems_and_good_ones_are_served() -> None:
    command = [sys.executable, "-m", "tests.reliability.hostile", "--phase-s", "4", "--rounds", "1", "--busy-machine"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| {LORIS} |" in done.stdout
    assert sum(f"| {request.name} |" in done.stdout for request in hostile_requests()) > 20
