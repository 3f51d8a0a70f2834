"""What decoding costs beside the encoder: exported graphs of every mode and precision, and PyTorch as it stands.

python -m benchmarks.export_cost --model parseq-tiny [--weights FILE] [--json FILE]

The graphs of a precision take turns with the float32 encoder, one run each and in a new order every round, so that whatever
else the machine does, and whatever a run leaves behind in caches and threads, falls on all alike. The figures are medians
of a run, the ratios those to the encoder's runs of the same turns (of PyTorch, which runs last and alone: of the turns before).
All precisions in one round would fight for the cache, while a service holds one graph.

`ar` and `ar+1` are graphs with an early exit (`parseq-export --early-exit`), as is PyTorch's reading: they end with the longest
text of a batch. So every round reads other crops: drawn texts of the lengths that the words of ICDAR 2015's training set have.
Of `ar, unrolled` all steps are written out. Without weights (bundled ones, or --weights) a network has those it would begin
training with; its texts hardly ever end, and an early exit saves nothing. The last line tells how long the texts were.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from artifact.files import BUNDLED_MODEL
from artifact.metadata import INPUT_NAME, Precision
from export.gate.calibrate import observe_ranges
from export.gate.crop_sources import calibration_crops
from export.gate.crops import crops_of_lengths
from export.graphs.builder import GraphBuilder
from export.graphs.parseq.graph import GRAPH, ParseqOptions, write_encoder_graph
from export.to_onnx import Ranges, new_builder
from model.checkpoints.loading import bundled_weights, load
from model.recognisers.parseq.config import NAMED
from model.recognisers.parseq.network import PARSeq
from model.recognisers.parts.normalise import normalise

MODES = {
    "nar": ParseqOptions("nar", 0),
    "ar": ParseqOptions("ar", 0, early_exit=True),
    "ar+1": ParseqOptions("ar", 1, early_exit=True),
}
UNROLLED = ", unrolled"
CROPS = 512
LENGTHS = {3: 198, 4: 255, 5: 158, 6: 131, 7: 109, 8: 66, 9: 40, 10: 23, 11: 11, 12: 5, 13: 3, 14: 1}
"""Characters of a word and how many of a thousand words have them: ICDAR 2015, challenge 4.3, training set."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
EAGER = "pytorch"
YARDSTICK = ("encoder", "fp32")
PAUSE_S = 0.5

