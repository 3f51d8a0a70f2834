"""`python -m tests.fuzz`: very many broken files through the decoder, and many through a server.

The exit code is 1 when one is not answered as it should be, crashes a process, takes long, makes it grow, or makes it write
anything to standard error.
"""

from __future__ import annotations

import argparse
import faulthandler
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from service.config import BUNDLED_ARTIFACT
from service.process.heap import return_large_blocks
from tests.fuzz.folder import Folder
from tests.fuzz.in_process import is_fault, read_all
from tests.fuzz.memory import Memory
from tests.fuzz.mutate import Mutator
from tests.fuzz.over_http import post_all
from tests.integration.server import ROOT, running

MAX_SLOPE_BYTES = 64
"""Memory kept for each file: a leak of anything at all would be more."""
MAX_HTTP_SLOPE_BYTES = 1024
"""The same for a server, of which fewer files are looked at."""
MAX_FOLDER_SLOPE_BYTES = 4096
"""The same for a few thousand files that differ in size: what they leave in the heap comes to an end later."""
MAX_RISE_MIB = 100
"""Also for a moment: four megapixels with transparency take 69."""
MAX_CPU_S = 1.0
"""Of one file; a sound one of the most pixels takes 0.2 s at most."""


MAX_SHOWN_CHARACTERS = 2000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--files", type=int, default=100_000, help="through the decoder")
    parser.add_argument("--http", type=int, default=5_000, help="through a server")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="read this file alone, to see how it fails")
    parser.add_argument("--folder", type=Path, help="read and post every file below this folder instead of making some")
    parser.add_argument("--decode", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = None if given.folder is None else Folder(given.folder, given.seed)
    if folder is not None:
        given.files = given.http = len(folder.paths)
    if given.only is not None:
        print(read_all([given.only], (folder or Mutator(given.seed)).file))
        return 0
    if given.decode:
        return _decode(given.files, given.seed, folder)
    # In a process of its own: a decoder that crashes takes it along, and is noticed.
    return _run_decoder([*sys.argv[1:], "--decode"]) or _post(given.http, given.seed, folder)


def _run_decoder(options: Sequence[str]) -> int:
    with tempfile.TemporaryFile() as stderr:
        code = subprocess.run([sys.executable, "-m", "tests.fuzz", *options], cwd=ROOT, check=False, stderr=stderr).returncode
        stderr.seek(0)
        written = stderr.read()
    if code or written:
        shown = written[:MAX_SHOWN_CHARACTERS].decode(errors="replace")
        print(f"FAILED: the decoder's process ended with {code}, and wrote {len(written)} bytes to standard error\n{shown}")
        return 1
    return 0


def _decode(n_files: int, seed: int, folder: Folder | None) -> int:
    faulthandler.enable()
    return_large_blocks()  # as the service does; left to itself, glibc keeps one large picture for ever
    started_s = time.monotonic()
    report = read_all(range(n_files), (folder or Mutator(seed)).file)
    what = f"seed {seed}" if folder is None else f"slowest {folder.paths[report.slowest]}"
    print(f"decoder, {what}, {time.monotonic() - started_s:.0f} s: {report}", flush=True)
    faults = [outcome for outcome in report.outcomes if is_fault(outcome)]
    slope_bytes = MAX_SLOPE_BYTES if folder is None else MAX_FOLDER_SLOPE_BYTES
    return int(bool(faults) or _grows(report.memory, slope_bytes) or report.slowest_s > MAX_CPU_S)


def _grows(memory: Memory, max_slope_bytes: float) -> bool:
    return memory.slope_bytes() > max_slope_bytes or memory.rise_mib() > MAX_RISE_MIB


def _post(n_files: int, seed: int, folder: Folder | None) -> int:
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, running(BUNDLED_ARTIFACT, Path(temporary) / "log") as server:
        at_start = len(server.log.read_bytes())
        answers, memory = post_all(server, range(n_files), (folder or Mutator(seed + 1)).file)
        written = server.log.read_bytes()[at_start:]
        ended = server.terminate()
    seen = ", ".join(f"{answer} {count}" for answer, count in answers.most_common())
    print(f"server, {time.monotonic() - started_s:.0f} s: {n_files} files: {seen}; {memory}; exit code {ended}")
    if written:
        print(f"and {len(written)} bytes on standard error:\n{written[:MAX_SHOWN_CHARACTERS].decode(errors='replace')}")
    slope_bytes = MAX_HTTP_SLOPE_BYTES if folder is None else MAX_FOLDER_SLOPE_BYTES
    failed = ended != 0 or bool(written) or _grows(memory, slope_bytes)
    print("FAILED" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
