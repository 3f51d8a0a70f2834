"""PARSeq as ONNX nodes."""

from export.graphs.parseq.graph import GRAPH

__all__ = ["GRAPH"]
