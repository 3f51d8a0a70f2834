"""Console scripts of this package."""

from __future__ import annotations

from model.entry import run


def read() -> int:
    """`parseq-read`."""
    return run("parseq-read", "reading.read")


def evaluate() -> int:
    """`parseq-evaluate`."""
    return run("parseq-evaluate", "reading.evaluate")


def benchmark() -> int:
    """`parseq-benchmark`."""
    return run("parseq-benchmark", "reading.benchmark")
