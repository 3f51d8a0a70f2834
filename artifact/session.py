"""Opens an artifact on the CPU, for everybody but the server's engine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnxruntime

from artifact.metadata import ArtifactError

SEVERITY_FATAL: Final = 4
"""Errors reach the caller as exceptions; the library need not print them as well."""


def open_cpu_session(artifact: Path | bytes, *, threads: int = 0, optimised: bool = True) -> onnxruntime.InferenceSession:
    """Open a session whose threads sleep while they wait: spinning would take cores from other work.

    Args:
        artifact: The file, or its content.
        threads: Threads of a run; 0: ONNX Runtime's choice.
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
    except Exception as error:  # ONNX Runtime's exceptions have no other common base
        name = artifact if isinstance(artifact, Path) else "the graph"
        raise ArtifactError(f"{name} is not an ONNX file that ONNX Runtime can load ({reason_of(error)})") from error


def reason_of(error: Exception) -> str:
    """The first line of ONNX Runtime's error message, shortened to 300 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
