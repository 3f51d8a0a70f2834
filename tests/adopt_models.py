"""Recognisers as others export them, in miniature: a picture of coloured stripes is a text, one convolution reads it.

Every class has a colour. A picture is `STEPS` stripes; the class of a stripe is the one whose colour is nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from artifact.metadata import ArtifactMetadata
from export.adopt.words import Words

LETTERS = "abcdefghijkl"
HEIGHT, WIDTH, STEPS = 8, 48, 12
STRIPE = WIDTH // STEPS
SHARPNESS = 600.0
"""Of the classes' logits: the probability of the right one is nearly 1."""


def colours_of(count: int) -> NDArray[np.int64]:
    """Distinct colours, red, green and blue, `(count, 3)`; the first is black."""
    levels = np.array([0, 128, 255])
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    # Neighbours in the list are far from each other, and few colours are symmetric in red and blue.
    order = [0, *np.random.default_rng(2).permutation(np.arange(1, len(grid)))]
    return grid[order[:count]]


@dataclass(frozen=True)
class Foreign:
    """How such a file is made."""

    entries: Sequence[str] = LETTERS
    special: int = 0
    """The class of the blank, or of the end."""
    never: Sequence[int] = ()
    mean: float = 0.5
    std: float = 0.5
    bgr: bool = True
    nhwc: bool = False
    axes: str = "btc"
    probabilities: bool = True
    opset: int = 11
    batch: int | str = "N"
    width: int | str = "W"
    metadata: dict[str, str] = field(default_factory=dict)
    element_type: int = TensorProto.FLOAT

    @property
    def classes(self) -> int:
        return len(self.entries) + 1 + len(self.never)


def picture_of(ids: Sequence[int], count: int) -> NDArray[np.uint8]:
    """Stripes for tokens (0 the blank or the end, 1.. the entries), uint8 `(HEIGHT, WIDTH, 3)`, RGB; blanks behind them."""
    palette = colours_of(count)
    row = [*ids, *[0] * (STEPS - len(ids))]
    return np.broadcast_to(palette[row].repeat(STRIPE, 0), (HEIGHT, WIDTH, 3)).astype(np.uint8)


def write_foreign(path: Path, foreign: Foreign, **changes: Any) -> Path:
    """Write the file; `changes` are given to `onnx.save`."""
    onnx.save(foreign_model(foreign), path, **changes)
    return path


def foreign_model(foreign: Foreign) -> onnx.ModelProto:
    """Picture, convolution, classes."""
    tokens = len(foreign.entries) + 1
    named = [number for number in range(foreign.classes) if number != foreign.special and number not in foreign.never]
    weight, bias = np.zeros((foreign.classes, 3)), np.full(foreign.classes, -SHARPNESS)
    for token, number in enumerate([foreign.special, *named]):
        colour = (colours_of(tokens)[token] / 255 - foreign.mean) / foreign.std
        # Of |pixel - colour|^2 what depends on the class.
        weight[number] = 2 * SHARPNESS / 9 * (colour[::-1] if foreign.bgr else colour)
        bias[number] = -SHARPNESS / 9 * float(colour @ colour)
    kernel = np.broadcast_to(weight[:, :, None, None] / (HEIGHT * STRIPE), (foreign.classes, 3, HEIGHT, STRIPE))
    kind = helper.tensor_dtype_to_np_dtype(foreign.element_type)
    initializers = [
        numpy_helper.from_array(np.ascontiguousarray(kernel, np.float32).astype(kind), "weight"),
        numpy_helper.from_array(bias.astype(kind), "bias"),
        numpy_helper.from_array(np.array([0, foreign.classes, -1], np.int64), "shape"),
    ]
    nodes = [helper.make_node("Transpose", ["picture"], ["nchw"], perm=[0, 3, 1, 2])] if foreign.nhwc else []
    nodes += [
        helper.make_node("Conv", ["nchw" if foreign.nhwc else "picture", "weight", "bias"], ["map"], strides=[HEIGHT, STRIPE]),
        helper.make_node("Reshape", ["map", "shape"], ["bct"]),
        helper.make_node("Transpose", ["bct"], ["logits"], perm=[0, 2, 1]),
    ]
    last = "logits"
    if foreign.probabilities:
        nodes.append(helper.make_node("Softmax", ["logits"], ["softmax"], axis=2))
        last = "softmax"
    perm = ["btc".index(axis) for axis in foreign.axes]
    nodes.append(helper.make_node("Transpose", [last], ["scores"], perm=perm))
    sizes = (foreign.batch, HEIGHT, foreign.width, 3) if foreign.nhwc else (foreign.batch, 3, HEIGHT, foreign.width)
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("picture", foreign.element_type, sizes)],
        [helper.make_tensor_value_info("scores", foreign.element_type, ["x", "y", "z"])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", foreign.opset)], ir_version=7)
    helper.set_model_props(model, foreign.metadata)
    return model


def striped_words(_entries: Sequence[str], metadata: ArtifactMetadata, _font: Path | None) -> Words:
    """Instead of `draw_words`: words in stripes, with a blank between equal neighbours where the recogniser needs one."""
    rng = np.random.default_rng(1)
    texts, pixels = [], []
    while len(texts) < 40:
        ids: list[int] = []
        for token in rng.integers(1, len(LETTERS) + 1, rng.integers(2, 6)).tolist():
            if metadata.decode_mode == "ctc" and ids and (ids[-1] == token or rng.random() < 0.3):
                ids.append(0)
            ids.append(token)
        texts.append("".join(LETTERS[token - 1] for token in ids if token))
        noise = rng.normal(0, 6, (HEIGHT, WIDTH, 3))
        pixels.append(np.clip(picture_of(ids, len(LETTERS) + 1) + noise, 0, 255).astype(np.uint8))
    return Words(texts, np.stack(pixels))
