"""The GPU image, as far as a machine without a GPU and a base without CUDA can prove it."""

from __future__ import annotations

import re

from building import GPU_FILE, base_name, build, check_size
from container import TMP, run_once, serving
from sample_crops import read_samples
from steps import check, heading, note

EXIT_STARTUP_FAILED = 3
OF_BASE_AND_DRIVER = re.compile(r"lib(cublas|cublasLt|cudart|cudnn|cufft|curand|nvrtc)\.so\.\d+|libcuda\.so\.1")
"""What NVIDIA's CUDA runtime image with cuDNN brings, and what the container runtime takes from the host."""


def verify_gpu_image(image: str) -> None:
    """Build it, see that it refuses to start without a GPU, and that all but the GPU works."""
    heading("The GPU image, on a base without CUDA")
    build(GPU_FILE, image)
    check_size(image, GPU_FILE, None)
    exit_code, output = run_once(image, arguments=["--help"])
    check(exit_code == 0 and "usage: parseq-serve" in output, "parseq-serve --help", output)
    exit_code, output = run_once(image, *TMP)
    message = output.splitlines()[-1] if output else ""
    check(
        exit_code == EXIT_STARTUP_FAILED and "0 GPUs are visible" in message, "without a GPU it ends with exit code 3", output
    )
    note(message)
    _compare_with_base(image)
    with serving(image, *TMP, "--env=PARSEQ_PROVIDER=cpu") as container:
        note("told to use the CPU:")
        read_samples(container)
        check(container.stop() == 0, "it ends with exit code 0")


def _compare_with_base(image: str) -> None:
    """What onnxruntime-gpu was built for, against what the name of the real base promises."""
    code = "import service; from onnxruntime.capi.build_and_package_info import cuda_version; print(cuda_version)"
    version = run_once(image, "--entrypoint=python3", arguments=["-c", code])[1].splitlines()[-1]
    check(
        f":{version}." in base_name(GPU_FILE), f"onnxruntime-gpu was built for CUDA {version}, which {base_name(GPU_FILE)} has"
    )
    library = "$(find /opt/venv -name libonnxruntime_providers_cuda.so)"
    missing = run_once(image, "--entrypoint=sh", arguments=["-c", f"ldd {library}"])[1]
    names = sorted({line.split()[0] for line in missing.splitlines() if "not found" in line})
    check(
        bool(names) and all(map(OF_BASE_AND_DRIVER.fullmatch, names)),
        "its CUDA provider lacks only libraries of the real base and of the driver",
        names,
    )
    note(", ".join(names))
