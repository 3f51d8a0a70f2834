"""The bare session: ONNX Runtime as it comes, without a service around it. What everything else is measured against."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from artifact.metadata import INPUT_NAME, ArtifactMetadata
from service.sessions.providers import CHAINS, GPU_PROVIDERS, ORT_NAMES

BATCHES = (1, 8, 32)


@dataclass(frozen=True, slots=True)
class Topology:
    """How the cores are used: runs in flight at once, threads of each, crops in each."""

    runs: int
    threads: int
    batch: int

    def __str__(self) -> str:
        return f"{self.runs} runs x {self.threads} threads x {self.batch} crops"


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast, and at what cost."""

    crops_per_s: float
    crops_per_cpu_s: float


class BareModel:
    """Sessions of one artifact.

    Args:
        artifact: The file.
        cores: Threads of the wide session, and runs at once of the narrow one.
        provider: What runs it, as the service calls it.
    """

    def __init__(self, artifact: Path, cores: int, provider: str = "cpu") -> None:
        self._cores = cores
        self._sessions = {threads: _session(artifact, threads, provider) for threads in {1, cores}}
        self.metadata = ArtifactMetadata.from_map(self._sessions[1].get_modelmeta().custom_metadata_map)
        shape = (max(BATCHES), self.metadata.image_height, self.metadata.image_width, 3)
        self._crops = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def wide(self, batch: int) -> Topology:
        """One run with a thread for each core."""
        return Topology(1, self._cores, batch)

    def candidates(self) -> list[Topology]:
        """Where the best is looked for: one wide run, or a narrow one for each core, at every batch size."""
        return list({shape: None for batch in BATCHES for shape in (self.wide(batch), Topology(self._cores, 1, batch))})

    def best(self, seconds: float) -> Topology:
        """The candidate that reads most crops a second, after two rounds of `seconds` for each."""
        rates = dict.fromkeys(self.candidates(), 0.0)
        for _ in range(2):
            for topology in rates:
                rates[topology] += self.measure(topology, seconds).crops_per_s
        return max(rates, key=lambda topology: rates[topology])

    def measure(self, topology: Topology, seconds: float) -> Pace:
        """Run without a pause for about `seconds`, after one run that does not count; no run is cut off."""
        self._loop(topology, 0)
        cpu_started_s = time.process_time()
        with ThreadPoolExecutor(topology.runs) as pool:
            done = list(pool.map(lambda _: self._loop(topology, seconds), range(topology.runs)))
        crops = sum(n_crops for n_crops, _ in done)
        rate = sum(n_crops / elapsed_s for n_crops, elapsed_s in done)
        return Pace(rate, crops / max(time.process_time() - cpu_started_s, 1e-9))

    def _loop(self, topology: Topology, seconds: float) -> tuple[int, float]:
        """Crops read and seconds taken by one sequence of runs."""
        session, crops = self._sessions[topology.threads], self._crops[: topology.batch]
        started_s = time.monotonic()
        n_crops = 0
        while True:
            session.run(None, {INPUT_NAME: crops})
            n_crops += topology.batch
            elapsed_s = time.monotonic() - started_s
            if elapsed_s >= seconds:
                return n_crops, elapsed_s


def _session(artifact: Path, threads: int, provider: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if provider in GPU_PROVIDERS:
        onnxruntime.preload_dlls()  # what the extra `gpu` has installed
    return onnxruntime.InferenceSession(str(artifact), options, providers=[ORT_NAMES[name] for name in CHAINS[provider]])