Run = Callable[[NDArray[np.uint8]], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    mode: str
    precision: str
    batch: int
    ms: float
    ratio_to_encoder: float
    """To the float32 graph of the encoder alone, at the same batch."""


def onnx_runs(model: PARSeq, precisions: list[Precision], threads: int) -> list[dict[tuple[str, str], Run]]:
    """Sessions for every mode and precision, in groups that take turns; each has the yardstick."""
    ranges: Ranges = {}
    if "int8" in precisions:
        pixels, _ = calibration_crops((), model.config)
        ranges = observe_ranges(lambda builder: GRAPH.write(builder, model, ParseqOptions("ar", 1)), pixels)
    encoder = session_run(write_encoder_graph(model), threads)
    groups: list[dict[tuple[str, str], Run]] = []
    for precision in precisions:
        runs, written_out = {YARDSTICK: encoder}, {YARDSTICK: encoder}
        if precision != YARDSTICK[1]:
            runs["encoder", precision] = session_run(write_encoder_graph(model, new_builder(precision, ranges)), threads)
        for mode, how in MODES.items():
            GRAPH.write(graph := new_builder(precision, ranges), model, how)
            runs[mode, precision] = session_run(graph, threads)
            if how.early_exit:
                GRAPH.write(unrolled := new_builder(precision, ranges), model, GRAPH.written_out(how))
                written_out[mode + UNROLLED, precision] = session_run(unrolled, threads)
        groups += [runs, written_out]
    return groups


def session_run(graph: GraphBuilder, threads: int) -> Run:
    """Runs a graph with ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # A session that spins while it waits would take the next one's cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    content = graph.model("benchmark", {}, "0").SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {INPUT_NAME: pixels})


def torch_runs(model: PARSeq) -> dict[tuple[str, str], Run]:
    """The network itself: the encoder, and every mode."""

    @torch.inference_mode()
    def encode(pixels: NDArray[np.uint8]) -> object:
        return model.encode(normalise(torch.from_numpy(pixels)))

    def read(how: ParseqOptions) -> Run:
        @torch.inference_mode()
        def run(pixels: NDArray[np.uint8]) -> object:
            return model(normalise(torch.from_numpy(pixels)), None, how.decode == "ar", how.refine_iters).softmax(-1).max(-1)

        return run

    return {("encoder", EAGER): encode, **{(mode, EAGER): read(how) for mode, how in MODES.items()}}


def measure(
    runs: dict[tuple[str, str], Run], crops: NDArray[np.uint8], batch: int, rounds: int, clock: Callable[[], float]
) -> dict[tuple[str, str], float]:
    """Median seconds of interleaved runs at one batch size."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    order, shuffle = list(runs.items()), random.Random(0).shuffle
    choice = np.random.default_rng(batch)
    for number in range(rounds + 1):
        pixels = crops[choice.integers(0, len(crops), batch)]
        shuffle(order)
        for key, run in order:
            started = clock()
            run(pixels)
            # The first round warms up.
            if number:
                seconds[key].append(clock() - started)
    return {key: statistics.median(values) for key, values in seconds.items()}


def drawn_crops(model: PARSeq) -> NDArray[np.uint8]:
    """Crops to read, uint8 `(N, H, W, 3)`."""
    rng = np.random.default_rng(0)
    weights = np.array(list(LENGTHS.values()), dtype=np.float64)
    lengths = np.minimum(rng.choice(list(LENGTHS), CROPS, p=weights / weights.sum()), model.config.max_label_length)
    drawn = crops_of_lengths(model.config.img_size, model.config.charset_train, lengths.tolist(), rng)
    return np.stack([crop.pixels for crop in drawn])


@torch.inference_mode()
def mean_length(model: PARSeq, pixels: NDArray[np.uint8]) -> float:
    """Characters of a text, in the mean."""
    ended = (model(normalise(torch.from_numpy(pixels)), None, True, 0).argmax(-1) == model.tokenizer.eos_id).long()
    lengths = torch.where(ended.any(1), ended.argmax(1), ended.shape[1] - 1)
    return float(lengths.double().mean())


def table(rows: list[Row]) -> str:
    """Milliseconds of a run, and in brackets its ratio to the encoder; one line per mode and precision."""
    batches = sorted({row.batch for row in rows})
    cells = {(row.mode, row.precision, row.batch): f"{row.ms:9.2f} ({row.ratio_to_encoder:5.2f})" for row in rows}
    lines = [f"{'mode':14} {'precision':9} " + " ".join(f"{f'batch {batch}':>17}" for batch in batches)]
    for mode, precision in dict.fromkeys((row.mode, row.precision) for row in rows):
        lines.append(f"{mode:14} {precision:9} " + " ".join(cells[mode, precision, batch] for batch in batches))
    return "\n".join(lines)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(NAMED), default=BUNDLED_MODEL)
    parser.add_argument("--weights", type=Path, help="weights file; without it bundled or freshly initialised ones")
    parser.add_argument("--threads", type=int, default=2, help="threads of one run (default: %(default)s)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32], help="batch sizes (default: 1 8 32)")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="fp32 is always measured")
    parser.add_argument("--rounds", type=int, default=30, help="runs of each at batch 1, fewer at larger ones")
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time instead of time on the clock, for busy machines"
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    return parser.parse_args()


def main() -> int:
    """Entry point; the exit code."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    weights = args.weights or bundled_weights(args.model)
    model = load(args.model, weights=weights) if weights else PARSeq(NAMED[args.model]).eval()
    crops = drawn_crops(model)
    groups = onnx_runs(model, list(dict.fromkeys(["fp32", *args.precision])), args.threads)
    # Last and by itself: PyTorch's threads go on spinning for a while, and the next to run pays for it.
    groups.append(torch_runs(model))
    clock = time.process_time if args.cpu_time else time.perf_counter
    rows: list[Row] = []
    for batch in tqdm(args.batch, unit="batch size", disable=None):
        found: dict[tuple[str, str], Row] = {}
        yardstick_s = math.nan
        for runs in groups:
            medians = measure(runs, crops, batch, max(5, round(args.rounds / batch**0.5)), clock)
            yardstick_s = medians.get(YARDSTICK, yardstick_s)
            for key, s in medians.items():
                found.setdefault(key, Row(*key, batch, round(s * 1e3, 3), round(s / yardstick_s, 3)))
            time.sleep(PAUSE_S)
        rows += found.values()
    print(f"{args.model}, {args.threads} threads, ms a run (ratio to the fp32 encoder)")
    print(table(rows))
    print(f"texts read have {mean_length(model, crops[:64]):.1f} characters in the mean")
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
