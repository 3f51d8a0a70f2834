"""Console scripts of the offline jobs. All of the distribution's scripts exist in every environment; these need an extra."""

from __future__ import annotations

import importlib
import sys

EXIT_USAGE = 2


def run(script: str, module: str) -> int:
    """Run `main` of `module`, or say in one line what is not installed.

    Args:
        script: name of the console script.
        module: where its `main` is.
    """
    try:
        entry = importlib.import_module(module)
    except ModuleNotFoundError as error:
        print(
            f"{script}: the package {error.name!r} is not installed: this is an offline job, which an environment for serving "
            "does not hold. `make dev` sets one up in .venv; elsewhere install the extras `export` and `train`",
            file=sys.stderr,
        )
        return EXIT_USAGE
    return int(entry.main())


def convert() -> int:
    """`parseq-convert`."""
    return run("parseq-convert", "model.data.convert")


def train() -> int:
    """`parseq-train`."""
    return run("parseq-train", "model.training.train")


def tune() -> int:
    """`parseq-tune`."""
    return run("parseq-tune", "model.training.tune")
