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
from model.recognisers.registry import named_configs, recogniser_of

WAYS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "parseq": ({"decode": "ar", "refine_iters": 1}, {"decode": "nar", "refine_iters": 0}),
    "abinet": ({}, {"float32_features": True}),
}
"""Options with which the networks of a recogniser are written, if there are any."""
OF_HALF_PRECISION = frozenset({"float32_features"})
"""Those that are for `fp16` alone."""
PARSEQ = ("parseq-nano", "parseq-tiny", "parseq")
"""Enough of its networks; of the other recognisers all that have a name."""
PRECISIONS: Sequence[Precision] = ("fp32", "fp16")


def main() -> int:
    """Entry point; the exit code."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.gpu.graphs FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, config in named_configs().items():
        if config.RECOGNISER == "parseq" and name not in PARSEQ:
            continue
        network = recogniser_of(config).build_network(config).eval()
        graph = graph_of(network)
        for way in WAYS.get(config.RECOGNISER, ({},)):
            for precision in PRECISIONS:
                if precision != "fp16" and OF_HALF_PRECISION & way.keys():
                    continue
                builder = new_builder(precision, {})
                graph.write(builder, network, graph.options(network, way, precision))
                content = builder.model(name, {}, "0").SerializeToString()
                told = "".join(f"-{key if value is True else value}" for key, value in way.items())
                (folder / f"{name}{told}-{precision}.onnx").write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
