"""Console scripts that know of artifacts: `parseq-export`, and the jobs that take an artifact instead of a checkpoint."""

from __future__ import annotations

from model.entry import run


def export() -> int:
    """`parseq-export`."""
    return run("parseq-export", "export.__main__")


def read() -> int:
    """`parseq-read`."""
    return run("parseq-read", "export.read")


def evaluate() -> int:
    """`parseq-evaluate`."""
    return run("parseq-evaluate", "export.evaluate")


def benchmark() -> int:
    """`parseq-benchmark`."""
    return run("parseq-benchmark", "export.benchmark")
