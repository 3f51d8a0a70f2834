"""Whether a GPU reads what a CPU reads: token ids, and confidences within what half precision may change.

float32 is held to the same: a GPU multiplies it in TF32 unless told otherwise, which keeps as many bits as float16.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from artifact.session import reason_of
from artifact.text import text_length
from service.errors import StartupError
from tests.gpu.material import Demand, Expected
from tests.gpu.stage import Stage, open_on

BATCH = 64
"""What the service runs at most unless it is told otherwise."""
MIN_LEFT_S = 5.0
"""Less is not enough for another graph."""

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Readings beside those that are expected."""

    demand: Demand
    crops: int
    near_ties: int
    """Crops on which either reading is right."""
    equal: int
    """Of all crops, those with the same token ids up to the end of the text."""
    decided_equal: int
    """Of those that are no near ties."""
    mean_difference: float
    """Of a token's probability, over the tokens of equal texts."""
    largest_difference: float
    no_numbers: int
    """Crops with a probability that is none: NaN or infinite."""

    @property
    def decided(self) -> int:
        """Crops that are no near ties."""
        return self.crops - self.near_ties

    @property
    def problem(self) -> str:
        """Why that is not right; empty if it is."""
        if self.no_numbers:
            return f"confidences on {self.no_numbers} crops are no numbers"
        if self.decided_equal < self.demand.floor * self.decided:
            return f"{self.decided - self.decided_equal} of {self.decided} texts differ"
        if not self.equal:
            return "no text is equal"
        # Written so that a NaN fails.
        if not self.mean_difference <= self.demand.confidence:
            return "confidences differ"
        return ""

    def __str__(self) -> str:
        """All figures in one line."""
        weak = (
            f"; only {self.decided} are clear, which says little" if self.decided < self.demand.min_decided * self.crops else ""
        )
        return (
            f"{self.decided_equal} of {self.decided} texts equal (demanded {self.demand.floor:.1%}; {self.near_ties} more "
            f"crops are near ties, within {self.demand.tie_margin:g}; of all {self.crops}, {self.equal} equal){weak}; "
            f"confidences differ by {self.mean_difference:.2g} in the mean (allowed {self.demand.confidence:g}), "
            f"{self.largest_difference:.2g} at most"
        )


def equal_texts(token_ids: Ids, wanted: Ids) -> NDArray[np.bool_]:
    """bool `(N,)`: whether the ids, `(N, S)`, are those that are wanted, up to the end of the text."""
    return np.array([np.array_equal(a[: _steps(b)], b[: _steps(b)]) for a, b in zip(token_ids, wanted, strict=True)], np.bool_)


def _steps(wanted: Ids) -> int:
    """Steps of a text that carry meaning, the end token's included."""
    return min(text_length(wanted.tolist()) + 1, len(wanted))


def compare(token_ids: Ids, confidences: Floats, expected: Expected, demand: Demand) -> Comparison:
    """Compare readings, `(N, S)` each, with what a CPU read."""
    decided = expected.margins >= demand.tie_margin
    equal = equal_texts(token_ids, expected.token_ids)
    differences = np.abs(confidences.astype(np.float64) - expected.confidences)
    parts = [differences[crop, : _steps(expected.token_ids[crop])] for crop in np.flatnonzero(equal)]
    all_differences = np.concatenate(parts) if parts else np.zeros(0)
    # After the end of a text nothing has a meaning, but a number it must be all the same.
    no_numbers = int((~np.isfinite(confidences)).any(-1).sum())
    return Comparison(
        demand,
        len(token_ids),
        int((~decided).sum()),
        int(equal.sum()),
        int((equal & decided).sum()),
        float(all_differences.mean()) if len(all_differences) else 0.0,
        float(all_differences.max(initial=0.0)),
        no_numbers,
    )


def run(stage: Stage) -> None:
    """A row for each graph that is meant for GPUs."""
    for graph in (graph for graph in stage.material.graphs if graph.gpu):
        of = f"{graph.network}, {graph.precision}"
        if stage.left_s < MIN_LEFT_S:
            stage.add(of, "FAILED", "not compared: the time of this stage was over")
            continue
        expected = stage.material.expected(graph.network)
        try:
            session = open_on(stage.provider, stage.material.path(graph), BATCH).session
            runs = [session.run(expected.pixels[begin : begin + BATCH]) for begin in range(0, len(expected.pixels), BATCH)]
        except StartupError as error:
            stage.add(of, "FAILED", str(error))
            continue
        except Exception as error:  # whatever the provider raises: the other graphs are compared all the same
            stage.add(of, "FAILED", f"a run failed: {reason_of(error)}")
            continue
        ids, confidences = (np.concatenate(parts) for parts in zip(*runs, strict=True))
        if ids.shape != expected.token_ids.shape:
            stage.add(of, "FAILED", f"token ids of shape {ids.shape} instead of {expected.token_ids.shape}")
            continue
        demand = stage.material.demand
        found = compare(ids, confidences, expected, replace(demand, tie_margin=graph.tie_margin or demand.tie_margin))
        told = f"{found.problem}: {found}" if found.problem else str(found)
        if graph.fault:
            stage.add(of, "measured", f"not held to it, since {graph.fault}; {told}", **asdict(found))
        else:
            stage.add(of, "FAILED" if found.problem else "ok", told, **asdict(found))
