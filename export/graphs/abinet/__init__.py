"""ABINet as ONNX nodes."""

from export.graphs.abinet.graph import GRAPH

__all__ = ["GRAPH"]
