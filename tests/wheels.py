"""Builds the project's wheel and sdist, without a network: with the setuptools that is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = "import sys; sys.path.insert(0, 'release'); import wheel_backend; print(wheel_backend.build_{kind}(sys.argv[1]))"


def build(kind: str, target: Path, tree: Path = ROOT) -> Path:
    """The `wheel` or `sdist` of a tree, in the folder `target`."""
    command = [sys.executable, "-c", BUILD.format(kind=kind), str(target)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return target / done.stdout.splitlines()[-1]
