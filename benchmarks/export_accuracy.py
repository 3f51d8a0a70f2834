"""Exported graphs of every mode and precision on labelled crops: accuracy, and how many texts equal PyTorch's.

python -m benchmarks.export_accuracy --model parseq-mini --data LMDB [--weights FILE] [--precision fp32 int8] [--json FILE]

Without `--mode` all of them: `ar` and `nar`, with 0, 1 and 2 refinements. Texts that differ although PyTorch's two best logits
were further apart than rounding can move them are counted as errors of the export; for fp32 there must be none. The exit code
is 1 if there are. Scores are for reporting: calibrate and choose on other crops.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from artifact.files import BUNDLED_MODEL
from artifact.metadata import CONFIDENCES_NAME, TOKEN_IDS_NAME, Precision
from artifact.session import open_cpu_session
from artifact.text import Reading, text_of
from export.gate.parity import TIE_MARGIN, run_artifact
from export.graphs.parseq.graph import GRAPH, ParseqOptions
from export.to_onnx import ExportOptions, build_artifact
from model.charsets import CHARSETS
from model.checkpoints.loading import load
from model.data.archives import find_lmdb
from model.data.crops import CropArrays, read_lmdb
from model.recognisers.parseq.config import NAMED
from model.recognisers.parseq.network import PARSeq
from reading.scores.metrics import score

BATCH = 32
ALL_MODES = [f"{decode}+{count}" for decode in ("ar", "nar") for count in (0, 1, 2)]


@dataclass(frozen=True, slots=True)
class Row:
    """One graph on one data set."""

    dataset: str
    mode: str
    precision: str
    crops: int
    accuracy: float
    """Per cent."""
    accuracy_of_pytorch: float
    equal: int
    """Texts that equal PyTorch's."""
    wrong: int
    """Other texts that are no near ties of float32."""


def texts(token_ids: NDArray[np.int64], charset: str) -> list[str]:
    """Token ids `(N, S)` as texts."""
    return [text_of(row, (), charset).text for row in token_ids.tolist()]


def accuracy(found: list[str], crops: CropArrays, charset: str) -> float:
    """Per cent of the crops read right, over the characters of `charset`."""
    return score("", [Reading(text, 1.0) for text in found], crops.labels, charset).accuracy


def evaluate(model: PARSeq, archive: Path, mode: str, precisions: list[Precision], args: argparse.Namespace) -> list[Row]:
    """All precisions of one mode on one archive."""
    config = model.config
    crops, _ = read_lmdb(archive, config.img_size, config.charset_train, config.max_label_length)
    way = ParseqOptions("ar" if mode.startswith("ar") else "nar", refine_iters=int(mode.partition("+")[2]))
    reference = GRAPH.reference(GRAPH.network_that_reads_so(model, way), crops.images)
    wanted = texts(reference.token_ids, config.charset_train)
    near_tie = reference.margins < TIE_MARGIN
    charset, rows = CHARSETS[args.charset], []
    for precision in precisions:
        reading = {"decode": way.decode, "refine_iters": way.refine_iters}
        options = ExportOptions("benchmark", "", reading, precision=precision, calibration=args.calibration)
        session = open_cpu_session(build_artifact(model, options).SerializeToString())
        parts = [run_artifact(session, crops.images[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
        assert np.concatenate([part[CONFIDENCES_NAME] for part in parts]).max() <= 1 + 1e-3
        found = texts(np.concatenate([part[TOKEN_IDS_NAME] for part in parts]), config.charset_train)
        same = np.array([a == b for a, b in zip(found, wanted, strict=True)])
        scores = (accuracy(found, crops, charset), accuracy(wanted, crops, charset))
        wrong = int((~same & ~near_tie).sum())
        rows.append(Row(archive.name, mode, precision, len(crops), *scores, int(same.sum()), wrong))
    return rows


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(NAMED), default=BUNDLED_MODEL)
    parser.add_argument("--weights", type=Path, help="weights file; without it the bundled or published ones")
    parser.add_argument("--data", type=Path, required=True, help="LMDB archive or a folder of them")
    parser.add_argument("--mode", nargs="+", choices=ALL_MODES, default=ALL_MODES)
    parser.add_argument("--precision", nargs="+", choices=get_args(Precision), default=["fp32"])
    parser.add_argument("--calibration", type=Path, action="append", default=[], help="crops for int8, as for parseq-export")
    parser.add_argument("--charset", choices=list(CHARSETS), default="36", help="characters that count (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    return parser.parse_args()


def main() -> int:
    """Entry point; the exit code."""
    args = parse_args()
    model = load(args.model, weights=args.weights) if args.weights else load(args.model, pretrained=True)
    plan = [(archive, mode) for archive in find_lmdb(args.data) for mode in args.mode]
    rows = [row for archive, mode in tqdm(plan, disable=None) for row in evaluate(model, archive, mode, args.precision, args)]
    print(f"{'data':14} {'mode':6} {'precision':9} {'crops':>6} {'accuracy':>9} {'PyTorch':>9} {'equal':>6} {'wrong':>6}")
    for row in rows:
        print(
            f"{row.dataset:14} {row.mode:6} {row.precision:9} {row.crops:6} {row.accuracy:9.2f} "
            f"{row.accuracy_of_pytorch:9.2f} {row.equal:6} {row.wrong:6}"
        )
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return int(any(row.wrong for row in rows if row.precision == "fp32"))


if __name__ == "__main__":
    sys.exit(main())
