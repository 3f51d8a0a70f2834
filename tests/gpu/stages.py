"""The stages of the verification, each in a process of its own: a library that hangs can be ended only from outside.

python -m tests.gpu.stages NAME MATERIAL --provider cuda --rows FILE --seconds 60 --folder FOLDER
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnxruntime

from artifact.session import reason_of
from service.errors import StartupError
from service.process.cpu import cpu_budget
from service.sessions.providers import GPU_PROVIDERS, ORT_NAMES, preferred_provider
from tests.gpu import pace, serving, texts
from tests.gpu.driver import NoGpuError, ask_nvidia_smi, device_names, library_version
from tests.gpu.material import Graph, read_material
from tests.gpu.placement import Placement, PlacementError, placement
from tests.gpu.stage import Stage, open_on
from tests.gpu.table import RowFile

MAX_AT_ONCE = 4
"""Sessions that are opened for their logs."""


def providers(stage: Stage) -> None:
    """What is installed, and whether a session runs on it."""
    available = onnxruntime.get_available_providers()
    try:
        stage.add("devices", "ok", ", ".join(device_names()), devices=device_names())
    except NoGpuError as error:
        stage.add("devices", "FAILED" if stage.provider in GPU_PROVIDERS else "skipped", str(error))
    smi = ask_nvidia_smi("driver_version", "memory.total", "compute_cap")
    stage.add(
        "driver", "measured", "version {}, {} MiB, compute capability {}".format(*smi) if smi else "nvidia-smi does not say"
    )
    stage.add("onnxruntime", "measured", f"{onnxruntime.__version__}, providers {', '.join(available)}", providers=available)
    smallest = min(stage.material.graphs, key=lambda graph: (not graph.gpu, stage.material.path(graph).stat().st_size))
    try:
        preferred_provider(stage.provider, available)
        opened = open_on(stage.provider, stage.material.path(smallest), 1)
        opened.session.run(stage.material.expected(smallest.network).pixels[:1])
        stage.add("session", "ok", f"{smallest.file} runs on {ORT_NAMES[stage.provider]}, opened in {opened.seconds:.1f} s")
    except StartupError as error:
        stage.add("session", "FAILED", str(error))
    except Exception as error:  # whatever the provider raises
        stage.add("session", "FAILED", f"{smallest.file} cannot be run: {reason_of(error)}")
    # After a session has loaded them: from wheels they are nowhere where the loader looks.
    _versions(stage)


def _versions(stage: Stage) -> None:
    major = str(getattr(onnxruntime, "cuda_version", "") or "").partition(".")[0] or "13"
    runtime = library_version(f"libcudart.so.{major}", "cudaRuntimeGetVersion")
    cudnn = library_version("libcudnn.so.9", "cudnnGetVersion")
    # CUDA writes 13.0 as 13000, cuDNN 9.12.1 as 91201.
    cuda = "not found" if runtime is None else f"{runtime // 1000}.{runtime % 1000 // 10}"
    dnn = "not found" if cudnn is None else f"{cudnn // 10000}.{cudnn % 10000 // 100}.{cudnn % 100}"
    stage.add("libraries", "measured", f"CUDA {cuda}, cuDNN {dnn}", cuda=runtime, cudnn=cudnn)


def places(stage: Stage) -> None:
    """Where a real session puts the nodes of each graph; of one that is meant for GPUs all must be there."""
    # Each is a process that first loads CUDA's libraries, for seconds.
    with ThreadPoolExecutor(min(MAX_AT_ONCE, cpu_budget())) as pool:
        for graph, found in zip(stage.material.graphs, pool.map(partial(_placed, stage), stage.material.graphs), strict=True):
            _tell(stage, graph, found)


def _placed(stage: Stage, graph: Graph) -> Placement | str:
    """Where the nodes of a graph run, or why that is not known."""
    if stage.left_s < 1:
        return "not looked at: the time of this stage was over"
    try:
        return placement(stage.material.path(graph), None, ORT_NAMES[stage.provider], stage.left_s)
    except (PlacementError, subprocess.SubprocessError) as error:
        return str(error)


def _tell(stage: Stage, graph: Graph, found: Placement | str) -> None:
    of = f"{graph.network}, {graph.precision}"
    if isinstance(found, str):
        stage.add(of, "FAILED" if graph.gpu else "skipped", found)
    elif stage.provider not in GPU_PROVIDERS:
        stage.add(of, "measured", f"STAND-IN: the log of the CPU provider, {found.n_nodes} nodes")
    elif not graph.gpu:
        stage.add(of, "measured", f"{found}; it is meant for CPUs")
    else:
        stage.add(of, "FAILED" if found.on_cpu or found.copies else "ok", str(found))


@dataclass(frozen=True, slots=True)
class Budget:
    """A stage in the order of the table."""

    run: Callable[[Stage], None]
    seconds: float
    """What it may take, besides what those before it have left."""


STAGES: Mapping[str, Budget] = {
    "providers": Budget(providers, 20),
    "placement": Budget(places, 60),
    "texts": Budget(texts.run, 150),
    "pace": Budget(pace.run, 110),
    "serving": Budget(serving.run, 130),
}
TOTAL_S = 480.0
"""Eight minutes; what is over is for starting processes, and for ending them."""


def main() -> int:
    """Entry point of one stage; the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=STAGES)
    parser.add_argument("material", type=Path)
    parser.add_argument("--provider", required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    ends_s = time.monotonic() + args.seconds
    stage = Stage(args.name, read_material(args.material), args.provider, RowFile(args.rows), ends_s, args.folder)
    STAGES[args.name].run(stage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
