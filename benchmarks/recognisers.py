"""What each network of the hub costs beside the others: parameters, operations, and the time of its exported graph.

python -m benchmarks.recognisers [--model NAME] [--precision fp32] [--batch 1 8] [--threads 1] [--rounds 9]

Weights are those that training would begin with: what they read means nothing, and texts hardly ever end, so that a network
that reads character by character does all its steps. The graphs of a precision take turns, one run each, in a new order every
round, so that whatever else the machine does falls on all alike. Times are medians, ratios medians of those to the first
network's run of the same round.
"""

from __future__ import annotations

import argparse
import functools
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from artifact.metadata import INPUT_NAME, Precision
from artifact.session import open_cpu_session
from export.gate.calibrate import observe_ranges
from export.gate.crop_sources import calibration_crops
from export.graphs.interface import graph_of
from export.to_onnx import Ranges, new_builder
from model.recognisers.registry import named_config, named_configs, recogniser_of
from reading.latency.cost import NetworkSize, size_of

MB = 1e6
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True)
class Contender:
    """A network as an open graph."""

    size: NetworkSize
    n_bytes: int
    session: onnxruntime.InferenceSession
    crops: NDArray[np.uint8]
    """`(N, H, W, 3)`, drawn words."""

    def run_s(self, batch: int) -> float:
        """Seconds of a run."""
        crops = self.crops[:batch]
        started_s = time.perf_counter()
        self.session.run(None, {INPUT_NAME: crops})
        return time.perf_counter() - started_s


@functools.cache
def named_size(name: str) -> NetworkSize:
    """Of a named network in its usual way of reading, whatever the precision: to count takes longer than to write its graph."""
    config = named_config(name)
    return size_of(recogniser_of(config).build_network(config), name, all_ways=False)


def contender(name: str, precision: Precision, threads: int) -> Contender:
    """A named network in its usual way of reading."""
    config = named_config(name)
    network = recogniser_of(config).build_network(config).eval()
    graph = graph_of(network)
    crops, _ = calibration_crops((), config)
    ranges: Ranges = {}
    if precision == "int8":
        written_out = graph.written_out(graph.options(network, {}, "fp32"))
        ranges = observe_ranges(lambda builder: graph.write(builder, network, written_out), crops)
    builder = new_builder(precision, ranges)
    graph.write(builder, network, graph.options(network, {}, precision))
    content = builder.model(name, {}, "0").SerializeToString()
    return Contender(named_size(name), len(content), open_cpu_session(content, threads=threads), crops)


def measure(contenders: Sequence[Contender], batch: int, rounds: int) -> list[list[float]]:
    """Seconds of each round, by contender."""
    found: list[list[float]] = [[] for _ in contenders]
    order, shuffle = list(range(len(contenders))), random.Random(batch).shuffle
    for number in tqdm(range(rounds + 1), desc=f"batches of {batch}", file=sys.stderr):
        shuffle(order)
        for index in order:
            seconds = contenders[index].run_s(batch)
            if number:  # the first round warms up
                found[index].append(seconds)
    return found


def main() -> int:
    """Print a table for each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="network by name; repeat (default: all); ratios are to the first")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["fp32"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", type=int, default=1, help="of a run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="runs of each (default: %(default)s)")
    args = parser.parse_args()
    names = args.model or ["parseq-tiny", *(name for name in named_configs() if name != "parseq-tiny")]
    for precision in args.precision:
        contenders = [contender(name, precision, args.threads) for name in tqdm(names, desc="writing graphs", file=sys.stderr)]
        times = {batch: measure(contenders, batch, args.rounds) for batch in args.batch}
        print(f"\n{precision}, {args.threads} threads\n")
        columns = [f"ms a crop, batch {batch} | ratio" for batch in args.batch]
        print(f"| network | million parameters | GFLOPs | million activations | file MB | {' | '.join(columns)} |")
        print("| --- " * (5 + 2 * len(columns)) + "|")
        for index, each in enumerate(contenders):
            cost = each.size.costs[0]
            cells = [each.size.name, f"{each.size.parameters / 1e6:.2f}", f"{cost.gflops:.2f}", f"{cost.mactivations:.2f}"]
            cells.append(f"{each.n_bytes / MB:.1f}")
            for batch, found in times.items():
                ratio = statistics.median(one / first for one, first in zip(found[index], found[0], strict=True))
                cells += [f"{1000 * statistics.median(found[index]) / batch:.1f}", f"{ratio:.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
