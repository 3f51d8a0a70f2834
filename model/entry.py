"""Console scripts of the offline jobs. All of the distribution's scripts exist in every environment; these need an extra."""

from __future__ import annotations

import importlib
import sys
from typing import Final

EXIT_USAGE: Final = 2
OURS: Final = frozenset({"artifact", "model", "export", "reading", "parseq_service"})


def run(script: str, module: str, extra: str) -> int:
    """Run `main` of `module`, or say in one line what is not installed.

    Args:
        script: Name of the console script.
        module: Where its `main` is. What it imports late, for some of its options only, may be missing too.
        extra: The extra that the script needs, in words.
    """
    try:
        return int(importlib.import_module(module).main())
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] in OURS:
            raise
        print(
            f"{script}: the package {error.name!r} is not installed: this is an offline job, which an environment for serving "
            f"does not hold. `make dev` sets one up in .venv; elsewhere install {extra}",
            file=sys.stderr,
        )
        return EXIT_USAGE


def convert() -> int:
    """`parseq-convert`."""
    return run("parseq-convert", "model.data.convert", "the extra `train`")


def train() -> int:
    """`parseq-train`."""
    return run("parseq-train", "model.training.train", "the extra `train`")


def tune() -> int:
    """`parseq-tune`."""
    return run("parseq-tune", "model.training.tune", "the extras `train` and `tune`")
