"""Write the graphs whose placement on a GPU is checked: no weights are needed for that, and no parity gate.

python -m tests.gpu.graphs FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifact.metadata import Precision
from export.graphs.interface import graph_of
from export.to_onnx import new_builder
from model.recognisers.registry import named_config, recogniser_of

OF_PARSEQ = ({"decode": "ar", "refine_iters": 1}, {"decode": "nar", "refine_iters": 0})
ONLY_WAY: Sequence[Mapping[str, Any]] = ({},)
NETWORKS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "parseq-nano": OF_PARSEQ,
    "parseq-tiny": OF_PARSEQ,
    "parseq": OF_PARSEQ,
    "vitstr": ONLY_WAY,
    "vitstr-patch16-224": ONLY_WAY,
}
"""And the options of their recognisers with which each is written."""
PRECISIONS: Sequence[Precision] = ("fp32", "fp16")


def main() -> int:
    """Entry point; the exit code."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.gpu.graphs FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, ways in NETWORKS.items():
        config = named_config(name)
        network = recogniser_of(config).build_network(config).eval()
        graph = graph_of(network)
        for way in ways:
            for precision in PRECISIONS:
                builder = new_builder(precision, {})
                graph.write(builder, network, graph.options(network, way, precision))
                content = builder.model(name, {}, "0").SerializeToString()
                told = "".join(f"-{value}" for value in way.values())
                (folder / f"{name}{told}-{precision}.onnx").write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
