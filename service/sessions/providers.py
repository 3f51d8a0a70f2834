"""Execution providers: their names, what each is asked for, and whether the one in use is the one asked for.

Only `cpu` and `openvino` were run where this was written; the others are tested with stand-ins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from artifact.metadata import INPUT_NAME, ArtifactMetadata
from service.errors import StartupError

ORT_NAMES: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
GPU_PROVIDERS: Final = frozenset({"cuda", "tensorrt"})
# Nodes that one provider cannot run go to the next: a few shape computations have kernels on the CPU only.
CHAINS: Final = {
    "cpu": ("cpu",),
    "cuda": ("cuda", "cpu"),
    "tensorrt": ("tensorrt", "cuda", "cpu"),
    "openvino": ("openvino", "cpu"),
}
PACKAGES: Final = {
    "cpu": "install onnxruntime (the extra `cpu`)",
    "cuda": "install onnxruntime-gpu (the extra `gpu`)",
    "tensorrt": "install onnxruntime-gpu (the extra `gpu`) and TensorRT",
    "openvino": "install onnxruntime-openvino instead of onnxruntime",
}
NEEDS: Final = {
    "cpu": "the installation of ONNX Runtime",
    "cuda": "the driver, the CUDA and cuDNN libraries, and that the device is visible",
    "tensorrt": "the driver, the CUDA, cuDNN and TensorRT libraries, and that the device is visible",
    "openvino": "the installation of onnxruntime-openvino",
}

ProviderOptions = dict[str, str]


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """What a session is opened for."""

    path: Path
    metadata: ArtifactMetadata
    provider: str
    """A key of `ORT_NAMES`."""
    lanes: int = 1
    """Runs in flight at once."""
    intra_op_threads: int = 1
    """Threads of each run."""
    device: int = 0
    """Number of the GPU."""
    max_batch_size: int = 1
    """The largest batch it will ever see."""
    cache_folder: Path | None = None
    """Where TensorRT keeps its engines; `None`: nowhere."""


def preferred_provider(asked: str, available: Sequence[str]) -> str:
    """The provider to try: the one that was named, or the best this installation has for `auto`.

    TensorRT is never taken unasked: building its engines takes minutes at the first start.

    Raises:
        StartupError: A provider is named that this installation does not have.
    """
    if asked == "auto":
        return "cuda" if ORT_NAMES["cuda"] in available else "cpu"
    if ORT_NAMES[asked] not in available:
        raise StartupError(
            f"PARSEQ_PROVIDER={asked}, but this installation of ONNX Runtime has no {ORT_NAMES[asked]}: "
            f"{PACKAGES[asked]}, or set PARSEQ_PROVIDER=cpu"
        )
    return asked


def check_provider(wanted: str, actual: Sequence[str]) -> None:
    """Compare what a session runs on with what was wanted: ONNX Runtime falls back to the CPU without an exception.

    Raises:
        StartupError: The session does not run on the provider.
    """
    if ORT_NAMES[wanted] not in actual:
        raise StartupError(
            f"PARSEQ_PROVIDER={wanted}, but ONNX Runtime fell back to {', '.join(actual)}: "
            f"check {NEEDS[wanted]}, or set PARSEQ_PROVIDER=cpu"
        )


def provider_chain(plan: SessionPlan) -> list[tuple[str, ProviderOptions]]:
    """ONNX Runtime's names of the providers to ask for, with their options; the most wanted first."""
    return [(ORT_NAMES[name], _options(name, plan)) for name in CHAINS[plan.provider]]


def _options(name: str, plan: SessionPlan) -> ProviderOptions:
    match name:
        case "cuda":
            # Exhaustive search, the default, tries every algorithm again for each new batch size, in traffic.
            return {"device_id": str(plan.device), "cudnn_conv_algo_search": "HEURISTIC"}
        case "tensorrt":
            return _tensorrt_options(plan)
        case "openvino":
            # OpenVINO has threads of its own and does not use those of ONNX Runtime.
            threads = plan.lanes * plan.intra_op_threads
            return {"device_type": "CPU", "num_of_threads": str(threads), "num_streams": str(plan.lanes)}
    return {}


def _tensorrt_options(plan: SessionPlan) -> ProviderOptions:
    """One engine for all batch sizes: without explicit shapes it is built anew, in traffic, for each size not yet seen."""
    height, width = plan.metadata.image_height, plan.metadata.image_width
    options = {
        "device_id": str(plan.device),
        "trt_fp16_enable": "1" if plan.metadata.precision == "fp16" else "0",
        "trt_profile_min_shapes": f"{INPUT_NAME}:1x{height}x{width}x3",
        "trt_profile_opt_shapes": f"{INPUT_NAME}:{plan.max_batch_size}x{height}x{width}x3",
        "trt_profile_max_shapes": f"{INPUT_NAME}:{plan.max_batch_size}x{height}x{width}x3",
    }
    if plan.cache_folder is not None:
        folder = str(plan.cache_folder)
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": folder,
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": folder,
        }
    return options
