"""The parity gate: an artifact is written only if ONNX Runtime reads with it what PyTorch reads with the network.

Text and confidences are compared on drawn crops of every length, at several batch sizes and in different batches. Only steps
that carry meaning are compared: those up to and including the end token. The recogniser gives what PyTorch reads and how close
its decisions were (`export.graphs.interface.Reference`); this module knows no recogniser.

Near ties. Two runtimes add the same numbers in different order, so their logits differ in the sixth digit. Where PyTorch's two
best logits are closer than `TIE_MARGIN` either character is a right answer, and in autoregressive reading everything after it
may differ. A crop with such a step, in any pass, is a near tie: it is counted, and its text may differ. The texts of all other
crops must be equal, and a NaN is refused in any crop. Weights that enlarge rounding, as untrained ones may, need no such step:
a crop that reads differently is a near tie too if the network reads it otherwise in float64 than in float32, or if the graph
is no further from the reading in float64 than the tolerance and `ROUNDING_FACTOR` times the network's own rounding together. So
that near ties hide no fault, a graph is refused too if more than `MAX_DIFFERING` of the crops are near ties that differ, or
more than `MAX_NEAR_TIES` are near ties: then the comparison would say little.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from artifact.allowed import Allowed
from artifact.metadata import (
    ALLOWED_NAME,
    CONFIDENCES_NAME,
    INPUT_NAME,
    LOGITS_NAME,
    TOKEN_IDS_NAME,
    TOP_CONFIDENCES_NAME,
    TOP_IDS_NAME,
)
from artifact.session import open_cpu_session
from export.gate.crops import SEED, GateCrop, stacked
from export.graphs.interface import Floats, Ids, Reference

BATCH_SIZES: Final = (1, 2, 3, 8, 32)
LOGIT_TOLERANCE: Final = 1e-3
"""Largest difference of a logit, if the artifact gives logits. Rounding alone made 1e-5 to 5e-5."""
CONFIDENCE_TOLERANCE: Final = 1e-3
"""Largest difference of a token's probability."""
TIE_MARGIN: Final = 2e-4
"""Rounding may change the order of two logits closer than this, which is several times the rounding errors observed."""
MAX_NEAR_TIES: Final = 0.5
"""Largest share of crops that may be near ties."""
MAX_DIFFERING: Final = 0.1
"""Largest share of crops that may be near ties with another text."""
ROUNDING_FACTOR: Final = 3
"""How many times as much as the network on a crop a graph may round there."""
MAX_REPORTED: Final = 5


@dataclass(frozen=True, slots=True)
class Failure:
    """One crop that was read differently."""

    crop: str
    batch_size: int
    step: int
    """The first step that differs, counted from 0."""
    reason: str

    def __str__(self) -> str:
        """One line."""
        return f"crop {self.crop}, batch size {self.batch_size}, step {self.step}: {self.reason}"


