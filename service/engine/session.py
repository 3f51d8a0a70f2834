"""The ONNX Runtime session: providers chosen strictly, threads counted explicitly, and a warm-up."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export.artifact import CONFIDENCES_NAME, INPUT_NAME, TOKEN_IDS_NAME, ArtifactError
from service.engine.batcher import run_checked
from service.engine.types import Confidences, Session, TokenIds
from service.errors import StartupError

logger = logging.getLogger(__name__)

CPU_PROVIDER: Final = "CPUExecutionProvider"
CUDA_PROVIDER: Final = "CUDAExecutionProvider"
# Exhaustive search, the default, tries every algorithm again for each new batch size, in traffic.
CUDA_OPTIONS: Final = {"cudnn_conv_algo_search": "HEURISTIC"}
SEVERITY_FATAL: Final = 4
"""Errors reach us as exceptions and are logged then; the library need not print them as well."""

onnxruntime.set_default_logger_severity(SEVERITY_FATAL)


class OrtSession:
    """An ONNX Runtime session as the engine's `Session`. Safe to run from several threads at once."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def run(self, crops: NDArray[np.uint8]) -> tuple[TokenIds, Confidences]:
        """Read uint8 `[batch, height, width, 3]`: ids int64 and confidences float32 `[batch, max_label_length + 1]`."""
        token_ids, confidences = self._session.run([TOKEN_IDS_NAME, CONFIDENCES_NAME], {INPUT_NAME: crops})
        return token_ids, confidences


def wanted_providers(provider: str, available: Sequence[str]) -> list[Any]:
    """The providers to ask ONNX Runtime for, most wanted first.

    Raises:
        StartupError: `provider` is named and this installation does not have it.
    """
    if provider == "cuda" and CUDA_PROVIDER not in available:
        raise StartupError(
            "PARSEQ_PROVIDER=cuda, but this installation of ONNX Runtime has no CUDA provider: "
            "install onnxruntime-gpu (the extra `gpu`), or set PARSEQ_PROVIDER=cpu"
        )
    if provider == "cuda" or (provider == "auto" and CUDA_PROVIDER in available):
        # The CPU provider stays in the list: a few shape computations have no other kernel.
        return [(CUDA_PROVIDER, CUDA_OPTIONS), CPU_PROVIDER]
    return [CPU_PROVIDER]


def check_provider(provider: str, actual: Sequence[str]) -> str:
    """The provider in use, `cpu` or `cuda`, when it is what was asked for.

    ONNX Runtime falls back to the CPU without an exception when a device cannot be used, so the answer is compared.

    Raises:
        StartupError: CUDA was asked for by name and the session runs without it.
    """
    in_use = "cuda" if CUDA_PROVIDER in actual else "cpu"
    if provider == "cuda" and in_use != "cuda":
        raise StartupError(
            "PARSEQ_PROVIDER=cuda, but ONNX Runtime fell back to the CPU: check the driver, the CUDA and cuDNN "
            "libraries and that a device is visible, or set PARSEQ_PROVIDER=cpu"
        )
    return in_use


def open_session(path: Path, provider: str, intra_op_threads: int) -> tuple[onnxruntime.InferenceSession, str]:
    """Load an ONNX file.

    Args:
        path: Of the `.onnx` file.
        provider: `auto`, `cpu` or `cuda`.
        intra_op_threads: Threads of one run, at least 1.

    Returns:
        The session and the provider in use.

    Raises:
        StartupError: the provider is not there.
        ArtifactError: ONNX Runtime cannot load the file.
    """
    providers = wanted_providers(provider, onnxruntime.get_available_providers())
    if CUDA_PROVIDER in str(providers) and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # finds the CUDA and cuDNN libraries of the extra `gpu`
    try:
        session = onnxruntime.InferenceSession(str(path), _options(intra_op_threads), providers=providers)
    except Exception as error:  # its exceptions have no common base but this
        reason = str(error).splitlines()[0][:300]
        raise ArtifactError(f"{path} is not an ONNX file that ONNX Runtime can load ({reason})") from error
    return session, check_provider(provider, session.get_providers())


def _options(intra_op_threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores from decoding and from the other lanes between runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Both plan memory for one batch size; batches here have any size, and the arena never gives memory back.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = SEVERITY_FATAL
    return options


def warm_up(session: Session, height: int, width: int, max_batch_size: int) -> dict[int, float]:
    """Run blank crops at 1, 2, 4, ... up to the largest batch, so that no client pays for a first run.

    Returns:
        Seconds of a run by batch size, to seed the cost model with.

    Raises:
        Exception: whatever the session raises, or `InferenceError` when its answers have the wrong shape.
    """
    durations_s: dict[int, float] = {}
    size = 1
    while True:
        started_s = time.monotonic()
        run_checked(session, [np.full((height, width, 3), 255, np.uint8)] * size)
        durations_s[size] = time.monotonic() - started_s
        if size == max_batch_size:
            return durations_s
        size = min(2 * size, max_batch_size)
