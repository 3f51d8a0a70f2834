"""The gate for artifacts that round: they need not equal PyTorch, but must nearly always agree with it.

Half precision and 8-bit integers move every logit a little, so a text may change where the network hardly preferred one
character to another. A crop with such a step (two best logits closer than the precision's `tie_margin`, in any pass) is counted
apart; of all others a stated share must read the same, character for character, whatever the batch.

A text that is cut short by mistake looks like a near tie. So the structure is checked without rounding: the same graph in
float32 must pass the parity gate, and a loop must read exactly as the steps written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from artifact.metadata import CONFIDENCES_NAME, TOKEN_IDS_NAME, Precision
from artifact.session import open_cpu_session
from artifact.text import text_length
from export.gate.crops import GateCrop, stacked
from export.gate.parity import (
    BATCH_SIZES,
    CONFIDENCE_TOLERANCE,
    MAX_REPORTED,
    Failure,
    GateReport,
    batches,
    first_difference,
    no_number,
    run_artifact,
    wrong_candidates,
)
from export.graphs.interface import Reference

IN_COMPANY: Final = 32
"""Number of crops that are read at every batch size and in different batches; at the largest size all crops are read."""
MIN_DECIDED: Final = 0.2
"""Smallest share of crops that are not near ties; with fewer, the comparison would say little."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What an artifact of one precision must fulfil."""

    floor: float
    """Smallest share of equal readings among crops that are not near ties."""
    tie_margin: float
    """A crop is a near tie if its two best logits are closer than this."""
    confidence: float
    """Largest mean difference of a token's probability."""


DEMANDS: Final[dict[Precision, Demand]] = {
    "fp16": Demand(floor=0.995, tie_margin=0.05, confidence=0.005),
    "int8": Demand(floor=0.97, tie_margin=0.5, confidence=0.05),
}


@dataclass(kw_only=True)
class AgreementReport(GateReport):
    """How far an artifact that rounds agrees with PyTorch."""

    precision: Precision
    structure_problem: str | None = None
    """A fault that rounding does not explain: NaNs, a graph that is wrong in float32, or a loop that reads unlike its steps."""
    floor: float
    tie_margin: float
    agreement: float = 0.0
    """Share of readings with an equal text, among crops that are not near ties."""
    agreement_of_all: float = 0.0
    """The same of all crops."""
    mean_confidence_difference: float = 0.0
    """Mean over the tokens of equal texts."""
    calibration: str | None = None
    """Which crops the scales of an int8 graph come from."""

    @property
    def problem(self) -> str | None:
        """Why the artifact must not be written, in one sentence; None if it may."""
        demand = DEMANDS[self.precision]
        if self.structure_problem:
            return self.structure_problem
        decided = self.crops - self.near_ties
        if decided < MIN_DECIDED * self.crops:
            return (
                f"PyTorch itself is undecided (two best logits within {self.tie_margin:g}) on {self.near_ties} of {self.crops} "
                "crops, so little can be compared: are the weights trained?"
            )
        # Both conditions are written so that a NaN fails.
        if not self.agreement >= self.floor:
            example = f"; {self.failures[0]}" if self.failures else ""
            return (
                f"the {self.precision} graph agrees with PyTorch on {self.agreement:.2%} of the readings, "
                f"{self.floor:.2%} are demanded{example}"
            )
        if not self.mean_confidence_difference <= demand.confidence:
            return (
                f"the {self.precision} graph's confidences differ from PyTorch's by {self.mean_confidence_difference:.2g} "
                f"in the mean, {demand.confidence:g} is allowed"
            )
        return None

    @property
    def summary(self) -> str:
        """What was found, for people."""
        sizes = ", ".join(map(str, self.batch_sizes))
        return (
            f"{self.comparisons} readings of {self.crops} crops at batch {sizes}: text equal to PyTorch's in "
            f"{self.agreement:.2%} (at least {self.floor:.2%}), confidences within {self.mean_confidence_difference:.1e} "
            f"in the mean; {self.near_ties} near ties apart, {self.near_ties_differing} of them differ"
        )


