"""An ABINet as a self-contained ONNX graph: raw pixels in, token ids and confidences out.

Every iteration is written out with the same weights; the batch is the only dynamic size, and there is no control flow. What
depends on no image is computed here and not there: the queries of the steps, and the first ones of the language part.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from artifact.metadata import Precision
from export.graphs.abinet.language import LanguageGraph
from export.graphs.abinet.vision import write_vision
from export.graphs.builder import GraphBuilder
from export.graphs.interface import Answer, ExportError, Graph
from model.recognisers.abinet.network import ABINet

FLOAT32_FEATURES: Final = "--float32-features is for --precision fp16: leave it out, or add that"


@dataclass(frozen=True, slots=True)
class ABINetOptions:
    """What can be chosen when an ABINet is exported."""

    iterations: int
    """How often the reading is spelt and aligned, once at least."""
    float32_features: bool = False
    """In half precision: compute what may be too large for it in float32."""


class ABINetGraph(Graph[ABINetOptions]):
    """Writes ABINet."""

    OPTIONS: ClassVar[type[Any]] = ABINetOptions
    RESTRICTS = True

    def add_arguments(self, parser: argparse._ActionsContainer) -> None:
        """`--iterations`, `--float32-features`."""
        parser.add_argument(
            "--iterations",
            metavar="N",
            type=_count,
            help="ABINet: how often the language part corrects the reading (default: the model's own)",
        )
        parser.add_argument(
            "--float32-features",
            action="store_true",
            default=None,
            help="ABINet in fp16: compute the last stage of the residual network and the attention behind it in float32, for "
            "weights whose features half precision cannot hold",
        )

    def complete(self, network: ABINet, chosen: Mapping[str, Any], precision: Precision) -> ABINetOptions:
        """Of what is not chosen the config's own."""
        if chosen.get("float32_features") and precision != "fp16":
            raise ExportError(FLOAT32_FEATURES)
        return replace(ABINetOptions(iterations=network.config.iter_size), **chosen)

    def network_that_reads_so(self, network: ABINet, options: ABINetOptions) -> ABINet:
        """The same weights with another config."""
        same = copy.copy(network)
        same.config = replace(network.config, iter_size=options.iterations)
        return same

    def described(self, network: ABINet, options: ABINetOptions) -> dict[str, Any]:
        """An iteration after the first refines what is there."""
        return {**super().described(network, options), "refine_iters": options.iterations - 1}

    def read(self, g: GraphBuilder, network: ABINet, options: ABINetOptions, images: str, penalty: str | None = None) -> Answer:
        """What is seen, and the iterations."""
        features = write_vision(g, network.vision, images, float32_features=options.float32_features)
        iterations = LanguageGraph(g, network, features, penalty)
        g.scope("vision.cls")
        logits = iterations.head(features, network.vision.cls, "vision.cls")
        for number in range(1, options.iterations + 1):
            g.scope(f"iteration_{number}")
            logits = iterations.iterate(logits)
        return Answer(iterations.choose(logits), logits)


GRAPH: Final = ABINetGraph()


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)