@dataclass(kw_only=True)
class GateReport(ABC):
    """What a gate has found. It is stored in the artifact as JSON."""

    compared_with: str = "PyTorch"
    """What gave the reference that the artifact must equal."""
    crops: int
    batch_sizes: list[int]
    comparisons: int = 0
    """Number of readings compared: crops times batch sizes and batches."""
    near_ties: int = 0
    """Crops on which the reference hardly decides."""
    near_ties_differing: int = 0
    """Near ties that were read differently."""
    provider: str = "CPUExecutionProvider"
    torch_version: str = torch.__version__
    onnxruntime_version: str = onnxruntime.__version__
    failures: list[Failure] = field(default_factory=list)
    """Crops that were read differently; not all of them."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @property
    @abstractmethod
    def problem(self) -> str | None:
        """Why the artifact must not be written, in one sentence; None if it may."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """What was found, for people."""


@dataclass(kw_only=True)
class ParityReport(GateReport):
    """What the parity gate saw."""

    max_confidence_difference: float = 0.0
    max_logit_difference: float | None = None
    """None for artifacts that give no logits."""

    @property
    def problem(self) -> str | None:
        """Why the artifact must not be written, in one sentence; None if it may."""
        if self.failures:
            more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            return f"the exported graph does not read as {self.compared_with} does: {self.failures[0]}{more}"
        if self.near_ties > MAX_NEAR_TIES * self.crops:
            return (
                f"{self.compared_with} itself is undecided (two best logits within {TIE_MARGIN:g}) on {self.near_ties} of "
                f"{self.crops} crops, so nothing can be compared: are the weights trained?"
            )
        if self.near_ties_differing > MAX_DIFFERING * self.crops:
            return f"{self.near_ties_differing} of {self.crops} crops are near ties that read differently"
        return None

    @property
    def summary(self) -> str:
        """What was found, for people."""
        sizes = ", ".join(map(str, self.batch_sizes))
        return (
            f"{self.comparisons} readings of {self.crops} crops at batch {sizes}: text equal to {self.compared_with}'s, "
            f"confidences within {self.max_confidence_difference:.1e}; {self.near_ties} near ties"
            + (f", {self.near_ties_differing} of them differ" if self.near_ties_differing else "")
        )


class ParityError(RuntimeError):
    """The exported graph does not read as PyTorch does; nothing was written."""

    def __init__(self, report: GateReport) -> None:
        """Carry the whole report along with its summary."""
        super().__init__(report.problem)
        self.report = report


def check_parity(
    artifact: bytes,
    reference: Reference,
    crops: Sequence[GateCrop],
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    compared_with: str = "PyTorch",
    tolerance: float = CONFIDENCE_TOLERANCE,
    unrounded: Callable[[NDArray[np.uint8], Allowed | None], Reference] | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> ParityReport:
    """Compare an artifact with the network. The report says whether it passed: see `ParityReport.problem`.

    Args:
        artifact: The serialised ONNX file.
        reference: What the network reads on the crops.
        crops: What to read.
        batch_sizes: Batches to form; each size above 1 twice, in order and shuffled.
        compared_with: What gave the reference, for the report.
        tolerance: Largest difference of a token's probability.
        unrounded: Reads crops as the reference was read, but in float64; called only for crops that read differently.
        progress: Called with the number of crops after every batch.
    """
    near_tie = reference.margins < TIE_MARGIN
    report = ParityReport(
        compared_with=compared_with, crops=len(crops), batch_sizes=list(batch_sizes), near_ties=int(near_tie.sum())
    )
    session = open_cpu_session(artifact)
    differing: set[int] = set()
    failures: list[tuple[int, Failure]] = []
    readings: dict[int, list[dict[str, NDArray[Any]]]] = {}
    broken = False
    for batch_size, chosen in batches(len(crops), batch_sizes):
        outputs = run_artifact(session, *stacked([crops[crop] for crop in chosen]))
        for row, crop in enumerate(chosen.tolist()):
            failure = no_number(outputs, row)
            excused = failure is None and near_tie[crop]
            broken = broken or failure is not None
            failure = failure or _compare(reference, crop, crops[crop].allowed, outputs, row, report, tolerance)
            if failure is not None and excused:
                differing.add(crop)
            elif failure is not None:
                failures.append((crop, Failure(crops[crop].description, batch_size, *failure)))
                readings.setdefault(crop, []).append({name: values[row : row + 1] for name, values in outputs.items()})
        report.comparisons += len(chosen)
        progress(len(chosen))
    if failures and unrounded is not None and not broken:
        exact = unrounded(*stacked([crops[crop] for crop in readings]))
        undecided = {
            crop
            for row, (crop, read) in enumerate(readings.items())
            if _is_undecided(reference, crop, exact, row, crops[crop].allowed, read, tolerance)
        }
        report.near_ties += len(undecided)
        differing |= undecided
        failures = [(crop, failure) for crop, failure in failures if crop not in undecided]
    report.near_ties_differing = len(differing)
    report.failures = [failure for _, failure in failures[:MAX_REPORTED]]
    return report


def _is_undecided(
    reference: Reference,
    crop: int,
    exact: Reference,
    row: int,
    allowed: Allowed | None,
    readings: Sequence[dict[str, NDArray[Any]]],
    tolerance: float,
) -> bool:
    """Whether rounding explains that a crop was read differently.

    Args:
        reference: What the network reads.
        crop: Index of the crop in it.
        exact: What the network reads in float64.
        row: Index of the crop in it.
        allowed: What may be read of the crop.
        readings: The artifact's outputs for this crop alone, where they differ.
        tolerance: Largest difference of a token's probability.
    """
    steps = int(reference.steps[crop])
    rounding = float(np.abs(exact.confidences[row] - reference.confidences[crop])[:steps].max(initial=0.0))
    if first_difference(reference, crop, exact.token_ids[row]) is not None or rounding > tolerance:
        return True
    unused = ParityReport(crops=0, batch_sizes=[])
    return all(
        _compare(exact, row, allowed, outputs, 0, unused, tolerance + ROUNDING_FACTOR * rounding) is None
        for outputs in readings
    )


def batches(count: int, batch_sizes: Sequence[int]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Batch sizes and the crops of each batch: every crop at every size, and for sizes above 1 in two different batches."""
    rng = np.random.default_rng(SEED)
    for batch_size in batch_sizes:
        orders = [np.arange(count)] if batch_size == 1 else [np.arange(count), rng.permutation(count)]
        for order in orders:
            for start in range(0, count, batch_size):
                yield batch_size, order[start : start + batch_size]


def run_artifact(
    session: onnxruntime.InferenceSession, pixels: NDArray[np.uint8], allowed: Allowed | None = None
) -> dict[str, NDArray[Any]]:
    """All outputs by name, for pixels uint8 `(B, H, W, 3)`; of each crop what bool `(B, entries)` allows is read."""
    names = [output.name for output in session.get_outputs()]
    feed: dict[str, NDArray[Any]] = {INPUT_NAME: pixels} if allowed is None else {INPUT_NAME: pixels, ALLOWED_NAME: allowed}
    return dict(zip(names, session.run(names, feed), strict=True))


