"""Reading crops with a network in PyTorch, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.fit import fit
from artifact.text import Reading
from model.checkpoints.choose import choose_network
from model.checkpoints.download import DownloadError
from model.checkpoints.loading import WeightsError, bundled_weights, load
from model.errors import ConfigError
from model.recognisers.interface import Network
from model.recognisers.parts.normalise import normalise
from model.recognisers.registry import DEFAULT_MODEL
from reading.readers.interface import Picture, ReaderError
from reading.readers.options import ReaderOptions


class NetworkReader:
    """Reads with a network in evaluation mode, on the network's device."""

    def __init__(self, network: Network, description: str) -> None:
        self.description = description
        self.charset = network.config.charset_train
        self.max_label_length = network.config.max_label_length
        self.refused = 0
        self._network = network

    def read(self, pictures: Sequence[Picture]) -> list[Reading]:
        """A reading for each picture, all of them as one batch."""
        pixels = np.stack([fit(picture.image, *self._network.config.img_size) for picture in pictures])
        return next(read_batches(self._network, pixels, len(pixels)))

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def read_batches(network: Network, images: NDArray[np.uint8], batch_size: int = 64) -> Iterator[list[Reading]]:
    """Read crops batch by batch.

    Args:
        network: In evaluation mode.
        images: uint8 `(n, height, width, 3)` of the network's size.
        batch_size: Crops at a time.
    """
    device = next(network.parameters()).device
    for start in range(0, len(images), batch_size):
        with torch.inference_mode():
            logits = network(normalise(torch.from_numpy(images[start : start + batch_size]).to(device)))
            texts, probabilities = network.decode(logits)
        yield [
            Reading(text, float(p.prod()), tuple(p[: len(text)].tolist())) for text, p in zip(texts, probabilities, strict=True)
        ]


def open_checkpoint(options: ReaderOptions) -> NetworkReader:
    """The checkpoint that the options name, as a reader.

    Raises:
        ReaderError: See `load_network`.
    """
    network, _ = load_network(options)
    return NetworkReader(network, str(options.weights or options.model or options.config or DEFAULT_MODEL))


def load_network(options: ReaderOptions, *, fetch: bool = True) -> tuple[Network, Path | None]:
    """The network that the options name, in evaluation mode and on the device they name. Also sets the number of threads.

    Args:
        options: Only those for checkpoints count.
        fetch: Whether weights that are published but not bundled are downloaded; else such a network has random weights.

    Returns:
        The network, and the file of its weights; None if they are random.

    Raises:
        ReaderError: There is no such network or device, or its weights cannot be obtained or do not fit.
    """
    name, weights = options.model, options.weights
    try:
        if fetch or options.config or weights:
            network, weights = choose_network(name, options.config, weights, DEFAULT_MODEL)
        else:
            weights = bundled_weights(name or DEFAULT_MODEL)
            network = load(name or DEFAULT_MODEL, weights=weights)
    except (ConfigError, DownloadError, WeightsError) as error:
        raise ReaderError(str(error)) from error
    except OSError as error:  # the cache folder for published weights
        raise ReaderError(f"cannot write {error.filename}: {error.strerror}") from error
    changes: dict[str, Any] = {}
    if options.decode:
        changes["decode_ar"] = options.decode == "ar"
    if options.refine_iters is not None:
        changes["refine_iters"] = options.refine_iters
    for name, option in (("decode_ar", "--decode"), ("refine_iters", "--refine-iters")):
        if name in changes and name not in network.config.__dataclass_fields__:
            raise ReaderError(f"{option} is no option of {network.config.RECOGNISER!r}: leave it out")
    network.config = replace(network.config, **changes)
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return network.to(device), weights
    except (RuntimeError, AssertionError) as error:  # torch's errors for a device that is missing or does not exist
        raise ReaderError(f"cannot compute on {device}: {str(error).splitlines()[0]}") from None
