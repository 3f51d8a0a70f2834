"""Whether confidences can be believed: the expected calibration error and a reliability plot.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017: confidences fall into bins of equal width; the error is the
mean over all crops of the gap between a bin's accuracy and its mean confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

BINS: Final = 15
"""As in the paper; bin `i` holds confidences over `i / BINS` up to and with `(i + 1) / BINS`."""
THRESHOLDS: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
WANTED_ACCURACY: Final = 0.98
"""What a suggested threshold gives. Of labels that people or other models have written, one in a hundred is wrong itself."""
_STEPS: Final = 100
"""A threshold is suggested to the hundredth."""


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin that holds crops."""

    low: float
    high: float
    crops: int
    accuracy: float
    """Share read right, 0 to 1."""
    confidence: float
    """Mean confidence, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """What is left when readings of less confidence are put aside."""

    threshold: float
    crops: int
    coverage: float
    """Share of all crops that is left, 0 to 1."""
    accuracy: float
    """Share of what is left that was read right, 0 to 1; 1 if nothing is left."""
    suggested: bool = False


@dataclass
class Reliability:
    """Crops counted by their confidence."""

    crops: list[int] = field(default_factory=lambda: [0] * BINS)
    right: list[int] = field(default_factory=lambda: [0] * BINS)
    confidence: list[float] = field(default_factory=lambda: [0.0] * BINS)
    steps: list[list[int]] = field(default_factory=lambda: [[0, 0] for _ in range(_STEPS + 1)])
    """Crops, and how many of them were read right, by hundredths of confidence, rounded down."""

    def add(self, confidence: float, right: bool) -> None:
        """Count one crop."""
        index = min(max(math.ceil(confidence * BINS) - 1, 0), BINS - 1)
        self.crops[index] += 1
        self.right[index] += right
        self.confidence[index] += confidence
        # 0.29 * 100 is less than 29.
        step = self.steps[min(max(int(confidence * _STEPS + 1e-6), 0), _STEPS)]
        step[0] += 1
        step[1] += right

    def merge(self, other: Reliability) -> None:
        """Count the crops of another `Reliability` too."""
        self.crops = [a + b for a, b in zip(self.crops, other.crops, strict=True)]
        self.right = [a + b for a, b in zip(self.right, other.right, strict=True)]
        self.confidence = [a + b for a, b in zip(self.confidence, other.confidence, strict=True)]
        self.steps = [
            [a + b for a, b in zip(ours, theirs, strict=True)] for ours, theirs in zip(self.steps, other.steps, strict=True)
        ]

    def bins(self) -> list[Bin]:
        """The bins that hold crops."""
        rows = zip(self.crops, self.right, self.confidence, strict=True)
        return [
            Bin(i / BINS, (i + 1) / BINS, crops, right / crops, confidence / crops)
            for i, (crops, right, confidence) in enumerate(rows)
            if crops
        ]

    def from_threshold(self, threshold: float) -> Threshold:
        """What is left from a threshold on, in hundredths."""
        left = self.steps[round(threshold * _STEPS) :]
        crops, right = sum(step[0] for step in left), sum(step[1] for step in left)
        return Threshold(threshold, crops, crops / sum(self.crops), right / crops if crops else 1.0)

    def suggested_threshold(self) -> float | None:
        """The lowest threshold from which on `WANTED_ACCURACY` of the readings are right; None if there is none."""
        found = (self.from_threshold(step / _STEPS) for step in range(_STEPS))
        return next((each.threshold for each in found if each.crops and each.accuracy >= WANTED_ACCURACY), None)

    def thresholds(self) -> list[Threshold]:
        """The usual thresholds, and the one that is suggested."""
        suggested = self.suggested_threshold()
        wanted = sorted({*THRESHOLDS} | ({suggested} if suggested is not None else set()))
        return [replace(self.from_threshold(each), suggested=each == suggested) for each in wanted]

    def expected_calibration_error(self) -> float:
        """0 (confidences are shares) to 1."""
        gaps = (abs(right - confidence) for right, confidence in zip(self.right, self.confidence, strict=True))
        return sum(gaps) / sum(self.crops)


def draw_reliability(found: Mapping[str, Reliability], path: Path) -> None:
    """Draw accuracy over confidence, one panel for each test charset."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(4.5 * len(found), 4.5), layout="constrained", squeeze=False)
    for axes, (charset, reliability) in zip(panels[0], found.items(), strict=True):
        bins, total = reliability.bins(), sum(reliability.crops)
        lows = [entry.low for entry in bins]
        axes.bar(lows, [entry.accuracy for entry in bins], 0.9 / BINS, align="edge", alpha=0.6, label="accuracy")
        shares = [entry.crops / total for entry in bins]
        axes.bar(lows, shares, 0.9 / BINS, align="edge", color="none", edgecolor="0.3", label="share of crops")
        axes.plot([entry.confidence for entry in bins], [entry.accuracy for entry in bins], "ko", markersize=3)
        axes.plot([0, 1], [0, 1], "k--", linewidth=1)
        error = 100 * reliability.expected_calibration_error()
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", title=f"charset {charset}: ECE {error:.2f} %, {total} crops")
        axes.legend(loc="upper left")
    figure.savefig(path, dpi=100, format="png")
    plt.close(figure)
