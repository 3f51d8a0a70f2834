"""schemathesis over the whole OpenAPI of the running service: nothing may be answered with 5xx, or otherwise than
documented.

    python -m tests.reliability.api_fuzz --cases 1500

Every check of schemathesis is on: statuses, media types, headers and bodies as documented, methods that are not, data
that breaks the schema must be refused. Three things are not held against the service: it refuses valid bodies that are
no images (schemathesis.toml), ignores unknown headers, and answers 504 to a client that set itself a deadline which
passed (fuzz_hooks.py). Ends with exit code 1 when one of them fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from service.config import BUNDLED_ARTIFACT
from tests.integration.server import ROOT, ServerProcess, running

TALLY_VARIABLE = "FUZZ_TALLY"
CONFIG = Path(__file__).with_name("schemathesis.toml")
COMMAND = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "--no-color", "run"]


@dataclass(frozen=True, slots=True)
class FuzzResult:
    """What came of it."""

    exit_code: int
    report: str
    answers: dict[str, Counter[int]]
    """By operation: how often each status."""

    @property
    def cases(self) -> int:
        return sum(statuses.total() for statuses in self.answers.values())


def fuzz(server: ServerProcess, cases_per_operation: int, folder: Path, *options: str) -> FuzzResult:
    """Post about so many cases to each operation, or fewer where there are not so many different ones."""
    tally = folder / "tally.json"
    command = [*COMMAND, f"{server.url}/openapi.json", "--max-examples", str(cases_per_operation), *options]
    environment = os.environ | {TALLY_VARIABLE: str(tally), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    answers: dict[str, Counter[int]] = {}
    for label, status, count in json.loads(tally.read_text()) if tally.exists() else ():
        answers.setdefault(label, Counter())[status] += count
    return FuzzResult(done.returncode, done.stdout, answers)


def table(result: FuzzResult) -> str:
    rows = [
        f"{label:<20} {statuses.total():>6}   " + ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
        for label, statuses in sorted(result.answers.items())
    ]
    return "\n".join([f"{'operation':<20} {'cases':>6}   statuses", *rows, f"{'all':<20} {result.cases:>6}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1500, help="for each operation, about")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, running(BUNDLED_ARTIFACT, Path(name) / "log") as server:
        result = fuzz(server, arguments.cases, Path(name))
        still_well = server.terminate() == 0 and "Traceback" not in server.log.read_text()
    print(result.report if result.exit_code else table(result))
    print("passed" if result.exit_code == 0 and still_well else "FAILED")
    return 0 if result.exit_code == 0 and still_well else 1


if __name__ == "__main__":
    sys.exit(main())
