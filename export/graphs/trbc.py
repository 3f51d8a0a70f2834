"""TRBC as ONNX nodes. Shapes: B batch, T columns, C classes."""

from __future__ import annotations

from typing import Any, Final

from export.graphs.builder import GraphBuilder
from export.graphs.ctc import CtcGraph
from export.graphs.interface import NoOptions
from export.graphs.recurrent import write_head
from export.graphs.trb import write_columns
from model.recognisers.trbc.network import TRBC


class TrbcGraph(CtcGraph[NoOptions]):
    """Writes TRBC."""

    def columns(self, network: Any) -> int:
        """As many as the features have."""
        count: int = network.config.columns
        return count

    def name_columns(self, g: GraphBuilder, network: TRBC, options: NoOptions, images: str) -> str:
        """The columns, and what each is."""
        columns = write_columns(g, network, images)
        g.scope("head")
        return write_head(g, columns, network.Prediction)


GRAPH: Final = TrbcGraph()
