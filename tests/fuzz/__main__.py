"""`python -m tests.fuzz`: very many broken files through the decoder, and many through a server; exit code 1 when it fails."""

from __future__ import annotations

import argparse
import faulthandler
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from service.config import BUNDLED_ARTIFACT
from service.heap import return_large_blocks
from tests.fuzz.in_process import read_all
from tests.fuzz.memory import Memory
from tests.fuzz.mutate import Mutator
from tests.fuzz.over_http import post_all
from tests.integration.server import ROOT, running

MAX_SLOPE_BYTES = 64
"""Memory kept for each file: a leak of anything at all would be more."""
MAX_HTTP_SLOPE_BYTES = 1024
"""The same for a server, of which fewer files are looked at."""
MAX_RISE_MIB = 100
"""Also for a moment: four megapixels with transparency take 69."""
MAX_CPU_S = 1.0
"""Of one file; a sound one of the most pixels takes 0.2 s at most."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--files", type=int, default=100_000, help="through the decoder")
    parser.add_argument("--http", type=int, default=5_000, help="through a server")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="read this file alone, to see how it fails")
    parser.add_argument("--decode", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only is not None:
        print(read_all([given.only], Mutator(given.seed).file))
        return 0
    if given.decode:
        return _decode(given.files, given.seed)
    # In a process of its own: a decoder that crashes takes it along, and is noticed.
    command = [sys.executable, "-m", "tests.fuzz", "--decode", "--files", str(given.files), "--seed", str(given.seed)]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code:
        print(f"FAILED: the decoder's process ended with {code}")
        return 1
    return _post(given.http, given.seed)


def _decode(n_files: int, seed: int) -> int:
    faulthandler.enable()
    return_large_blocks()  # as the service does; left to itself, glibc keeps one large picture for ever
    started_s = time.monotonic()
    report = read_all(range(n_files), Mutator(seed).file)
    print(f"decoder, seed {seed}, {time.monotonic() - started_s:.0f} s: {report}")
    return int(_grows(report.memory, MAX_SLOPE_BYTES) or report.slowest_s > MAX_CPU_S)


def _grows(memory: Memory, max_slope_bytes: float) -> bool:
    return memory.slope_bytes() > max_slope_bytes or memory.rise_mib() > MAX_RISE_MIB


def _post(n_files: int, seed: int) -> int:
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, running(BUNDLED_ARTIFACT, Path(folder) / "log") as server:
        answers, memory = post_all(server, range(n_files), Mutator(seed + 1).file)
        ended = server.terminate()
        tracebacks = server.log.read_text().count("Traceback")
    seen = ", ".join(f"{answer} {count}" for answer, count in answers.most_common())
    print(f"server, {time.monotonic() - started_s:.0f} s: {n_files} files: {seen}; {memory}; exit code {ended}")
    failed = ended != 0 or tracebacks > 0 or _grows(memory, MAX_HTTP_SLOPE_BYTES)
    print("FAILED" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
