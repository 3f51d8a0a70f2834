"""What candidates and an input for the allowed characters cost a graph, in runs beside each other.

Two artifacts of the same weights are run in turn, one without and one with both: as usual, with the candidates fetched, with
every character allowed, and with digits only. Told is the median of the ratios to the run of the plain artifact in the same
round; that of a second plain run is the noise.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from artifact.allowed import entries_of
from artifact.metadata import (
    ALLOWED_NAME,
    CONFIDENCES_NAME,
    INPUT_NAME,
    TOKEN_IDS_NAME,
    TOP_CONFIDENCES_NAME,
    TOP_IDS_NAME,
    ArtifactMetadata,
)
from artifact.session import open_cpu_session
from export.gate.crops import SEED, word_crops


def ways_of(plain: Path, able: Path, batch: int) -> dict[str, Callable[[], Any]]:
    """What is run, by name; the plain artifact comes first and last."""
    sessions = [open_cpu_session(path, threads=1) for path in (plain, able)]
    metadata = ArtifactMetadata.from_map(sessions[1].get_modelmeta().custom_metadata_map)
    size = (metadata.image_height, metadata.image_width)
    drawn = word_crops(size, metadata.charset, metadata.max_label_length, batch, SEED)
    usual = [TOKEN_IDS_NAME, CONFIDENCES_NAME]
    feed = {INPUT_NAME: np.stack([crop.pixels for crop in drawn])}
    ways = {"plain": lambda: sessions[0].run(usual, feed), "unused": lambda: sessions[1].run(usual, feed)}
    if metadata.top_count:
        ways["candidates"] = lambda: sessions[1].run([*usual, TOP_IDS_NAME, TOP_CONFIDENCES_NAME], feed)
    if metadata.has_allowed:
        every = np.ones((batch, len(metadata.vocabulary)), np.bool_)
        digits = np.repeat(entries_of("digits", metadata.vocabulary)[None], batch, 0)
        ways["all allowed"] = lambda: sessions[1].run(usual, {**feed, ALLOWED_NAME: every})
        ways["digits"] = lambda: sessions[1].run(usual, {**feed, ALLOWED_NAME: digits})
    return {**ways, "plain again": ways["plain"]}


def measure(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median ratio of each way to the first."""
    for way in ways.values():
        way()
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        first_s = 0.0
        for name, way in ways.items():
            started_s = time.process_time()
            way()
            took_s = time.process_time() - started_s
            first_s = first_s or took_s
            ratios[name].append(took_s / first_s)
    return {name: statistics.median(found) for name, found in ratios.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plain", type=Path, help="artifact without candidates and without the input")
    parser.add_argument("able", type=Path, help="artifact of the same weights with both")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rounds", type=int, default=300)
    args = parser.parse_args(argv)
    for batch in args.batch:
        found = measure(ways_of(args.plain, args.able, batch), args.rounds)
        print(f"batch {batch:<3}", ", ".join(f"{name} {ratio:.4f}" for name, ratio in found.items()))


if __name__ == "__main__":
    main()
