"""The online program: one artifact in, HTTP out.

Nothing here imports torch, `model/`, `export/` or `reading/`: `artifact/` is the contract with them.
"""

import artifact  # noqa: F401 - first of all: it tells ONNX Runtime not to call home


def __getattr__(name: str) -> str:
    # Looked up when it is asked for: until this package is imported, a signal may end the process in Python's own way.
    if name != "__version__":
        raise AttributeError(name)
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("parseq-service")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0.0.0"
