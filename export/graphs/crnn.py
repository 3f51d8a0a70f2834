"""CRNN as ONNX nodes. Shapes: B batch, T columns, C classes."""

from __future__ import annotations

from typing import Any, Final

from export.graphs.builder import GraphBuilder
from export.graphs.ctc import CtcGraph
from export.graphs.interface import NoOptions
from export.graphs.parts import centred_pixels, write_layers
from export.graphs.recurrent import write_naming
from model.recognisers.crnn.network import CRNN


class CrnnGraph(CtcGraph[NoOptions]):
    """Writes CRNN."""

    def columns(self, network: Any) -> int:
        """Number of columns that the convolutions give."""
        count: int = network.config.columns
        return count

    def name_columns(self, g: GraphBuilder, network: CRNN, options: NoOptions, images: str) -> str:
        """Convolutions, with the pixels' scale in the first of them, and recurrent layers."""
        g.scope("convolutions")
        pixels, scale = centred_pixels(g, images)
        features = write_layers(g, g.transpose(pixels, (0, 3, 1, 2)), network.cnn, "cnn", scale)  # (B, channels, 1, T)
        g.scope("recurrent")
        columns = g.transpose(g.reshape(features, (0, -1, network.config.columns)), (2, 0, 1))
        return write_naming(g, columns, network.rnn, "rnn")


GRAPH: Final = CrnnGraph()
