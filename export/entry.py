"""Console script of this package."""

from __future__ import annotations

from model.entry import run


def export() -> int:
    """`parseq-export`."""
    return run("parseq-export", "export.__main__", "the extra `export`, and for crops in archives `train`")
