"""Where ONNX Runtime's CUDA provider would run each node of a graph, answered without a GPU.

    python -m tests.gpu.placement FILE.onnx...

A session decides placement when it is created, from the list of kernels that its provider has; nothing is computed for that.
All that a machine without a GPU lacks is the driver. So a small library is compiled that stands in for it: devices that are
there, memory that is ordinary memory, calls that do nothing. A second Python process is started with that library in front of
the real ones, opens the session and logs the placement, which is read back here.

This shows which nodes would run on the GPU, which would stay on the CPU, and which copies between the two would be inserted.
It says nothing about results or speed. It needs Linux, gcc and an environment with `onnxruntime-gpu[cuda,cudnn]`.

Exit status: 0 if no graph leaves work on the CPU or copies inside, 1 if one does, 2 if the question cannot be asked.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
SHAPE_OPS = frozenset({"Shape", "Gather", "Unsqueeze", "Squeeze", "Concat", "Slice", "Reshape", "ConstantOfShape"})
"""ONNX Runtime keeps the arithmetic of shapes on the CPU on purpose; it costs no copy."""
TIMEOUT_S = 300
EXIT_NOT_ASKED = 2

# Of the attributes of a device only the major version of its compute capability (75) has to look real.
STAND_IN = r"""
#include <stdlib.h>
#include <string.h>
enum { MAJOR_VERSION = 75 };
static int make(void **handle) { *handle = malloc(64); return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDeviceProperties(void *properties) { memset(properties, 0, 1024); return 0; }
int cudaGetDeviceProperties_v2(void *properties) { memset(properties, 0, 1024); return 0; }
int cudaDeviceGetAttribute(int *value, int attribute) { *value = attribute == MAJOR_VERSION ? 9 : 0; return 0; }
int cudaMemGetInfo(size_t *unused, size_t *all) { *unused = *all = (size_t)80 << 30; return 0; }
int cudaMalloc(void **memory, size_t bytes) { *memory = malloc(bytes); return 0; }
int cudaMallocHost(void **memory, size_t bytes) { return cudaMalloc(memory, bytes); }
int cudaHostAlloc(void **memory, size_t bytes) { return cudaMalloc(memory, bytes); }
int cudaFree(void *memory) { free(memory); return 0; }
int cudaFreeHost(void *memory) { free(memory); return 0; }
int cudaMemcpy(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); return 0; }
#define MAKES(name) int name(void **handle) { return make(handle); }
MAKES(cudaStreamCreate) MAKES(cudaStreamCreateWithFlags) MAKES(cudaEventCreateWithFlags)
MAKES(cublasCreate_v2) MAKES(cublasLtCreate) MAKES(cudnnCreate)
#define DOES_NOTHING(name) int name(void) { return 0; }
DOES_NOTHING(cudaSetDevice) DOES_NOTHING(cudaGetLastError) DOES_NOTHING(cudaDeviceSynchronize)
DOES_NOTHING(cudaStreamDestroy) DOES_NOTHING(cudaStreamSynchronize) DOES_NOTHING(cudaEventDestroy)
DOES_NOTHING(cudaMemset) DOES_NOTHING(cudaMemsetAsync)
DOES_NOTHING(cublasDestroy_v2) DOES_NOTHING(cublasSetStream_v2) DOES_NOTHING(cublasSetMathMode) DOES_NOTHING(cublasLtDestroy)
DOES_NOTHING(cudnnDestroy) DOES_NOTHING(cudnnSetStream) DOES_NOTHING(cuTensorMapEncodeTiled)
"""

OPEN_SESSION = f"""
import sys, onnxruntime
getattr(onnxruntime, "preload_dlls", lambda: None)()
options = onnxruntime.SessionOptions()
options.log_severity_level = 0
onnxruntime.InferenceSession(sys.argv[1], options, providers=list(dict.fromkeys([sys.argv[2], {CPU!r}])))
"""

_ALL_ON_ONE = re.compile(r"All nodes placed on \[(\w+)\]\. Number of nodes: (\d+)")
_SECTION = re.compile(r"placed on \[(\w+)\]")
_NODE = re.compile(r"VerifyEachNodeIsAssignedToAnEp\]\s+(\w+) \(")


class PlacementError(RuntimeError):
    """The question cannot be asked here; the message names what is missing."""


@dataclass(slots=True)
class Placement:
    """Nodes by provider and operator; where all of them share a provider their operators are not listed."""

    nodes: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def n_nodes(self) -> int:
        """All of them."""
        return sum(sum(ops.values()) for ops in self.nodes.values())

    @property
    def on_cpu(self) -> Counter[str]:
        """Nodes that compute on the CPU."""
        return Counter({op: count for op, count in self.nodes.get(CPU, Counter()).items() if op not in SHAPE_OPS})

    @property
    def copies(self) -> int:
        """Copies between GPU and CPU inside the graph."""
        return sum(count for ops in self.nodes.values() for op, count in ops.items() if op.startswith("Memcpy"))

    def __str__(self) -> str:
        """One line."""
        counts = ", ".join(f"{sum(ops.values())} nodes on {provider}" for provider, ops in self.nodes.items())
        left = ", ".join(f"{op} {count}" for op, count in self.on_cpu.most_common()) or "none"
        return f"{counts}; computing on the CPU: {left}; copies: {self.copies}"


def read_log(log: str, wanted: str = CUDA) -> Placement:
    """The placement in a session's verbose log.

    Raises:
        PlacementError: there is none, or nothing is on the provider that is wanted.
    """
    placement, provider = Placement(), ""
    for line in log.splitlines():
        if whole := _ALL_ON_ONE.search(line):
            placement.nodes.setdefault(whole[1], Counter())["(all)"] += int(whole[2])
        elif section := _SECTION.search(line):
            provider = section[1]
        elif provider and (node := _NODE.search(line)):
            placement.nodes.setdefault(provider, Counter())[node[1]] += 1
    if wanted not in placement.nodes:
        end = log.strip().splitlines()[-1:] or ["(nothing)"]
        raise PlacementError(
            f"the session did not use {wanted}: install onnxruntime-gpu[cuda,cudnn]; its log ends: {end[0][-300:]}"
        )
    return placement


def build_stand_in(folder: Path) -> Path:
    """Compile the library that stands in for the driver.

    Raises:
        PlacementError: there is no gcc.
    """
    if shutil.which("gcc") is None:
        raise PlacementError("gcc is needed to build a stand-in for the GPU driver: install it")
    source, library = folder / "stand_in.c", folder / "libcuda.so.1"
    source.write_text(STAND_IN, encoding="utf-8")
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library


def placement(path: Path, library: Path | None, provider: str = CUDA, timeout_s: float = TIMEOUT_S) -> Placement:
    """Open a session on `path` in a process of its own and read where its nodes went.

    Args:
        path: The graph.
        library: Stands in for the driver; `None`: the driver itself.
        provider: To be used, by ONNX Runtime's name.
        timeout_s: How long that may take.

    Raises:
        PlacementError: no session with the provider came about.
        SubprocessError: it took too long.
    """
    environment = dict(os.environ)
    if library is not None:
        environment |= {"LD_PRELOAD": str(library), "LD_LIBRARY_PATH": str(library.parent)}
    command = [sys.executable, "-c", OPEN_SESSION, str(path), provider]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=timeout_s, check=False)
    return read_log((done.stdout + done.stderr).decode(errors="replace"), provider)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.placement", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", metavar="FILE.onnx", type=Path, nargs="+")
    files: list[Path] = parser.parse_args(arguments).files
    clean = True
    try:
        with tempfile.TemporaryDirectory() as folder:
            library = build_stand_in(Path(folder))
            for path in files:
                found = placement(path, library)
                ok = not found.on_cpu and not found.copies
                clean &= ok
                print(f"{'ok ' if ok else 'BAD'} {path.name}: {found}")
    except (PlacementError, subprocess.SubprocessError) as error:
        print(f"gpu_placement: error: {error}", file=sys.stderr)
        return EXIT_NOT_ASKED
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
