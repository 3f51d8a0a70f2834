"""A network in PyTorch, to be measured."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from export.gate.crops import SEED, word_crops
from model.recognisers.interface import Network
from model.recognisers.parts.normalise import normalise
from reading.latency.measure import Run


class NetworkSubject:
    """A network. Reading a label of L characters takes L + 1 steps, whatever the crop shows."""

    def __init__(self, network: Network, name: str) -> None:
        """Measure `network` on the device where it is."""
        self.network = network
        self.device = next(network.parameters()).device
        config = network.config
        self.name = f"PyTorch {name}"
        self.max_label_length = config.max_label_length
        self.about: dict[str, object] = {
            "torch": torch.__version__,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            **network.reads_by(),
        }

    def _run(self, pixels: NDArray[np.uint8], length: int | None) -> Run:
        images = torch.from_numpy(pixels).to(self.device)

        @torch.inference_mode()
        def run() -> None:
            self.network(normalise(images), length).softmax(-1).max(-1)
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        return run

    def of_batch(self, size: int) -> Run:
        """A run of `size` drawn words, which ends with the longest text."""
        return self._run(self._words(size), None)

    def of_length(self, length: int) -> Run:
        """A run of one crop, of `length` + 1 steps."""
        return self._run(self._words(1), length)

    def _words(self, count: int) -> NDArray[np.uint8]:
        config = self.network.config
        drawn = word_crops(config.img_size, config.charset_train, config.max_label_length, count, SEED)
        return np.stack([crop.pixels for crop in drawn])
