"""Writes ONNX graphs node by node: names, constants and the few operators that recognisers need.

The graph is written, not traced from an example: no branch can be frozen, every size but the batch is a constant, and the
result does not depend on the version of an exporter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

OPSET: Final = 20
"""The first opset with `Gelu`; ONNX Runtime knows it since 1.17."""
IR_VERSION: Final = 9
"""The ONNX file format that came with opset 20."""

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
FLOAT_TYPES: Final[dict[int, type[np.floating]]] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


@dataclass(frozen=True, slots=True)
class Carried:
    """A value that a loop hands from one round to the next; a string in `shape` is a dynamic size."""

    value: str
    """The value before the first round."""
    element_type: int
    shape: Sequence[int | str]


@dataclass(frozen=True, slots=True)
class Round:
    """The values that the body of a loop gives."""

    go_on: str
    """bool, scalar: whether there is another round."""
    carried: Sequence[str]
    stacked: Sequence[str]
    """Values whose rounds are collected along a new first axis."""


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph, those in the bodies of its loops too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


class GraphBuilder:
    """Collects nodes and constants. A value is known by its name, a string.

    Weights go through `linear`, `product` and `convolution`, and values that a quantised graph would round through
    `activation`, so that a graph of another precision is the same graph written by another builder.
    """

    flat_rows = True
    """Whether a single row of every crop is written as `(B, E)`, or as `(B, 1, E)`."""

    def __init__(self, float_type: int = TensorProto.FLOAT) -> None:
        """Start an empty graph.

        Args:
            float_type: Of the arithmetic and of the weights, `TensorProto.FLOAT` or `TensorProto.FLOAT16`.
        """
        self.float_type = float_type
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._weights: dict[str, str] = {}
        self._names: set[str] = set()
        self._scope = ""
        self.exact = False
        """Whether nodes written now are float32, however the rest of the graph rounds."""

    @property
    def half(self) -> bool:
        """Whether nodes written now compute in half precision."""
        return self.float_type == TensorProto.FLOAT16

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Constants and weights written inside are float32 and no value is rounded, whatever the rest of the graph is.

        Values that come from outside have to be cast.
        """
        usual = self.float_type, self.exact
        self.float_type, self.exact = TensorProto.FLOAT, True
        try:
            yield
        finally:
            self.float_type, self.exact = usual

    def scope(self, name: str) -> None:
        """Prefix the names of the nodes written inside, for readers of the graph or its profile."""
        self._scope = name

    def input(self, name: str, element_type: int, shape: Sequence[int | str]) -> str:
        """Declare an input; a string in `shape` is a dynamic size."""
        self._inputs.append(helper.make_tensor_value_info(name, element_type, shape))
        self._names.add(name)
        return name

    def optional_input(self, name: str, value: Array, shape: Sequence[int | str]) -> str:
        """Declare an input that has `value` unless it is given; a string in `shape` is a dynamic size."""
        tensor = numpy_helper.from_array(value, name)
        self._initializers.append(tensor)
        return self.input(name, tensor.data_type, shape)

    def output(self, value: str, name: str, element_type: int, shape: Sequence[int | str]) -> None:
        """Declare `value` an output called `name`."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, element_type, shape))

    def constant(self, value: Tensor | Array, name: str) -> str:
        """Store a constant once, however often it is asked for; floats get the graph's float type."""
        array = np.asarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)
        if array.dtype.kind == "f":
            array = array.astype(FLOAT_TYPES[self.float_type])
        array = np.asarray(array, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._unique(name)
            self._initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def node(self, op_type: str, inputs: Sequence[str], **attributes: int | float | str | Sequence[int]) -> str:
        """Append a node with one output; returns the output's name."""
        name = self._unique(f"{self._scope}/{op_type}")
        node = helper.make_node(op_type, list(inputs), [name], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return name

    def loop(self, rounds: int, carried: Sequence[Carried], write: Callable[[str, list[str]], Round]) -> list[str]:
        """Write a loop, which runs at least once.

        Args:
            rounds: Number of rounds, at most.
            carried: Values that every round replaces.
            write: Gets the round's number (int64, scalar, from 0) and the carried values, and writes the body.

        Returns:
            The stacked values.
        """
        name = self._unique(f"{self._scope}/Loop")
        number, condition = self._unique(f"{name}/round"), self._unique(f"{name}/go_on")
        names = [self._unique(f"{name}/carried_{index}") for index in range(len(carried))]
        with self._body() as nodes:
            after = write(number, names)
            results = list(after.carried)
            # Two outputs of a body must not be the same value.
            results += [self.node("Identity", [value]) if value in results else value for value in after.stacked]
        values: list[tuple[str, int, Sequence[int | str]]] = [
            (number, TensorProto.INT64, ()),
            (condition, TensorProto.BOOL, ()),
        ]
        values += [(inside, value.element_type, value.shape) for inside, value in zip(names, carried, strict=True)]
        body = helper.make_graph(
            nodes,
            f"{name}/body",
            [helper.make_tensor_value_info(*value) for value in values],
            [helper.make_value_info(result, onnx.TypeProto()) for result in (after.go_on, *results)],
        )
        outputs = [self._unique(f"{name}/after_{index}") for index in range(len(results))]
        trips = self.constant(np.array(rounds, dtype=np.int64), "rounds")
        go_on = self.constant(np.array(True), "true")
        before = [value.value for value in carried]
        self.nodes.append(helper.make_node("Loop", [trips, go_on, *before], outputs, name=name, body=body))
        return outputs[len(carried) :]

    @contextmanager
    def _body(self) -> Iterator[list[onnx.NodeProto]]:
        """Nodes written inside go into a list of their own: they can use outer values, but not the other way round."""
        outside, self.nodes = self.nodes, []
        caches = self._caches()
        kept = [dict(cache) for cache in caches]
        # ONNX Runtime fuses nodes only within one body, so values derived from constants are written again there.
        for cache in caches:
            cache.clear()
        try:
            yield self.nodes
        finally:
            self.nodes = outside
            for cache, before in zip(caches, kept, strict=True):
                cache.clear()
                cache.update(before)

    def _caches(self) -> list[dict[Any, Any]]:
        """The caches that hold names of written values."""
        return [self._weights]

    def model(self, name: str, metadata: dict[str, str], producer_version: str) -> onnx.ModelProto:
        """The finished model, checked.

        Raises:
            onnx.checker.ValidationError: The graph is not valid ONNX.
        """
        graph = helper.make_graph(self.nodes, name, self._inputs, self._outputs, self._initializers)
        model = helper.make_model(
            graph,
            producer_name="parseq-export",
            producer_version=producer_version,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _unique(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    # Operators. Shapes as in the callers' comments; `0` in a shape keeps that axis, here always the batch.

    def add(self, left: str, right: str) -> str:
        """Sum, with broadcasting."""
        return self.node("Add", [left, right])

    def matmul(self, left: str, right: str) -> str:
        """Matrix product over the last two axes."""
        return self.node("MatMul", [left, right])

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """Reshape; a 0 keeps an axis."""
        sizes = np.array(shape, dtype=np.int64)
        return self.node("Reshape", [value, self.constant(sizes, "shape_" + "_".join(map(str, shape)))])

    def transpose(self, value: str, order: Sequence[int]) -> str:
        """Permute the axes."""
        return self.node("Transpose", [value], perm=list(order))

    def concat(self, values: Sequence[str], axis: int) -> str:
        """Join along `axis`; one value is returned as it is."""
        return values[0] if len(values) == 1 else self.node("Concat", values, axis=axis)

    def split(self, value: str, count: int, axis: int) -> list[str]:
        """Cut into `count` equal parts along `axis`."""
        names = [self._unique(f"{self._scope}/Split_{part}") for part in range(count)]
        self.nodes.append(helper.make_node("Split", [value], names, name=names[0], axis=axis, num_outputs=count))
        return names

    def restrict(self, logits: str, penalty: str | None) -> str:
        """Logits, float32 `(B, S, C)`, with the penalty `(B or 1, C)` of what may not be read, if there is one."""
        if penalty is None:
            return logits
        return self.add(logits, self.node("Unsqueeze", [penalty, self.constant(np.array([1]), "steps_axis")]))

    def top(self, value: str, count: int) -> tuple[str, str]:
        """The largest along the last axis, largest first, and their places; of equal ones the first is taken."""
        names = self._unique(f"{self._scope}/TopK_values"), self._unique(f"{self._scope}/TopK_places")
        largest = self.constant(np.array([count]), f"top_{count}")
        self.nodes.append(helper.make_node("TopK", [value, largest], list(names), name=names[0], axis=-1))
        return names

    def softmax(self, value: str) -> str:
        """Softmax over the last axis."""
        return self.node("Softmax", [value], axis=-1)

    def gelu(self, value: str) -> str:
        """The exact GELU."""
        return self.node("Gelu", [value])

    def relu(self, value: str) -> str:
        """ReLU."""
        return self.node("Relu", [value])

    def cast(self, value: str, element_type: int) -> str:
        """Convert to another type."""
        return self.node("Cast", [value], to=element_type)

    def activation(self, value: str, key: str) -> str:
        """Mark a value that a quantised graph would round; `key` names the kind of value. This builder returns it as it is."""
        return value

    def weight(self, weight: Tensor, name: str) -> str:
        """Store the transpose of a weight that torch keeps as `(out, in)`. A name must always mean the same weight."""
        if name not in self._weights:
            # Converting and hashing large weights again at every step would take most of the time of an export.
            self._weights[name] = self.constant(weight.T, f"{name}.weight")
        return self._weights[name]

    def product(self, value: str, weight: Tensor, name: str) -> str:
        """`value @ weight.T`; `weight` as torch keeps it, `(out, in)`."""
        return self.matmul(self.activation(value, f"{name}.input"), self.weight(weight, name))

    def linear(self, value: str, weight: Tensor, bias: Tensor, name: str) -> str:
        """`value @ weight.T + bias`."""
        return self.add(self.product(value, weight, name), self.constant(bias, f"{name}.bias"))

    def convolution(
        self, value: str, weight: Tensor, bias: Tensor, name: str, *, strides: Sequence[int], pads: Sequence[int]
    ) -> str:
        """A convolution of an activation; `weight` is `(out, in, height, width)`."""
        inputs = [value, self.constant(weight, f"{name}.weight"), self.constant(bias, f"{name}.bias")]
        return self.node("Conv", inputs, kernel_shape=list(weight.shape[2:]), strides=list(strides), pads=list(pads))

    def layer_norm(self, value: str, norm: nn.LayerNorm, name: str) -> str:
        """Layer norm over the last axis."""
        scale = self.constant(norm.weight, f"{name}.weight")
        shift = self.constant(norm.bias, f"{name}.bias")
        return self.node("LayerNormalization", [value, scale, shift], axis=-1, epsilon=norm.eps)
