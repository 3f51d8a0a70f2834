"""Latencies as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reading.latency.measure import Latency


def draw_latencies(found: Sequence[Latency], path: Path) -> None:
    """Draw latency against batch size and against label length, and throughput against batch size, to a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    views = (("batch", "ms", "ms of a run"), ("batch", "crops_per_s", "crops per second"), ("length", "ms", "ms of a run"))
    for axes, (against, field, title) in zip(panels, views, strict=True):
        for subject in dict.fromkeys(entry.subject for entry in found):
            rows = sorted((e.value, getattr(e, field)) for e in found if (e.subject, e.against) == (subject, against))
            axes.plot(*zip(*rows, strict=True), "o-", label=subject) if rows else None
        axes.set(xlabel="batch size" if against == "batch" else "label length", title=title)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(path, dpi=100, format="png")
    plt.close(figure)
