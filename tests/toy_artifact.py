"""Artifacts that compute instead of reading: the text of a crop is written in its pixels, so every answer is known.

The toy takes the ids from the red bytes of the first row and the confidences (in 255ths) from the green bytes. Crops that
already have the model's size pass the resize unchanged, so the answer is the same through the whole service, in whatever
company the crop travels.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from artifact.metadata import ArtifactMetadata

CHARSET = "0123456789abcdefghijklmnopqrstuvwxyz"
HEIGHT, WIDTH, MAX_LABEL_LENGTH = 32, 128, 25
STEPS = MAX_LABEL_LENGTH + 1
POISON = 201
"""A crop whose last pixel of the first row has this blue value makes the run of its batch fail."""
CONFIDENCE_BYTE = 250

METADATA = ArtifactMetadata(
    model_name="toy",
    charset=CHARSET,
    image_height=HEIGHT,
    image_width=WIDTH,
    max_label_length=MAX_LABEL_LENGTH,
    decode_mode="nar",
    refine_iters=0,
    precision="fp32",
    weights_sha256="0" * 64,
    exporter_version="test",
    opset=18,
)


def pixels_of(text: str, *, poisoned: bool = False) -> NDArray[np.uint8]:
    """The crop that reads as `text`: uint8 `[32, 128, 3]`."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    ids = [CHARSET.index(char) + 1 for char in text]
    pixels[0, : len(ids), 0] = ids
    pixels[0, :STEPS, 1] = CONFIDENCE_BYTE
    if poisoned:
        pixels[0, -1, 2] = POISON
    return pixels


def png_of(text: str, *, poisoned: bool = False) -> bytes:
    """The same as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_of(text, poisoned=poisoned)).save(buffer, "PNG")
    return buffer.getvalue()


def confidence_of(text: str) -> float:
    """The confidence of a crop made here: each token and the end of the text at the same probability."""
    return math.pow(CONFIDENCE_BYTE / 255, min(len(text) + 1, STEPS))


def write_artifact(
    path: Path, *, work: int = 0, metadata: dict[str, str] | None = None, batch: int | str = "batch", broken: bool = False
) -> Path:
    """Write a toy artifact.

    Args:
        path: Of the file.
        work: Matrix products of about 9 million multiplications for each crop, to make a run last.
        metadata: Instead of the metadata that fits the graph.
        batch: The batch axis: a name, or a number for a fixed one.
        broken: Every run fails.
    """
    constants = {
        "row": ([0], np.int64), "row_end": ([1], np.int64), "axis_1": ([1], np.int64), "axis_2": ([2], np.int64),
        "steps": ([STEPS], np.int64), "zero": ([0], np.int64), "n_tokens": (len(CHARSET) + 1, np.int64),
        "last": ([WIDTH - 1], np.int64),
        "width": ([WIDTH], np.int64), "byte": ([255.0], np.float32), "poison": (POISON, np.uint8),
        "alarm": ([0.0], np.float32), "far": (5, np.int64), "offset": (5 if broken else 0, np.int64),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Slice", ["images", "row", "row_end", "axis_1"], ["first_row"]),
        node("Squeeze", ["first_row", "axis_1"], ["line"]),  # [batch, width, 3]
        node("Slice", ["line", "zero", "steps", "axis_1"], ["tokens"]),
        node("Split", ["tokens"], ["red", "green", "blue"], axis=2, num_outputs=3),
        node("Squeeze", ["red", "axis_2"], ["red_bytes"]),
        node("Cast", ["red_bytes"], ["ids"], to=TensorProto.INT64),
        node("Mod", ["ids", "n_tokens"], ["token_ids"]),
        node("Squeeze", ["green", "axis_2"], ["green_bytes"]),
        node("Cast", ["green_bytes"], ["green_floats"], to=TensorProto.FLOAT),
        node("Div", ["green_floats", "byte"], ["probabilities"]),
        # A poisoned crop anywhere in the batch makes the index below point outside its one-element table.
        node("Slice", ["line", "last", "width", "axis_1"], ["last_pixel"]),
        node("Equal", ["last_pixel", "poison"], ["is_poison"]),
        node("Cast", ["is_poison"], ["poison_flags"], to=TensorProto.INT64),
        node("ReduceMax", ["poison_flags"], ["any_poison"], keepdims=0),
        node("Mul", ["any_poison", "far"], ["poison_index"]),
        node("Add", ["poison_index", "offset"], ["index"]),
        node("Gather", ["alarm", "index"], ["nothing"]),
        node("Add", ["probabilities", "nothing"], ["healthy"]),
    ]
    initializers = [numpy_helper.from_array(np.array(value, dtype), name) for name, (value, dtype) in constants.items()]
    nodes += _work_nodes(work)
    initializers += _work_constants(work)
    nodes.append(node("Add", ["healthy", "busy"] if work else ["healthy", "alarm"], ["confidences"]))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "toy",
        [info("images", TensorProto.UINT8, [batch, HEIGHT, WIDTH, 3])],
        [
            info("token_ids", TensorProto.INT64, [batch, STEPS]),
            info("confidences", TensorProto.FLOAT, [batch, STEPS]),
        ],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, METADATA.to_map() if metadata is None else metadata)
    onnx.save(model, path)
    return path


def _work_nodes(work: int) -> list[onnx.NodeProto]:
    """Products with a matrix of zeros, summed to a zero for each crop: much arithmetic, no effect."""
    if not work:
        return []
    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["all_floats"], to=TensorProto.FLOAT),
        node("Reshape", ["all_floats", "flat_shape"], ["work_0"]),
    ]
    nodes += [node("MatMul", [f"work_{step}", "zeros"], [f"work_{step + 1}"]) for step in range(work)]
    return [
        *nodes,
        node("ReduceSum", [f"work_{work}", "axes_12"], ["busy_3d"]),
        node("Squeeze", ["busy_3d", "axis_2"], ["busy"]),
    ]


def _work_constants(work: int) -> list[onnx.TensorProto]:
    if not work:
        return []
    side = WIDTH * 3
    return [
        numpy_helper.from_array(np.array([-1, HEIGHT, side], np.int64), "flat_shape"),
        numpy_helper.from_array(np.zeros((side, side), np.float32), "zeros"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes_12"),
    ]
