"""What the service adds to the bare model: throughput, latency and CPU time beside ONNX Runtime alone, in the same seconds.

python -m benchmarks.serve [--model parseq-tiny bundled] [--artifact FILE] [--step c1 c8 ...] [--slices 5] [--json FILE]
                           [--workers 1 2 4] [--models]

Starts the service, puts it under load over loopback, and measures the bare session before and after each slice of load; the
figures are medians of the slices. docs/serving_performance.md says what the columns mean. `parseq-tiny` gets made-up weights,
which change no speed of a network that reads all characters at once; its artifact is exported once and kept in `build/`.

With `--workers` each step is measured with so many processes that serve HTTP (`PARSEQ_HTTP_WORKERS`), which take turns.

With `--models` one server has all of them, and each is measured twice: while the others are idle, and while they have as many
connections as it has.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import uvloop
from tqdm import tqdm

from benchmarks.serving.artifacts import made_up_artifact, null_artifact, single_requests
from benchmarks.serving.bare import BareModel
from benchmarks.serving.loads import ClosedLoop
from benchmarks.serving.report import table
from benchmarks.serving.server import running
from benchmarks.serving.steps import CLOSED, FOR_GPUS, STEPS, Bench, Row, medians
from service.config import BUNDLED_ARTIFACT
from service.process.cpu import cpu_budget

WORK_FOLDER = Path(__file__).parents[1] / "build" / "serve-benchmark"
BUNDLED, NULL = "bundled", "null_c64"
SEARCH_S = 1.0
"""For each candidate, when the best bare topology is looked for."""


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", nargs="+", default=["parseq-tiny", BUNDLED], help="named architectures, or bundled (default: %(default)s)"
    )
    parser.add_argument("--artifact", type=Path, nargs="+", help="artifacts to measure instead of --model")
    usual = [step for step in STEPS if step not in FOR_GPUS]
    parser.add_argument("--step", nargs="+", choices=STEPS, default=usual, help="(default: all but c256, which is for GPUs)")
    parser.add_argument("--workers", nargs="+", type=int, default=[], help="processes that serve HTTP (default: the service's)")
    parser.add_argument("--models", action="store_true", help="serve all in one process, instead of one after the other")
    parser.add_argument("--slices", type=int, default=5, help="slices of each step (default: %(default)s)")
    parser.add_argument(
        "--slice-s", type=float, default=3.0, help="length of a slice; an overload lasts two (default: %(default)s)"
    )
    parser.add_argument("--setting", nargs="+", default=[], metavar="NAME=VALUE", help="of the service: lanes=1 and so on")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    return parser.parse_args()


def artifacts(args: argparse.Namespace) -> list[tuple[str, Path]]:
    """What is to be measured: names and files."""
    if args.artifact:
        return [(path.stem, path) for path in args.artifact]
    return [
        (BUNDLED_ARTIFACT.stem, BUNDLED_ARTIFACT) if name == BUNDLED else (name, made_up_artifact(name, WORK_FOLDER))
        for name in args.model
    ]


async def measure(name: str, artifact: Path, args: argparse.Namespace) -> list[Row]:
    """All steps of one artifact."""
    cores = cpu_budget()
    bare = BareModel(artifact, cores, settings_of(args).get("provider", "cpu"))
    best = bare.best(min(SEARCH_S, args.slice_s))
    print(f"{name}: best bare topology: {best}", flush=True)
    null = null_artifact(bare.metadata, WORK_FOLDER) if NULL in args.step else None
    with ExitStack() as stack:
        benches: dict[str, Bench] = {}
        for label, settings in forms(name, args):
            if args.step != [NULL]:
                server = stack.enter_context(running(artifact, WORK_FOLDER / f"{label}.log", settings))
                print(f"{label}: {server.description}", flush=True)
                benches[label] = Bench(label, server, bare, cores, best, args.slice_s)
            if null is not None:
                null_server = stack.enter_context(running(null, WORK_FOLDER / f"null of {label}.log", settings))
                benches[f"null of {label}"] = Bench(label, null_server, bare, cores, best, args.slice_s)
        plan = [
            (step, label) for step in args.step for label, bench in benches.items() if (label != bench.model) == (step == NULL)
        ]
        rows: dict[tuple[str, str], list[Row]] = {each: [] for each in plan}
        for number, each in tqdm([(number, each) for number in range(args.slices) for each in plan], desc=name, disable=None):
            step, label = each
            bench = benches[label]
            bench.round = number
            rows[each].append(await (bench.null() if step == NULL else bench.run(step)))
    return [medians(slices) for slices in rows.values()]


def settings_of(args: argparse.Namespace) -> dict[str, str]:
    """Settings of the service, as they were told."""
    return dict(pair.split("=", 1) for pair in args.setting)


def forms(name: str, args: argparse.Namespace) -> list[tuple[str, dict[str, str]]]:
    """The servers of one artifact: what each is called in the table, and its settings."""
    settings = settings_of(args)
    by_workers = [(f"{name}, {workers} for HTTP", settings | {"http_workers": str(workers)}) for workers in args.workers]
    return by_workers or [(name, settings)]


async def measure_together(served: Sequence[tuple[str, Path]], args: argparse.Namespace) -> list[Row]:
    """The closed loops of several models in one process: each beside idle ones, and beside busy ones."""
    settings = settings_of(args)
    cores, rows = cpu_budget(), list[Row]()
    singles = {name: single_requests(f"/v1/recognize?model={name}") for name, _ in served}
    artifact = ",".join(f"{name}={path}" for name, path in served)
    with running(artifact, WORK_FOLDER / "models.log", settings) as server:
        print(server.description, flush=True)
        for name, path in served:
            bare = BareModel(path, cores, settings.get("provider", "cpu"))
            best = bare.best(min(SEARCH_S, args.slice_s))
            for beside in ("idle", "busy"):
                bench = Bench(f"{name}, others {beside}", server, bare, cores, best, args.slice_s, _singles=singles[name])
                for step in [step for step in args.step if step in CLOSED]:
                    slices = []
                    for number in tqdm(range(args.slices), desc=f"{bench.model}, {step}", disable=None):
                        bench.round = number
                        others = [other for other, _ in served if other != name and beside == "busy"]
                        loads = [ClosedLoop(server.address, singles[other], CLOSED[step]) for other in others]
                        for load in loads:
                            await load.start()
                        slices.append(await bench.run(step))
                        for load in loads:
                            await load.stop()
                    rows.append(medians(slices))
    return rows


def main() -> int:
    """Entry point; the exit code."""
    args = parse_args()
    WORK_FOLDER.mkdir(parents=True, exist_ok=True)
    gc.disable()  # the client keeps every answer, and would pause now and then to look through them
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if args.models:
            rows = runner.run(measure_together(artifacts(args), args))
        else:
            rows = [row for name, artifact in artifacts(args) for row in runner.run(measure(name, artifact, args))]
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
