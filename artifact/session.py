"""One way to open an artifact on the CPU, for whoever is not the server's engine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnxruntime

from artifact.metadata import ArtifactError

SEVERITY_FATAL: Final = 4
"""Errors reach the caller as exceptions; the library need not print them as well."""


def open_cpu_session(artifact: Path | bytes, *, threads: int = 0, optimised: bool = True) -> onnxruntime.InferenceSession:
    """A session that sleeps while it waits: threads that spin would only take the cores of what runs beside.

    Args:
        artifact: The file, or what is in it.
        threads: Of a run; 0: ONNX Runtime's choice.
        optimised: Let ONNX Runtime rewrite the graph to run faster; opening it takes longer then.

    Raises:
        ArtifactError: There is no such file, or ONNX Runtime cannot load it.
    """
    if isinstance(artifact, Path) and not artifact.is_file():
        raise ArtifactError(f"there is no artifact {artifact}: write one with `parseq-export`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = SEVERITY_FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = artifact if isinstance(artifact, bytes) else str(artifact)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base but this
        name = artifact if isinstance(artifact, Path) else "the graph"
        raise ArtifactError(f"{name} is not an ONNX file that ONNX Runtime can load ({reason_of(error)})") from error


def reason_of(error: Exception) -> str:
    """What ONNX Runtime says of an error, as far as it fits into a line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
