"""`parseq-benchmark`: parameters, FLOPs, and latency against batch size and label length, of a checkpoint and an artifact.

All runs take turns, in a new order every round, so that whatever else the machine does falls on all alike; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from artifact.metadata import ArtifactError
from model.checkpoints.download import DownloadError
from model.checkpoints.loading import WeightsError, bundled_weights, load
from model.cost import Cost, costs, parameters
from model.errors import ConfigError
from model.options import add_network_options, positive
from model.recognisers.parseq.network import PARSeq
from model.recognisers.registry import read_config
from reading.latency import ArtifactRuns, Latency, NetworkRuns, Runs, measure
from reading.latency_plot import draw_latencies
from reading.readers.options import OF_CHECKPOINTS, add_artifact_option

BATCHES = [1, 2, 4, 8, 16, 32]
LENGTHS = [1, 5, 9, 13, 17, 21, 25]


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
    add_network_options(parser)
    add_artifact_option(parser)
    return parser


def load_any(args: argparse.Namespace) -> tuple[PARSeq, str]:
    """The network of the options and what it is. Speed does not need weights: without a file, bundled or fresh ones.

    Raises:
        ConfigError, WeightsError: see `model.checkpoints.loading.load`.
    """
    config = read_config(args.config) if args.config else None
    name = args.model or (None if config or args.weights else "parseq-nano")
    weights = args.weights or (bundled_weights(name.replace("_", "-")) if name and not config else None)
    network = load(name, config=config, weights=weights)
    assert isinstance(network, PARSeq)
    return network, f"{name or (args.config or args.weights).stem}{'' if weights else ' (fresh weights)'}"


def subjects(args: argparse.Namespace) -> tuple[list[Runs], PARSeq | None]:
    """What is measured: the artifact alone where nothing names a checkpoint, else both; and the network if there is one."""
    network, found = None, list[Runs]()
    if not args.artifact or any(getattr(args, name) is not None for name in OF_CHECKPOINTS):
        network, name = load_any(args)
        found.append(NetworkRuns(network, name, args))
    if args.artifact:
        found.append(ArtifactRuns(args.artifact, args.threads))
    return found, network


def describe(network: PARSeq | None, found: list[Cost], latencies: list[Latency], repeats: int) -> str:
    """The report as text."""
    lines = []
    if network is not None:
        lines.append(f"parameters  {parameters(network):,}")
        longest = network.config.max_label_length
        for cost in found:
            text = "" if cost.what == "encoder" else f", {longest} characters"
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
        ArtifactError, ConfigError, WeightsError: what the options name cannot be used.
    """
    measured, network = subjects(args)
    found = costs(network) if network is not None else []
    latencies = measure(measured, args.batch, args.length, args.repeats, progress=progress)
    print(describe(network, found, latencies, args.repeats))
    if args.json:
        content = {
            "subjects": {subject.name: subject.about for subject in measured},
            "parameters": parameters(network) if network is not None else None,
            "flops": [{**asdict(cost), "gmacs": cost.gmacs} for cost in found],
            "repeats": args.repeats,
            "latencies": [asdict(entry) for entry in latencies],
        }
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        draw_latencies(latencies, args.plot)


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0, or 2 for a wrong call or a model that cannot be used."""
    args = build_parser().parse_args(argv)
    if args.threads > 0:
        torch.set_num_threads(args.threads)
    from tqdm import tqdm

    try:
        with tqdm(unit="run", disable=None) as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            run(args, show)
    except (ArtifactError, ConfigError, WeightsError, DownloadError) as error:
        print(f"parseq-benchmark: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"parseq-benchmark: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
