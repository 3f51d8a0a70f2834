"""Write the graphs whose placement on a GPU is checked: no weights are needed for that, and no parity gate.

python -m export.gpu_graphs FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from onnx import TensorProto

from artifact.metadata import DecodeMode
from export.graphs.builder import GraphBuilder
from export.graphs.graph import write_graph
from model.recognisers.parseq.config import NAMED
from model.recognisers.parseq.network import PARSeq

NAMES = ("parseq-nano", "parseq-tiny", "parseq")
MODES: tuple[tuple[DecodeMode, int], ...] = (("ar", 1), ("nar", 0))
PRECISIONS = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16}


def main() -> int:
    """Entry point; the exit code."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m export.gpu_graphs FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        model = PARSeq(NAMED[name]).eval()
        for decode, refine_iters in MODES:
            for precision, float_type in PRECISIONS.items():
                graph = write_graph(model, decode, refine_iters, builder=GraphBuilder(float_type))
                content = graph.model(name, {}, "0").SerializeToString()
                (folder / f"{name}-{decode}+{refine_iters}-{precision}.onnx").write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
