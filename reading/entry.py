"""Console scripts of this package."""

from __future__ import annotations

from typing import Final

from model.entry import run

EXTRA: Final = "the extra `cpu` or `read`, and for checkpoints and plots `train`; `--artifact bundled` needs no checkpoint"


def read() -> int:
    """`parseq-read`."""
    return run("parseq-read", "reading.read", EXTRA)


def evaluate() -> int:
    """`parseq-evaluate`."""
    return run("parseq-evaluate", "reading.evaluate", EXTRA)


def benchmark() -> int:
    """`parseq-benchmark`."""
    return run("parseq-benchmark", "reading.benchmark", EXTRA)


def bulk() -> int:
    """`parseq-bulk`."""
    return run("parseq-bulk", "reading.bulk.command", "the extra `cpu`, and for `--engine ray` also `ray`")
