"""Ranges of the values that an int8 graph rounds, observed on crops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from artifact.metadata import INPUT_NAME
from artifact.session import open_cpu_session
from export.graphs.builder import GraphBuilder
from export.graphs.int8 import CalibrationBuilder, Range

BATCH: Final = 16


def observe_ranges(write: Callable[[GraphBuilder], None], pixels: NDArray[np.uint8]) -> dict[str, Range]:
    """Read crops with the float32 graph and note the smallest and largest of every value that would be rounded.

    Args:
        write: Writes the graph without loops: values inside a loop cannot be observed.
        pixels: uint8 `(N, H, W, 3)`: crops like those it will read, and never those it is tested on.
    """
    builder = CalibrationBuilder()
    write(builder)
    graph = builder.model("calibration", {}, "0")
    # One value may be rounded in several places, such as the memory by every layer of the decoder.
    seen = [(key, value) for key, values in builder.observed.items() for value in values]
    values = list(dict.fromkeys(value for _, value in seen))
    del graph.graph.output[:]
    for value in values:
        graph.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    session = open_cpu_session(graph.SerializeToString())
    ranges: dict[str, Range] = {}
    for start in range(0, len(pixels), BATCH):
        outputs = dict(zip(values, session.run(values, {INPUT_NAME: pixels[start : start + BATCH]}), strict=True))
        limits = {value: (float(array.min()), float(array.max())) for value, array in outputs.items()}
        for key, value in seen:
            low, high = ranges.get(key, (0.0, 0.0))
            ranges[key] = min(low, limits[value][0]), max(high, limits[value][1])
    return ranges