def no_number(outputs: dict[str, NDArray[Any]], row: int) -> tuple[int, str] | None:
    """Step and reason where a probability or a logit is nan or infinite, which is a fault even in a near tie."""
    for name in (CONFIDENCES_NAME, LOGITS_NAME):
        values = outputs[name][row] if name in outputs else np.zeros(1)
        finite = np.isfinite(values).reshape(len(values), -1).all(-1)
        if not finite.all():
            return int(np.argmin(finite)), f"{name} are no numbers (nan or infinite)"
    return None


def wrong_candidates(outputs: dict[str, NDArray[Any]], row: int, steps: int) -> tuple[int, str] | None:
    """Step and reason where the candidates do not begin with the token, are not in order, or one of them comes twice.

    Args:
        outputs: Of a batch.
        row: Of the crop.
        steps: How many steps of it carry meaning.
    """
    if TOP_IDS_NAME not in outputs:
        return None
    ids, confidences = outputs[TOP_IDS_NAME][row][:steps], outputs[TOP_CONFIDENCES_NAME][row][:steps]
    distinct = (np.diff(np.sort(ids, -1), axis=-1) > 0).all(-1)
    in_order = (np.diff(confidences, axis=-1) <= 0).all(-1) & np.isfinite(confidences).all(-1)
    first = (ids[:, 0] == outputs[TOKEN_IDS_NAME][row][:steps]) & (confidences[:, 0] == outputs[CONFIDENCES_NAME][row][:steps])
    right = distinct & in_order & first
    return None if right.all() else (int(np.argmin(right)), "the candidates are not those of the token, best first")


def first_difference(reference: Reference, crop: int, got: Ids) -> int | None:
    """The first step with another token, None if there is none up to the end of the text.

    Args:
        reference: What PyTorch reads.
        crop: Index of the crop in it.
        got: int64 `(S,)`: the tokens that the artifact reads.
    """
    wanted = reference.token_ids[crop]
    if got.shape != wanted.shape:
        return 0
    differs = (got != wanted)[: int(reference.steps[crop])]
    return int(np.argmax(differs)) if differs.any() else None


def _compare(
    reference: Reference,
    crop: int,
    allowed: Allowed | None,
    outputs: dict[str, NDArray[Any]],
    row: int,
    report: ParityReport,
    tolerance: float,
) -> tuple[int, str] | None:
    """Step and reason of the first difference, None if there is none; notes the largest differences in the report."""
    steps = int(reference.steps[crop])
    wanted, got = reference.token_ids[crop], outputs[TOKEN_IDS_NAME][row]
    if got.shape != wanted.shape:
        return 0, f"the graph gives {got.shape[0]} steps, the network {wanted.shape[0]}"
    step = first_difference(reference, crop, got)
    if step is not None:
        return step, f"token {got[step]} instead of {wanted[step]}"
    gaps = np.abs(outputs[CONFIDENCES_NAME][row] - reference.confidences[crop])[:steps]
    report.max_confidence_difference = max(report.max_confidence_difference, float(gaps.max()))
    # The condition is written so that a NaN fails.
    if not (gaps <= tolerance).all():
        step = int(np.argmin(gaps <= tolerance))
        return step, f"confidence differs by {gaps[step]:.2g}"
    if TOP_IDS_NAME in outputs and (failure := _compare_candidates(reference, crop, outputs, row, tolerance)):
        return failure
    if LOGITS_NAME in outputs:
        compared = slice(None) if allowed is None else np.flatnonzero(np.append(True, allowed))
        gaps = np.abs(outputs[LOGITS_NAME][row] - reference.logits[crop])[:steps, compared].max(-1)
        report.max_logit_difference = max(report.max_logit_difference or 0.0, float(gaps.max()))
        if not (gaps <= LOGIT_TOLERANCE).all():
            step = int(np.argmin(gaps <= LOGIT_TOLERANCE))
            return step, f"logits differ by {gaps[step]:.2g}"
    return None


def _compare_candidates(
    reference: Reference, crop: int, outputs: dict[str, NDArray[Any]], row: int, tolerance: float
) -> tuple[int, str] | None:
    """Step and reason where a candidate has another probability, or is not as probable as one of its rank."""
    steps = int(reference.steps[crop])
    if (failure := wrong_candidates(outputs, row, steps)) is not None:
        return failure
    ids, got = outputs[TOP_IDS_NAME][row][:steps], outputs[TOP_CONFIDENCES_NAME][row][:steps]
    of_classes = _probabilities(reference, crop)[:steps]
    best = -np.sort(-of_classes, axis=-1)[:, : ids.shape[1]]
    gaps = np.maximum(np.abs(got - np.take_along_axis(of_classes, ids, -1)), np.abs(got - best)).max(-1)
    if (gaps <= tolerance).all():
        return None
    step = int(np.argmin(gaps <= tolerance))
    return step, f"the probability of a candidate differs by {gaps[step]:.2g}"


def _probabilities(reference: Reference, crop: int) -> Floats:
    """Of the classes that can be read, float32 `(S, C)`."""
    if reference.probabilities is not None:
        given: Floats = reference.probabilities[crop]
        return given
    logits = reference.logits[crop]
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    found: Floats = exponentials / exponentials.sum(-1, keepdims=True)
    return found
