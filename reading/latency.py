"""Latencies of networks and artifacts, measured in turns."""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from artifact.metadata import INPUT_NAME
from export.gate.crops import SEED, crops_of_lengths, word_crops
from model.errors import ConfigError
from model.recognisers.parseq.network import PARSeq
from model.recognisers.parts.normalise import normalise
from reading.readers.artifact import ArtifactReader

Run = Callable[[], object]
Against = Literal["batch", "length"]


@dataclass(frozen=True, slots=True)
class Latency:
    """One measurement."""

    subject: str
    against: Against
    value: int
    """Crops of the batch, or characters of the label."""
    ms: float
    """Median of a run."""
    crops_per_s: float


class Runs(Protocol):
    """What can be measured."""

    name: str
    about: dict[str, object]
    """Versions and settings, for the report."""
    max_label_length: int

    def of_batch(self, size: int) -> Run:
        """A run of `size` drawn words."""

    def of_length(self, length: int) -> Run:
        """A run of one crop with a label of `length` characters."""


class NetworkRuns:
    """PyTorch. A label of L characters is L + 1 steps, whatever is read in the crop."""

    def __init__(self, network: PARSeq, name: str, args: argparse.Namespace) -> None:
        """Move the network to where it computes.

        Raises:
            ConfigError: there is no such device.
        """
        device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self.network = network.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"cannot compute on {device}: {str(error).splitlines()[0]}") from None
        config = network.config
        self.decode_ar = config.decode_ar if args.decode is None else args.decode == "ar"
        self.refine_iters = config.refine_iters if args.refine_iters is None else args.refine_iters
        self.name = f"PyTorch {name}"
        self.max_label_length = config.max_label_length
        self.device = torch.device(device)
        self.about = {
            "torch": torch.__version__,
            "device": device,
            "threads": torch.get_num_threads(),
            "decode": "ar" if self.decode_ar else "nar",
            "refine_iters": self.refine_iters,
        }

    def _run(self, pixels: NDArray[np.uint8], length: int | None) -> Run:
        images = torch.from_numpy(pixels).to(self.device)

        @torch.inference_mode()
        def run() -> None:
            logits = self.network(normalise(images), length, self.decode_ar, self.refine_iters)
            logits.softmax(-1).max(-1)
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        return run

    def of_batch(self, size: int) -> Run:
        """A run of `size` drawn words, which ends with the longest text."""
        config = self.network.config
        drawn = word_crops(config.img_size, config.charset_train, config.max_label_length, size, SEED)
        return self._run(np.stack([crop.pixels for crop in drawn]), None)

    def of_length(self, length: int) -> Run:
        """A run of one crop, of `length` + 1 steps."""
        config = self.network.config
        [crop] = word_crops(config.img_size, config.charset_train, config.max_label_length, 1, SEED)
        return self._run(crop.pixels[None], length)


class ArtifactRuns:
    """ONNX Runtime. The label is drawn on the crop; how long a run takes is the graph's affair (early exit or not)."""

    def __init__(self, path: Path, threads: int) -> None:
        """Open the artifact.

        Raises:
            ArtifactError: it cannot be used.
        """
        self.reader = ArtifactReader(path, threads)
        metadata = self.reader.metadata
        self.name = f"ONNX Runtime {path.name}"
        self.max_label_length = metadata.max_label_length
        self.size = metadata.image_height, metadata.image_width
        self.about = {
            "onnxruntime": onnxruntime.__version__,
            "device": "cpu",
            "threads": threads or "default",
            "decode": metadata.decode_mode,
            "refine_iters": metadata.refine_iters,
            "precision": metadata.precision,
            "early_exit": metadata.early_exit,
        }

    def _run(self, pixels: NDArray[np.uint8]) -> Run:
        return lambda: self.reader.session.run(None, {INPUT_NAME: pixels})

    def of_batch(self, size: int) -> Run:
        """A run of `size` drawn words."""
        drawn = word_crops(self.size, self.reader.charset, self.max_label_length, size, SEED)
        return self._run(np.stack([crop.pixels for crop in drawn]))

    def of_length(self, length: int) -> Run:
        """A run of one crop with a drawn text of `length` characters."""
        [crop] = crops_of_lengths(self.size, self.reader.charset, [length], np.random.default_rng(SEED))
        return self._run(crop.pixels[None])


def measure(
    subjects: Sequence[Runs],
    batches: Sequence[int],
    lengths: Sequence[int],
    repeats: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> list[Latency]:
    """Median latencies of interleaved runs.

    Args:
        subjects: what to measure.
        batches: batch sizes.
        lengths: label lengths; those beyond what a subject can say are left out.
        repeats: runs of each; one before them warms up.
        clock: seconds.
        progress: called with the runs done and in all.
    """
    runs: dict[tuple[str, Against, int], Run] = {}
    for subject in subjects:
        runs |= {(subject.name, "batch", size): subject.of_batch(size) for size in batches}
        usable = [length for length in lengths if length <= subject.max_label_length]
        runs |= {(subject.name, "length", length): subject.of_length(length) for length in usable}
    seconds: dict[tuple[str, Against, int], list[float]] = {key: [] for key in runs}
    order, shuffle = list(runs), random.Random(0).shuffle
    total = (repeats + 1) * len(order)
    for number in range(repeats + 1):
        shuffle(order)
        for done, key in enumerate(order, start=1):
            started = clock()
            runs[key]()
            if number:
                seconds[key].append(clock() - started)
            progress(number * len(order) + done, total)
    found = []
    for key, values in seconds.items():
        median = statistics.median(values)
        found.append(Latency(*key, 1e3 * median, (key[2] if key[1] == "batch" else 1) / median))
    return found
