"""`parseq-benchmark`: parameters, FLOPs, activations and latency of networks, a checkpoint or an artifact, side by side.

All runs take turns, in a new order every round, so that other load on the machine affects all alike; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tqdm import tqdm

from reading.latency.measure import Latency, Subject, measure
from reading.latency.plot import draw_latencies
from reading.readers.interface import ReaderError
from reading.readers.options import ReaderOptions, add_reader_options, positive

if TYPE_CHECKING:
    from reading.latency.cost import NetworkSize

BATCHES: Final = [1, 2, 4, 8, 16, 32]
LENGTHS: Final = [1, 5, 9, 13, 17, 21, 25]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="parseq-benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=positive, nargs="+", help="batch sizes (default: 1 2 4 8 16 32; of several networks 1)")
    parser.add_argument(
        "--length", type=positive, nargs="+", help="label lengths (default: 1 5 ... 25; of several networks none)"
    )
    parser.add_argument("--repeats", type=positive, default=20, help="runs of each, of which the median counts (%(default)s)")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw latencies")
    parser.add_argument("--all", action="store_true", help="all architectures with a name, one line each")
    add_reader_options(parser, several=True)
    return parser


def networks_of(args: argparse.Namespace) -> list[ReaderOptions]:
    """The options of the networks that the arguments name; empty if they name only an artifact.

    Raises:
        ReaderError: They contradict each other.
    """
    models = list(dict.fromkeys(args.model or []))
    options = ReaderOptions.of(args)
    if args.all:
        if models:
            raise ReaderError("give --all or --model, not both")
        from model.recognisers.registry import named_configs

        models = list(named_configs())
    for name in ("config", "weights"):
        if len(models) > 1 and getattr(options, name):
            raise ReaderError(f"--{name} is of one network: give one --model with it, or none")
    single = replace(options, model=models[0] if models else None)
    if options.artifact and not single.of_checkpoint:
        return []
    return [replace(options, model=name) for name in models] if models else [single]


def open_network(options: ReaderOptions, *, all_ways: bool) -> tuple[Subject, NetworkSize]:
    """A network to be measured, and what it costs by its size.

    Raises:
        ReaderError: What the options name cannot be used.
    """
    # Imported here, since an artifact needs no torch.
    from model.recognisers.registry import DEFAULT_MODEL
    from reading.latency.cost import size_of
    from reading.latency.network import NetworkSubject
    from reading.readers.checkpoint import load_network

    # Speed does not need weights.
    network, weights = load_network(options, fetch=False)
    named = options.config or options.weights
    name = options.model or (named.stem if named else DEFAULT_MODEL)
    subject = NetworkSubject(network, f"{name}{'' if weights else ' (fresh weights)'}")
    return subject, size_of(network, subject.name, all_ways=all_ways)


def open_subjects(args: argparse.Namespace) -> tuple[list[Subject], list[NetworkSize]]:
    """What is measured: the artifact alone if no network is named, else both; and the sizes of the networks.

    Raises:
        ReaderError: What the arguments name cannot be used.
    """
    named = networks_of(args)
    networks = [open_network(options, all_ways=len(named) == 1) for options in named]
    found, sizes = [subject for subject, _ in networks], [size for _, size in networks]
    if args.artifact:
        # Imported here, since a network needs no ONNX Runtime.
        from reading.latency.artifact import ArtifactSubject

        found.append(ArtifactSubject(args.artifact, args.threads))
    return found, sizes


def describe(sizes: Sequence[NetworkSize], latencies: Sequence[Latency], repeats: int) -> str:
    """The report as text."""
    if len(sizes) > 1:
        lines = compare(sizes, latencies, repeats)
    else:
        lines = [line for size in sizes for line in describe_one(size)]
        lines += tabulate(latencies, "batch", f"milliseconds of a run (median of {repeats}) against batch size")
    lines += tabulate(latencies, "length", f"milliseconds of a run (median of {repeats}) against label length, one crop")
    return "\n".join(lines)


def describe_one(size: NetworkSize) -> list[str]:
    """A network and its ways of reading."""
    lines = [f"parameters  {size.parameters:,}"]
    for cost in size.costs:
        text = "" if cost.what == "encoder" else f", {size.max_label_length} characters"
        lines.append(
            f"{cost.gflops:9.3f} GFLOPs ({cost.gmacs:.3f} G multiply-adds), "
            f"{cost.mactivations:.3f} M activations  {cost.what}{text}"
        )
    return lines


def tabulate(latencies: Sequence[Latency], against: str, title: str) -> list[str]:
    """A line for each subject, a column for each value."""
    rows = [entry for entry in latencies if entry.against == against]
    if not rows:
        return []
    names = list(dict.fromkeys(entry.subject for entry in rows))
    values = sorted({entry.value for entry in rows})
    width = max(map(len, names))
    lines = [f"\n{title}", f"{'':{width}} " + " ".join(f"{value:>9}" for value in values)]
    for name in names:
        of = {entry.value: entry.ms for entry in rows if entry.subject == name}
        lines.append(f"{name:{width}} " + " ".join(f"{of[v]:9.2f}" if v in of else f"{'-':>9}" for v in values))
    return lines


def compare(sizes: Sequence[NetworkSize], latencies: Sequence[Latency], repeats: int) -> list[str]:
    """The report as a table of networks, each reading its longest text; an artifact among them has latencies only."""
    rows = [entry for entry in latencies if entry.against == "batch"]
    names = list(dict.fromkeys(entry.subject for entry in rows))
    batches = sorted({entry.value for entry in rows})
    width = max(map(len, names))
    heads = ["M parameters", "GFLOPs", "G mult-adds", "M activations", *(f"ms, batch {size}" for size in batches)]
    lines = [f"of a reading of the longest text; milliseconds are medians of {repeats} runs"]
    lines.append(f"{'':{width}} " + " ".join(f"{head:>13}" for head in heads))
    by_name = {size.name: size for size in sizes}
    for name in names:
        cells = [f"{'-':>13}"] * 4
        if size := by_name.get(name):
            (cost,) = size.costs
            numbers = (size.parameters / 1e6, cost.gflops, cost.gmacs, cost.mactivations)
            cells = [f"{number:13.3f}" for number in numbers]
        ms = {entry.value: entry.ms for entry in rows if entry.subject == name}
        lines.append(f"{name:{width}} " + " ".join([*cells, *(f"{ms[batch]:13.2f}" for batch in batches)]))
    return lines


def as_json(size: NetworkSize) -> dict[str, Any]:
    """A network's size, for the file."""
    costs = [{**asdict(cost), "gmacs": cost.gmacs} for cost in size.costs]
    return {"name": size.name, "parameters": size.parameters, "flops": costs}


def run(args: argparse.Namespace, progress: Callable[[int, int], object] = lambda _done, _total: None) -> None:
    """Measure and report.

    Raises:
        ReaderError: What the options name cannot be used.
    """
    subjects, sizes = open_subjects(args)
    several = len(sizes) > 1
    batches = args.batch or (BATCHES[:1] if several else BATCHES)
    lengths = args.length or ([] if several else LENGTHS)
    latencies = measure(subjects, batches, lengths, args.repeats, progress=progress)
    print(describe(sizes, latencies, args.repeats))
    if args.json:
        networks = [as_json(size) for size in sizes]
        one = networks[0] if len(networks) == 1 else {}
        content = {
            "subjects": {subject.name: subject.about for subject in subjects},
            "parameters": one.get("parameters"),
            "flops": one.get("flops", []),
            "networks": networks,
            "repeats": args.repeats,
            "latencies": [asdict(entry) for entry in latencies],
        }
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        draw_latencies(latencies, args.plot)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 for a wrong call or a model that cannot be used."""
    args = build_parser().parse_args(argv)
    if args.plot:
        import_module("matplotlib")  # imported before anything is measured, so that a missing package is reported at once
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
