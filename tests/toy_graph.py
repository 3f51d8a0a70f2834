"""The toy recogniser as ONNX nodes: all that it adds to be exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from export.graphs import interface
from export.graphs.builder import GraphBuilder
from export.graphs.ctc import CtcGraph
from export.graphs.interface import Graph, NoOptions, register
from export.graphs.parts import centred_pixels
from tests.toy_recogniser import TOY, Toy, toy_registered


def write_columns(g: GraphBuilder, network: Toy, images: str) -> str:
    """Logits of the columns, float `(B, T, C)`, of uint8 `(B, H, W, 3)`."""
    (height, _), columns, width = network.config.img_size, network.config.max_label_length, network.config.column_width
    pixels, scale = centred_pixels(g, images)
    pixels = g.transpose(g.reshape(pixels, (0, height, columns, width, 3)), (0, 2, 4, 1, 3))
    naming = network.naming
    return g.linear(g.reshape(pixels, (0, columns, -1)), naming.weight * scale, naming.bias, "naming")


class ToyGraph(CtcGraph[NoOptions]):
    """Columns to text."""

    def name_columns(self, g: GraphBuilder, network: Toy, options: NoOptions, images: str) -> str:
        return write_columns(g, network, images)


@contextmanager
def toy_exportable(graph: Graph[Any] | None = None) -> Iterator[None]:
    """The toy among the recognisers, and among those with a graph, for a while."""
    with toy_registered():
        register(TOY.name, graph or ToyGraph())
        try:
            yield
        finally:
            del interface._registered[TOY.name]