def planned_readings(count: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Batch sizes and the crops of each batch: all crops at the largest size, some at all sizes and in different batches."""
    largest = max(BATCH_SIZES)
    rest = np.arange(min(IN_COMPANY, count), count)
    whole = [(largest, rest[start : start + largest]) for start in range(0, len(rest), largest)]
    return [*batches(min(IN_COMPANY, count), BATCH_SIZES), *whole]


def loop_difference(
    artifact: bytes, written_out: bytes, crops: Sequence[GateCrop], *, progress: Callable[[int], object] = lambda _: None
) -> Failure | None:
    """The first difference between a graph with a loop and the same one with every step written out; None if there is none.

    Both round alike, so near ties make no difference here: a loop that cuts texts short is found.
    """
    sessions = open_cpu_session(artifact), open_cpu_session(written_out)
    for batch_size, chosen in planned_readings(len(crops)):
        found, wanted = (run_artifact(session, *stacked([crops[crop] for crop in chosen])) for session in sessions)
        for row, crop in enumerate(chosen.tolist()):
            meaningful = slice(0, text_length(wanted[TOKEN_IDS_NAME][row].tolist()) + 1)
            others = found[TOKEN_IDS_NAME][row][meaningful] != wanted[TOKEN_IDS_NAME][row][meaningful]
            gaps = np.abs(found[CONFIDENCES_NAME][row] - wanted[CONFIDENCES_NAME][row])[meaningful]
            # The condition is written so that a NaN differs.
            differs = others | ~(gaps <= CONFIDENCE_TOLERANCE)
            if differs.any():
                return Failure(crops[crop].description, batch_size, int(differs.argmax()), "another token or probability")
        progress(len(chosen))
    return None


def check_agreement(
    artifact: bytes,
    reference: Reference,
    crops: Sequence[GateCrop],
    precision: Precision,
    *,
    progress: Callable[[int], object] = lambda _: None,
) -> AgreementReport:
    """Compare an artifact that rounds with the network. Whether it passed: see `AgreementReport.problem`.

    Args:
        artifact: The serialised ONNX file.
        reference: What the network reads on the crops.
        crops: What to read.
        precision: Of the artifact, `fp16` or `int8`.
        progress: Called with the number of crops after every batch.
    """
    demand = DEMANDS[precision]
    near_tie = reference.margins < demand.tie_margin
    report = AgreementReport(
        precision=precision, crops=len(crops), batch_sizes=list(BATCH_SIZES), floor=demand.floor, tie_margin=demand.tie_margin
    )
    report.near_ties = int(near_tie.sum())
    session = open_cpu_session(artifact)
    equal: list[tuple[int, bool]] = []
    differences: list[float] = []
    for batch_size, chosen in planned_readings(len(crops)):
        outputs = run_artifact(session, *stacked([crops[crop] for crop in chosen]))
        for row, crop in enumerate(chosen.tolist()):
            if failure := no_number(outputs, row) or wrong_candidates(outputs, row, int(reference.steps[crop])):
                report.structure_problem = str(Failure(crops[crop].description, batch_size, *failure))
            step = first_difference(reference, crop, outputs[TOKEN_IDS_NAME][row])
            equal.append((crop, step is None))
            if step is None:
                steps = reference.steps[crop]
                differences += np.abs(outputs[CONFIDENCES_NAME][row] - reference.confidences[crop])[:steps].tolist()
            elif not near_tie[crop] and len(report.failures) < MAX_REPORTED:
                report.failures.append(Failure(crops[crop].description, batch_size, step, "another token"))
        progress(len(chosen))
    report.comparisons = len(equal)
    report.agreement_of_all = sum(same for _, same in equal) / len(equal)
    decided = [same for crop, same in equal if not near_tie[crop]]
    report.agreement = sum(decided) / len(decided) if decided else 0.0
    report.near_ties_differing = len({crop for crop, same in equal if near_tie[crop] and not same})
    report.mean_confidence_difference = float(np.mean(differences)) if differences else float("nan")
    return report
