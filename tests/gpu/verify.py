"""Check everything on a GPU, in eight minutes at most, and print one table.

    python -m tests.gpu.verify MATERIAL [--output build/verify-gpu] [--stage texts ...] (make verify-gpu)

MATERIAL is a folder of `tests.gpu.write_material`. The stages: which providers there are; where a session puts the nodes of
each graph; whether texts and confidences are those of a CPU; how fast the sessions are; how fast the service is. Each stage
has its time, and a stage that fails is a row of the table. The table is also in the folder `--output`, as Markdown and as JSON.

Exit status: 0 if every check passed, 1 if one failed, 2 if there is no GPU here or nothing to check with.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.gpu.driver import EXIT_NO_GPU, NoGpuError, device_names
from tests.gpu.material import MaterialError, read_material
from tests.gpu.stage import STAND_IN_NOTE
from tests.gpu.stages import STAGES, TOTAL_S, Budget
from tests.gpu.table import Row, RowFile, exit_code, write

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "build" / "verify-gpu"
MARGIN_S = 3.0
"""A stage is told to end so long before it is stopped."""
ENDING_S = 5.0
"""A stage that is stopped: for it to end what it has started."""


def command(name: str, args: argparse.Namespace, rows: Path, seconds: float) -> Sequence[str]:
    """Of the process of a stage."""
    options = ["--provider", args.provider, "--rows", str(rows), "--seconds", f"{seconds:.1f}", "--folder", str(args.output)]
    return [sys.executable, "-m", "tests.gpu.stages", name, str(args.material), *options]


def run_stage(name: str, arguments: Sequence[str], rows: RowFile, seconds: float, log: Path) -> None:
    """Run a stage in a process of its own, for so long at most; if it does not end well, that is a row too."""
    with log.open("w", encoding="utf-8") as output:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=output, stderr=output, env=environment, start_new_session=True)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            rows.add(Row(name, "the whole stage", "FAILED", f"stopped after its {seconds:.0f} s; {log} has what it said"))
            return
        finally:
            _end_group(process)
    if code != 0:
        end = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        rows.add(Row(name, "the whole stage", "FAILED", f"it ended with {code}: {' '.join(end)[-300:]} ({log})"))


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a stage and what it has started: ask them, then insist."""
    if process.poll() is not None:
        return
    for sign in (signal.SIGINT, signal.SIGKILL):
        os.killpg(process.pid, sign)
        try:
            process.wait(ENDING_S)
            return
        except subprocess.TimeoutExpired:
            continue


def verify(args: argparse.Namespace, stages: Mapping[str, Budget] = STAGES, total_s: float = TOTAL_S) -> list[Row]:
    """Run the stages one after the other; all rows. A stage may use what those before it have left of their time."""
    rows = RowFile(args.output / "rows.jsonl")
    rows.path.unlink(missing_ok=True)
    started_s = time.monotonic()
    ends_s = started_s
    for name in args.stage:
        ends_s = min(ends_s + stages[name].seconds, started_s + total_s - ENDING_S)
        seconds = ends_s - time.monotonic()
        print(f"verify-gpu: {name}, {seconds:.0f} s at most ...", file=sys.stderr, flush=True)
        if seconds < MARGIN_S:
            rows.add(Row(name, "the whole stage", "FAILED", "not begun: the time was over"))
            continue
        arguments = command(name, args, rows.path, seconds - MARGIN_S)
        run_stage(name, arguments, rows, seconds, args.output / f"{name}.log")
    return rows.read()


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.verify", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("material", type=Path, help="folder of tests.gpu.write_material")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for the table and the logs")
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES), help="(default: all)")
    parser.add_argument(
        "--stand-in",
        dest="provider",
        action="store_const",
        const="cpu",
        default="cuda",
        help="run everything with the CPU provider in place of CUDA, to try this program itself",
    )
    args = parser.parse_args(arguments)
    args.material, args.output = args.material.resolve(), args.output.resolve()
    return args


def heading(args: argparse.Namespace, rows: Sequence[Row], seconds: float) -> str:
    """What stands above the table."""
    failed = sum(row.outcome == "FAILED" for row in rows)
    told = f"{failed} failed" if failed else "all checks passed"
    where = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores"
    first = f"# verify-gpu: {told}\n\n{where}; {read_material(args.material).crops}; {seconds:.0f} s"
    return f"{first}\n\n**{STAND_IN_NOTE}.**" if args.provider == "cpu" else first


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = parse_args(arguments)
    try:
        read_material(args.material)
        if args.provider != "cpu":
            device_names()
    except (NoGpuError, MaterialError) as error:
        print(f"verify-gpu: {error}", file=sys.stderr)
        return EXIT_NO_GPU
    args.output.mkdir(parents=True, exist_ok=True)
    started_s = time.monotonic()
    rows = verify(args)
    print(write(rows, heading(args, rows, time.monotonic() - started_s), args.output))
    print(f"{args.output / 'verify-gpu.md'}, {args.output / 'verify-gpu.json'}", file=sys.stderr)
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main())
