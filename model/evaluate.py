"""`parseq-evaluate`: accuracy, 1 - NED and confidence on archives of word crops.

Definitions are the reference implementation's: text and label are mapped onto the test charset; accuracy is the share of exact
matches; NED is the edit distance over the length of the longer; confidence is the product of the token probabilities.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rapidfuzz.distance import Levenshtein
from tqdm import tqdm

from model.charsets import CHARSETS, CharsetAdapter
from model.configs import ConfigError
from model.data import Crops, DataError, find_lmdb, read_lmdb, read_synthetic
from model.download import DownloadError
from model.loading import WeightsError
from model.options import add_network_options, load_network
from model.parseq import PARSeq
from model.reader import Reading, read_batches


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one data set. All but `crops` in per cent, `label_length` in characters."""

    dataset: str
    crops: int
    accuracy: float
    one_minus_ned: float
    confidence: float
    label_length: float


def score(dataset: str, readings: list[Reading], labels: list[str], charset: str) -> Score:
    """Score readings against labels, both mapped onto `charset`."""
    adapt = CharsetAdapter(charset)
    pairs = [(adapt(reading.text), adapt(label)) for reading, label in zip(readings, labels, strict=True)]
    count = len(pairs)
    return Score(
        dataset,
        count,
        accuracy=100 * sum(text == label for text, label in pairs) / count,
        one_minus_ned=100 * sum(Levenshtein.normalized_similarity(text, label) for text, label in pairs) / count,
        confidence=100 * sum(reading.confidence for reading in readings) / count,
        label_length=sum(len(label) for _, label in pairs) / count,
    )


def combine(scores: list[Score]) -> Score:
    """All data sets as one, weighted by their crops."""
    count = sum(score.crops for score in scores)

    def mean(name: str) -> float:
        return float(sum(getattr(score, name) * score.crops for score in scores) / count)

    names = ("accuracy", "one_minus_ned", "confidence", "label_length")
    return Score("combined", count, **{name: mean(name) for name in names})


def table(scores: list[Score]) -> str:
    """The scores as a text table."""
    width = max(len("dataset"), *(len(score.dataset) for score in scores))
    lines = [f"| {'dataset':<{width}} | crops | accuracy | 1 - NED | confidence | label length |"]
    lines.append(f"|:{'-' * width}-|------:|---------:|--------:|-----------:|-------------:|")
    lines += [
        f"| {s.dataset:<{width}} | {s.crops:5d} | {s.accuracy:8.2f} | {s.one_minus_ned:7.2f} | {s.confidence:10.2f} "
        f"| {s.label_length:12.2f} |"
        for s in scores
    ]
    return "\n".join(lines)


def tell(scores: list[Score], json_file: Path | None) -> None:
    """Print the table, and write the scores to `json_file` if there is one."""
    print(table(scores))
    if json_file:
        json_file.write_text(json.dumps([asdict(entry) for entry in scores], indent=1) + "\n", encoding="utf-8")


def data_sets(folder: Path, network: PARSeq, charset: str) -> list[tuple[str, Crops]]:
    """The LMDB archives at or below `folder`, or the shards of rendered crops in it."""
    if any(folder.glob("shard-*.npz")):
        return [(folder.name, read_synthetic(folder))]
    config = network.config
    found = []
    for archive in find_lmdb(folder):
        # The label length is no reason to leave a test crop out: a text too long for the network counts as an error.
        crops, left_out = read_lmdb(archive, config.img_size, charset, max_label_length=sys.maxsize)
        if left_out:
            print(f"{archive.name}: {left_out} crops left out (no character of the test charset, or broken)", file=sys.stderr)
        found.append((archive.name, crops))
    return found


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="parseq-evaluate", description=__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True, help="LMDB, folder of LMDBs or of shards; repeat")
    add_network_options(parser)
    parser.add_argument("--charset", choices=list(CHARSETS), default="36", help="test charset (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", type=Path, help="also write the scores to this file")
    return parser.parse_args(argv)


def evaluate(args: argparse.Namespace) -> list[Score]:
    """Score the network that `args` asks for on all data sets."""
    network = load_network(args)
    charset = CHARSETS[args.charset]
    scores = []
    for name, crops in (found for folder in args.data for found in data_sets(folder, network, charset)):
        readings: list[Reading] = []
        with tqdm(total=len(crops), desc=name, unit="crop") as bar:
            for batch in read_batches(network, crops.images, args.batch_size):
                readings += batch
                bar.update(len(batch))
        scores.append(score(name, readings, crops.labels, charset))
    return [*scores, combine(scores)] if len(scores) > 1 else scores


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    args = parse_args(argv)
    try:
        scores = evaluate(args)
    except (ConfigError, DataError, WeightsError, DownloadError) as error:
        print(f"parseq-evaluate: {error}", file=sys.stderr)
        return 2
    tell(scores, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
