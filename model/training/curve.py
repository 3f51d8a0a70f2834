"""The learning curve of a run as a picture."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Final

from tqdm import tqdm

from model.training.system import ACCURACY_PREFIX

SMOOTHING: Final = 0.9
"""Weight of the past in the running mean of the training losses."""


def read_logs(output: Path) -> dict[str, list[tuple[int, float]]]:
    """All series logged under `output` (its folders `log-N`, in order): name to (step, value) pairs."""
    series: dict[str, dict[int, float]] = {}
    for path in sorted(output.glob("log-*/metrics.csv"), key=lambda path: int(path.parent.name.removeprefix("log-"))):
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and name not in ("step", "epoch"):
                        series.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in series.items()}


def draw_curve(output: Path) -> Path:
    """Draw losses and accuracies of a run to `output/curve.png`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    series = read_logs(output)
    figure, (losses, accuracies) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    several = sum(name.startswith(ACCURACY_PREFIX) for name in series) > 1
    for name, points in sorted(series.items()):
        steps, values = [step for step, _ in points], [value for _, value in points]
        if name in ("loss", "glyph_loss"):
            losses.plot(steps, smooth(values), label=name)
        elif name.startswith(ACCURACY_PREFIX) or (name == "accuracy" and several):
            marker = "." if len(steps) == 1 else None  # one point is no line
            accuracies.plot(
                steps, values, marker=marker, label="all" if name == "accuracy" else name.removeprefix(ACCURACY_PREFIX)
            )
    for axes, title in ((losses, "training loss (running mean)"), (accuracies, "exact match on validation crops")):
        axes.set(xlabel="step", title=title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    path = output / "curve.png"
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def draw_if_possible(output: Path) -> None:
    """Draw the curve, or report why that failed: a picture must not end a run."""
    try:
        draw_curve(output)
    except Exception as error:  # a full disk, a log of another program, or anything that the drawing library raises
        tqdm.write(f"the learning curve in {output} could not be drawn: {error}", sys.stderr)


def smooth(values: list[float]) -> list[float]:
    """Exponential running mean."""
    result: list[float] = []
    for value in values:
        result.append(value if not result else SMOOTHING * result[-1] + (1 - SMOOTHING) * value)
    return result
