"""How fast: crops a second and milliseconds a run by batch size, one run at a time, copies to and from the device included."""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import onnxruntime

from artifact.session import reason_of
from service.errors import StartupError
from service.sessions.devices import DeviceSession
from service.sessions.providers import ORT_NAMES
from tests.gpu.material import Graph
from tests.gpu.stage import Stage, open_on

BATCHES = (1, 8, 32, 64, 128)
WARM_RUNS = 2
MIN_RUNS = 3
SLICE_S = 0.8
"""Of each batch size."""
GRAPH_S = 2 * SLICE_S * len(BATCHES)
"""What is left for a graph must be more than that, or it is not begun."""
ENGINE_S = 60.0
"""The same where TensorRT builds an engine first."""


def measure(
    session: DeviceSession, batch: int, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], slice_s: float
) -> float:
    """Seconds of a run, the median of those of a slice."""
    crops = np.resize(pixels, (batch, *pixels.shape[1:]))
    for _ in range(WARM_RUNS):
        session.run(crops)
    durations_s: list[float] = []
    ends_s = time.monotonic() + slice_s
    while len(durations_s) < MIN_RUNS or time.monotonic() < ends_s:
        started_s = time.monotonic()
        session.run(crops)
        durations_s.append(time.monotonic() - started_s)
    return median(durations_s)


def run(stage: Stage) -> None:
    """A row for each graph whose pace is of interest, and provider."""
    graphs = sorted((graph for graph in stage.material.graphs if graph.pace), key=lambda graph: graph.precision != "fp16")
    for graph in graphs:
        _measure_graph(stage, graph, stage.provider, GRAPH_S)
    if ORT_NAMES["tensorrt"] not in onnxruntime.get_available_providers() or stage.provider == "cpu":
        stage.add("TensorRT", "skipped", "this installation has no provider for it")
        return
    for graph in (graph for graph in graphs if graph.precision == "fp16"):
        _measure_graph(stage, graph, "tensorrt", ENGINE_S)


def _measure_graph(stage: Stage, graph: Graph, provider: str, needs_s: float) -> None:
    of = f"{graph.pace}, {graph.precision}, {provider}"
    if stage.left_s < needs_s:
        stage.add(of, "skipped", f"{max(0.0, stage.left_s):.0f} s were left, and it may need {needs_s:.0f}")
        return
    pixels = stage.material.expected(graph.network).pixels
    found, figures = [], {}
    started_s = time.monotonic()
    try:
        opened = open_on(provider, stage.material.path(graph), BATCHES[-1], stage.folder)
        opened.session.run(pixels[:1])
        ready_s = time.monotonic() - started_s
        seconds_a_crop = 0.0
        for batch in BATCHES:
            if stage.left_s < max(2 * SLICE_S, (WARM_RUNS + MIN_RUNS) * batch * seconds_a_crop):
                found.append(f"{batch} and more: skipped, the time would not do")
                break
            seconds = measure(opened.session, batch, pixels, SLICE_S)
            seconds_a_crop = seconds / batch
            found.append(f"{batch}: {batch / seconds:,.0f}/s, {1000 * seconds:.2f} ms")
            figures[str(batch)] = {"crops_per_s": batch / seconds, "ms": 1000 * seconds}
    except StartupError as error:
        # TensorRT is listed by every build for GPUs, also where its libraries are not installed.
        stage.add(of, "FAILED" if provider == stage.provider else "skipped", str(error))
        return
    except Exception as error:  # whatever the provider raises: the others are measured all the same
        stage.add(of, "FAILED", f"a run failed: {reason_of(error)}")
        return
    built = "engine built" if provider == "tensorrt" else "ready"
    stage.add(of, "measured", f"{built} in {ready_s:.1f} s; " + "; ".join(found), ready_s=ready_s, batches=figures)
