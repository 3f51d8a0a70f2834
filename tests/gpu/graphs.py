"""Write the graphs whose placement on a GPU is checked: no weights are needed for that, and no parity gate.

python -m tests.gpu.graphs FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from onnx import TensorProto

from export.graphs.builder import GraphBuilder
from export.graphs.parseq.graph import GRAPH, ParseqOptions
from model.recognisers.parseq.config import NAMED
from model.recognisers.parseq.network import PARSeq

NAMES = ("parseq-nano", "parseq-tiny", "parseq")
MODES = (ParseqOptions("ar", 1), ParseqOptions("nar", 0))
PRECISIONS = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16}


def main() -> int:
    """Entry point; the exit code."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.gpu.graphs FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        model = PARSeq(NAMED[name]).eval()
        for mode in MODES:
            for precision, float_type in PRECISIONS.items():
                graph = GraphBuilder(float_type)
                GRAPH.write(graph, model, mode)
                content = graph.model(name, {}, "0").SerializeToString()
                (folder / f"{name}-{mode.decode}+{mode.refine_iters}-{precision}.onnx").write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
