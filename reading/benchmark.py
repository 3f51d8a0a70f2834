"""`parseq-benchmark`: parameters, FLOPs, and latency against batch size and label length, of a checkpoint and an artifact.

All runs take turns, in a new order every round, so that whatever else the machine does falls on all alike; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tqdm import tqdm

from reading.latency.measure import Latency, Subject, measure
from reading.latency.plot import draw_latencies
from reading.readers.interface import ReaderError
from reading.readers.options import ReaderOptions, add_reader_options, positive

if TYPE_CHECKING:
    from reading.latency.cost import Cost

BATCHES: Final = [1, 2, 4, 8, 16, 32]
LENGTHS: Final = [1, 5, 9, 13, 17, 21, 25]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="parseq-benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=positive, nargs="+", default=BATCHES, help="batch sizes (default: 1 2 4 8 16 32)")
    parser.add_argument("--length", type=positive, nargs="+", default=LENGTHS, help="label lengths (default: 1 5 ... 25)")
    parser.add_argument("--repeats", type=positive, default=20, help="runs of each, of which the median counts (%(default)s)")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw latencies")
    add_reader_options(parser)
    return parser


@dataclass(frozen=True, slots=True)
class Size:
    """What a network costs by its size alone."""

    parameters: int
    max_label_length: int
    costs: Sequence[Cost]


def open_subjects(options: ReaderOptions) -> tuple[list[Subject], Size | None]:
    """What is measured: the artifact alone where nothing names a checkpoint, else both; and the network's size if there is one.

    Raises:
        ReaderError: What the options name cannot be used.
    """
    found, size = list[Subject](), None
    # Late: an artifact needs no torch, a checkpoint no runtime.
    if not options.artifact or options.of_checkpoint:
        from model.recognisers.registry import DEFAULT_MODEL
        from reading.latency.cost import costs, parameters
        from reading.latency.network import NetworkSubject
        from reading.readers.checkpoint import load_network

        # Speed does not need weights.
        network, weights = load_network(options, fetch=False)
        named = options.config or options.weights
        name = options.model or (named.stem if named else DEFAULT_MODEL)
        found.append(NetworkSubject(network, f"{name}{'' if weights else ' (fresh weights)'}"))
        size = Size(parameters(network), network.config.max_label_length, costs(network))
    if options.artifact:
        from reading.latency.artifact import ArtifactSubject

        found.append(ArtifactSubject(options.artifact, options.threads))
    return found, size


def describe(size: Size | None, latencies: Sequence[Latency], repeats: int) -> str:
    """The report as text."""
    lines = []
    if size is not None:
        lines.append(f"parameters  {size.parameters:,}")
        for cost in size.costs:
            text = "" if cost.what == "encoder" else f", {size.max_label_length} characters"
            lines.append(f"{cost.gflops:9.3f} GFLOPs ({cost.gmacs:.3f} G multiply-adds)  {cost.what}{text}")
    for axis, title in (("batch", "batch size"), ("length", "label length, one crop")):
        rows = [entry for entry in latencies if entry.against == axis]
        names = list(dict.fromkeys(entry.subject for entry in rows))
        lines.append(f"\nmilliseconds of a run (median of {repeats}) against {title}")
        values = sorted({entry.value for entry in rows})
        width = max(map(len, names), default=0)
        lines.append(f"{'':{width}} " + " ".join(f"{value:>9}" for value in values))
        for name in names:
            of = {entry.value: entry.ms for entry in rows if entry.subject == name}
            lines.append(f"{name:{width}} " + " ".join(f"{of[v]:9.2f}" if v in of else f"{'-':>9}" for v in values))
    return "\n".join(lines)


def run(args: argparse.Namespace, progress: Callable[[int, int], object] = lambda _done, _total: None) -> None:
    """Measure and report.

    Raises:
        ReaderError: What the options name cannot be used.
    """
    subjects, size = open_subjects(ReaderOptions.of(args))
    latencies = measure(subjects, args.batch, args.length, args.repeats, progress=progress)
    print(describe(size, latencies, args.repeats))
    if args.json:
        content = {
            "subjects": {subject.name: subject.about for subject in subjects},
            "parameters": size.parameters if size else None,
            "flops": [{**asdict(cost), "gmacs": cost.gmacs} for cost in size.costs] if size else [],
            "repeats": args.repeats,
            "latencies": [asdict(entry) for entry in latencies],
        }
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        draw_latencies(latencies, args.plot)


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0, or 2 for a wrong call or a model that cannot be used."""
    args = build_parser().parse_args(argv)
    if args.plot:
        import_module("matplotlib")  # where it is missing, that is told before everything is measured, not after
    try:
        with tqdm(unit="run", disable=None) as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            run(args, show)
    except ReaderError as error:
        print(f"parseq-benchmark: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"parseq-benchmark: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
