"""Reading crops with a network in PyTorch, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from artifact.alternatives import MAX_ALTERNATIVES, read_with_alternatives
from artifact.fit import fit
from artifact.text import Reading
from model.checkpoints.choose import choose_network
from model.checkpoints.download import DownloadError
from model.checkpoints.loading import WeightsError, bundled_weights, load
from model.errors import ConfigError
from model.recognisers.interface import Network
from model.recognisers.parts.normalise import normalise
from model.recognisers.registry import DEFAULT_MODEL
from reading.readers.interface import Picture, ReaderError, allowed_row
from reading.readers.options import ReaderOptions

CANDIDATES: Final = MAX_ALTERNATIVES
"""Of each step: the n-th most probable text may have the n-th candidate of a step, and none after it."""


class NetworkReader:
    """Reads with a network in evaluation mode, on the network's device."""

    def __init__(self, network: Network, description: str, *, alternatives: int = 0, allowed: str | None = None) -> None:
        """Read with a network.

        Args:
            network: In evaluation mode.
            description: What it is, for reports.
            alternatives: How many texts each crop gets; 0: the one that was read.
            allowed: Which characters may be read, as `artifact.allowed` has it; `None`: all.

        Raises:
            ReaderError: The network does not have those characters, or gives no alternatives.
        """
        self.description = description
        self.charset = network.config.charset_train
        self.max_label_length = network.config.max_label_length
        self.refused = 0
        self._network = network
        self._alternatives = alternatives
        if alternatives and network.step_probabilities(torch.zeros(1, 1, len(self.charset) + 3)) is None:
            raise ReaderError(
                f"{network.config.RECOGNISER!r} has no candidates for the steps of a text: ask for no alternatives"
            )
        self._allowed = None if allowed is None else torch.from_numpy(allowed_row(allowed, self.charset))[None]

    def read(self, pictures: Sequence[Picture]) -> list[Reading]:
        """A reading for each picture, all of them as one batch."""
        pixels = np.stack([fit(picture.image, *self._network.config.img_size) for picture in pictures])
        if not self._alternatives and self._allowed is None:
            return next(read_batches(self._network, pixels, len(pixels)))
        return self._read_so(pixels)

    @torch.inference_mode()
    def _read_so(self, pixels: NDArray[np.uint8]) -> list[Reading]:
        """Read uint8 `(n, height, width, 3)` with alternatives, or with the characters that are allowed."""
        network = self._network
        device = next(network.parameters()).device
        allowed = None if self._allowed is None else self._allowed.to(device)
        logits = network.passes(normalise(torch.from_numpy(pixels).to(device)), allowed)[-1]
        if not self._alternatives:
            return _readings(network, logits)
        probabilities = network.step_probabilities(logits)
        assert probabilities is not None
        top, ids = probabilities.topk(min(CANDIDATES, probabilities.shape[-1]), -1)
        rows = zip(ids.tolist(), top.tolist(), strict=True)
        return [
            read_with_alternatives(
                [step[0] for step in of_ids], [step[0] for step in of_top], of_ids, of_top, self.charset, self._alternatives
            )
            for of_ids, of_top in rows
        ]

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
            yield _readings(network, logits)


def _readings(network: Network, logits: Tensor) -> list[Reading]:
    texts, probabilities = network.decode(logits)
    return [
        Reading(text, float(p.prod()), tuple(p[: len(text)].tolist())) for text, p in zip(texts, probabilities, strict=True)
    ]


def open_checkpoint(options: ReaderOptions) -> NetworkReader:
    """The checkpoint that the options name, as a reader.

    Raises:
        ReaderError: See `load_network`.
    """
    network, _ = load_network(options)
    description = str(options.weights or options.model or options.config or DEFAULT_MODEL)
    return NetworkReader(network, description, alternatives=options.alternatives, allowed=options.allowed)


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
