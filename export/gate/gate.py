"""The gate that an artifact must pass before it is written: which crops are read, and what is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from artifact.allowed import Allowed
from artifact.metadata import Precision
from export.gate.agreement import AgreementReport, check_agreement, loop_difference, planned_readings
from export.gate.crops import GateCrop, parity_crops, restricted_crops, stacked, word_crops
from export.gate.parity import BATCH_SIZES, GateReport, batches, check_parity
from export.graphs.interface import Reference
from model.recognisers.interface import Config

AGREEMENT_CROPS: Final = 256
"""Drawn crops that a graph of another precision reads besides those of the parity gate."""
AGREEMENT_SEED: Final = 20220703
RESTRICTED_CROPS: Final = 32


@dataclass(frozen=True, slots=True)
class WrittenGraph:
    """A graph that is to be compared with its network."""

    artifact: bytes
    """The ONNX file."""
    precision: Precision
    read: Callable[[NDArray[np.uint8], Allowed | None], Reference]
    """Reads uint8 `(N, H, W, 3)` with the network; of each crop what bool `(N, characters)` allows."""
    read_unrounded: Callable[[NDArray[np.uint8], Allowed | None], Reference]
    """The same in float64."""
    unrounded: Callable[[], bytes]
    """Writes the same graph in float32."""
    written_out: Callable[[], bytes] | None
    """Writes the same graph without loops; None: the graph has no loops."""


def gate_crops(
    config: Config, precision: Precision, more: Sequence[GateCrop] = (), *, restricted: bool = False
) -> list[GateCrop]:
    """What a candidate reads: drawn crops and `more`; where it rounds, drawn words too.

    With `restricted` it reads the first ones of the drawn crops with a part of the charset as well, in company with others.
    """
    limits = (config.img_size, config.charset_train, config.max_label_length)
    crops = parity_crops(*limits)
    if restricted:
        some = crops[:RESTRICTED_CROPS]
        pairs = zip(some, restricted_crops(some, config.charset_train), strict=True)
        crops = [*(crop for pair in pairs for crop in pair), *crops[RESTRICTED_CROPS:]]
    crops = [*crops, *more]
    return crops if precision == "fp32" else [*crops, *word_crops(*limits, AGREEMENT_CROPS, AGREEMENT_SEED)]


def compare(candidate: WrittenGraph, crops: Sequence[GateCrop], progress: Callable[[int, int], object]) -> GateReport:
    """Compare a candidate with its network; the report says whether it may be written.

    Args:
        candidate: In float32 it must equal the network; if it rounds it must agree, and its structure is checked in float32.
        crops: What to read.
        progress: Called with the crops read so far and in all.
    """
    exact = candidate.precision == "fp32"
    plan = list(batches(len(crops), BATCH_SIZES))
    if not exact:
        plan += planned_readings(len(crops)) * (2 if candidate.written_out else 1)
    total, done = sum(len(chosen) for _, chosen in plan), 0

    def count(crops_read: int) -> None:
        nonlocal done
        done += crops_read
        progress(done, total)

    reference = candidate.read(*stacked(crops))
    if exact:
        return check_parity(candidate.artifact, reference, crops, unrounded=candidate.read_unrounded, progress=count)
    report = check_agreement(candidate.artifact, reference, crops, candidate.precision, progress=count)
    _check_structure(candidate, reference, crops, report, count)
    return report


def _check_structure(
    candidate: WrittenGraph,
    reference: Reference,
    crops: Sequence[GateCrop],
    report: AgreementReport,
    count: Callable[[int], object],
) -> None:
    """Note in the report a fault that rounding does not explain."""
    report_unrounded = check_parity(candidate.unrounded(), reference, crops, unrounded=candidate.read_unrounded, progress=count)
    if problem := report_unrounded.problem:
        report.structure_problem = f"without any rounding {problem}"
    elif candidate.written_out and (
        failure := loop_difference(candidate.artifact, candidate.written_out(), crops, progress=count)
    ):
        report.structure_problem = f"the early exit reads otherwise than every step written out: {failure}"
