"""The GPUs that NVIDIA's driver shows, asked without any library but the driver's own.

python -m tests.gpu.driver (exit status 2, and one line, where there is none)
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

CUDA_DRIVER = "libcuda.so.1"
EXIT_NO_GPU = 2
NAME_BYTES = 256
QUERY_TIMEOUT_S = 20


class NoGpuError(RuntimeError):
    """There is none; the message says what is missing."""


def device_names(load: Callable[[str], Any] = ctypes.CDLL) -> list[str]:
    """The name of each device that this process sees.

    Raises:
        NoGpuError: There is no driver, or it shows no device.
    """
    try:
        driver = load(CUDA_DRIVER)
    except OSError as error:
        raise NoGpuError(f"there is no GPU here: {CUDA_DRIVER}, which NVIDIA's driver installs, cannot be loaded") from error
    status, count = driver.cuInit(0), ctypes.c_int(0)
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        raise NoGpuError(
            f"there is no GPU here: NVIDIA's driver is installed but shows {count.value} devices (its status is {status}); "
            "check what the container is given, and CUDA_VISIBLE_DEVICES"
        )
    names = []
    for number in range(count.value):
        name = ctypes.create_string_buffer(NAME_BYTES)
        driver.cuDeviceGetName(name, NAME_BYTES, number)
        names.append(name.value.decode(errors="replace"))
    return names


def ask_nvidia_smi(*fields: str) -> list[str]:
    """What `nvidia-smi` says of the first GPU, one text for each field; nothing where it is not installed or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [value.strip() for value in told.partition("\n")[0].split(",")]


def library_version(library: str, function: str, load: Callable[[str], Any] = ctypes.CDLL) -> int | None:
    """What a library of NVIDIA says of its version; `None` where it cannot be loaded.

    Args:
        library: Its file, such as `libcudnn.so.9`.
        function: `cudnnGetVersion`, which returns the number, or one that writes it where it is told, such as
            `cudaRuntimeGetVersion`.
        load: Loads it.
    """
    try:
        loaded = load(library)
    except OSError:
        return None
    if function == "cudnnGetVersion":
        loaded.cudnnGetVersion.restype = ctypes.c_size_t
        return int(loaded.cudnnGetVersion())
    number = ctypes.c_int(0)
    return number.value if getattr(loaded, function)(ctypes.byref(number)) == 0 else None


def main() -> int:
    """Entry point; the exit code."""
    try:
        print(f"GPUs: {', '.join(device_names())}")
    except NoGpuError as error:
        print(f"verify-gpu: {error}", file=sys.stderr)
        return EXIT_NO_GPU
    return 0


if __name__ == "__main__":
    sys.exit(main())
