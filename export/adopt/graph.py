"""The graph of an artifact around somebody else's graph, whose nodes stay as they are: pixels before it, a text after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from artifact.metadata import CONFIDENCES_NAME, INPUT_NAME, TOKEN_IDS_NAME
from export.adopt.description import Description
from export.adopt.original import GREY, Original
from export.graphs.builder import Array, GraphBuilder
from export.graphs.ctc import collapse_columns
from export.graphs.interface import BATCH, Ids

PREFIX: Final = "original/"
"""Prefix of all names that come from the original, so that none equals one of ours."""
IR_VERSION: Final = 8
"""Oldest format that is written: earlier ones list initialisers among the inputs."""
STANDARD_DOMAINS: Final = ("", "ai.onnx")
AXES_ARE_AN_INPUT: Final = {"ReduceSum": 13, "ReduceMax": 18}
"""The opset since which the axes of these operators are an input."""


class GraftBuilder(GraphBuilder):
    """Writes nodes for the opset of another file, and takes over that file's nodes."""

    def __init__(self, original: onnx.ModelProto, opset: int) -> None:
        """Start an empty graph.

        Args:
            original: The file, whose opsets are kept.
            opset: Its opset of the standard operators.
        """
        super().__init__()
        self._original, self._opset = original, opset
        self._values: dict[str, Array] = {}
        self._sparse: list[onnx.SparseTensorProto] = []

    def constant(self, value: Array, name: str) -> str:  # type: ignore[override]
        """Store a constant, and remember its value."""
        stored = super().constant(value, name)
        self._values.setdefault(stored, np.asarray(value))
        return stored

    def node(self, op_type: str, inputs: Sequence[str], **attributes: int | float | str | Sequence[int]) -> str:
        """Append a node, in the form that its operator has in this opset."""
        if len(inputs) == 2 and self._opset < AXES_ARE_AN_INPUT.get(op_type, 0):
            attributes["axes"] = self._values[inputs[1]].tolist()
            inputs = inputs[:1]
        return super().node(op_type, inputs, **attributes)

    def graft(self, picture: str, input_name: str, output_name: str) -> str:
        """Take over all nodes and weights.

        Args:
            picture: Our value that becomes their input.
            input_name: Name of their input.
            output_name: Name of their output; other outputs are left out.

        Returns:
            The name of their output here.
        """
        graph = onnx.GraphProto()
        graph.CopyFrom(self._original.graph)
        _rename(graph, {"": "", input_name: picture})
        self.nodes.extend(graph.node)
        self._initializers.extend(graph.initializer)
        self._sparse = list(graph.sparse_initializer)
        return PREFIX + output_name

    def model(self, name: str, metadata: dict[str, str], producer_version: str) -> onnx.ModelProto:
        """The finished model, checked, in the format and with the opsets of the original.

        Raises:
            onnx.checker.ValidationError: The graph is not valid ONNX.
        """
        graph = helper.make_graph(self.nodes, name, self._inputs, self._outputs, self._initializers)
        graph.sparse_initializer.extend(self._sparse)
        others = [entry for entry in self._original.opset_import if entry.domain not in STANDARD_DOMAINS]
        model = helper.make_model(
            graph,
            producer_name="parseq-export",
            producer_version=producer_version,
            opset_imports=[helper.make_opsetid("", self._opset), *others],
            ir_version=max(IR_VERSION, self._original.ir_version),
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model)
        return model


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Put the prefix before all names, in the bodies of loops and branches too; `names` has those that become another."""

    def new(name: str) -> str:
        return names.get(name, PREFIX + name)

    for node in graph.node:
        node.name = PREFIX + node.name if node.name else ""
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        for attribute in node.attribute:
            bodies = [*attribute.graphs, attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else [*attribute.graphs]
            for body in bodies:
                _rename(body, names)
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = new(value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = new(sparse.values.name)
    # Sizes noted in the file were those for its former input.
    del graph.value_info[:]
    del graph.quantization_annotation[:]


def write(original: Original, description: Description, table: Ids, steps: int, merged: Ids | None) -> GraftBuilder:
    """Write the whole graph.

    Args:
        original: The file.
        description: The file's description.
        table: The token id of each class, -1 for those that are never read.
        steps: T, the steps of its output.
        merged: int64 (tokens,): the token that stands for each one, where several are the same character; None: none are.
    """
    g = GraftBuilder(original.proto, original.opset)
    images = g.input(INPUT_NAME, TensorProto.UINT8, (BATCH, *description.size, 3))
    output = g.graft(write_picture(g, original, description, images), original.input_name, original.output_name)
    g.scope("read")
    scores = g.cast(output, TensorProto.FLOAT)
    if description.axes != "btc":
        scores = g.transpose(scores, [description.axes.index(axis) for axis in "btc"])
    if description.output == "logits":
        scores = g.node("LogSoftmax", [scores], axis=-1)
    if (table < 0).any():
        kept = np.flatnonzero(table >= 0)
        scores, table = g.node("Gather", [scores, g.constant(kept, "read_classes")], axis=2), table[kept]
    best = g.node("ReduceMax", [scores, g.constant(np.array([-1]), "last_axis")], keepdims=0)
    classes = g.node("ArgMax", [scores], axis=-1, keepdims=0)
    ids = g.node("Gather", [g.constant(table, "token_of_class"), classes], axis=0)
    if description.decoding == "ctc":
        logs = best if description.output == "logits" else g.node("Log", [best])
        answer = collapse_columns(g, ids, logs, steps)
        ids, confidences, rows = answer.token_ids, answer.confidences or "", steps + 1
    else:
        confidences, rows = g.node("Exp", [best]) if description.output == "logits" else best, steps
    g.scope("answer")
    if merged is not None:
        ids = g.node("Gather", [g.constant(merged, "same_character"), ids], axis=0)
    g.output(ids, TOKEN_IDS_NAME, TensorProto.INT64, (BATCH, rows))
    g.output(confidences, CONFIDENCES_NAME, TensorProto.FLOAT, (BATCH, rows))
    return g


def write_picture(g: GraphBuilder, original: Original, description: Description, images: str) -> str:
    """Write the nodes that make the original's input, in its type and layout, from uint8 `(B, H, W, 3)`."""
    g.scope("picture")
    values = g.cast(images, TensorProto.FLOAT)
    if description.colours == "bgr":
        values = g.node("Gather", [values, g.constant(np.array([2, 1, 0]), "blue_green_red")], axis=3)
    elif description.colours == "grey":
        weights = np.repeat(np.array(GREY)[:, None], original.channels, axis=1)
        values = g.matmul(values, g.constant(weights, "grey"))
    # In the order in which the original's makers compute it, so that no digit differs, which half precision would show.
    for operator, operand, nothing in (
        ("Div", description.divisor, 1),
        ("Sub", description.mean, 0),
        ("Div", description.std, 1),
    ):
        if np.any(np.array(operand) != nothing):
            values = g.node(operator, [values, g.constant(np.array(operand, np.float64), "normalise")])
    if description.layout == "nchw":
        values = g.transpose(values, (0, 3, 1, 2))
    element_type = helper.np_dtype_to_tensor_dtype(original.input_type)
    return values if element_type == TensorProto.FLOAT else g.cast(values, element_type)
