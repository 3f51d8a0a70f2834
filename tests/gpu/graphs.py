"""Write the graphs whose placement on a GPU is checked: no weights are needed for that, and no parity gate.

python -m tests.gpu.graphs FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnx import TensorProto

from export.graphs.builder import GraphBuilder
from export.graphs.interface import graph_of
from export.graphs.parseq.graph import ParseqOptions
from model.recognisers.interface import Network
from model.recognisers.registry import named_configs, recogniser_of

PARSEQ = ("parseq-nano", "parseq-tiny", "parseq")
MODES = (ParseqOptions("ar", 1), ParseqOptions("nar", 0))
PRECISIONS = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16}


def networks() -> Iterator[tuple[str, Network, dict[str, Any]]]:
    """Every named network but some of PARSeq's, and the ways of reading it that are of interest, by name."""
    for name, config in named_configs().items():
        if config.RECOGNISER != "parseq":
            network = recogniser_of(config).build_network(config).eval()
            yield name, network, {"": graph_of(network).options(network, {}, "fp32")}
        elif name in PARSEQ:
            modes = {f"-{mode.decode}+{mode.refine_iters}": mode for mode in MODES}
            yield name, recogniser_of(config).build_network(config).eval(), modes


def main() -> int:
    """Entry point; the exit code."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.gpu.graphs FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, network, modes in networks():
        for mode, options in modes.items():
            for precision, float_type in PRECISIONS.items():
                graph = GraphBuilder(float_type)
                graph_of(network).write(graph, network, options)
                content = graph.model(name, {}, "0").SerializeToString()
                (folder / f"{name}{mode}-{precision}.onnx").write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
