"""The online program: one artifact in, HTTP out.

Nothing here imports torch, `model/`, or anything of `export/` but `export.artifact`, the contract.
"""

from importlib.metadata import PackageNotFoundError, version

import export.artifact  # noqa: F401 - first of all: the package `export` tells ONNX Runtime not to call home

try:
    __version__ = version("parseq-service")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"
