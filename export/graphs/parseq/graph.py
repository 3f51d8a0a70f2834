"""A PARSeq network as a self-contained ONNX graph: raw pixels in, token ids and confidences out.

The way of decoding and the number of refinements are baked in; the batch is the only dynamic size. No boolean selection;
without an early exit no control flow, and no size computed at run time.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import numpy as np
from onnx import TensorProto

from artifact.metadata import INPUT_NAME, Precision
from export.graphs.builder import GraphBuilder
from export.graphs.interface import BATCH, Answer, ExportError, Graph
from export.graphs.parseq.decoder import MAX_TABLE_BYTES, DecoderGraph
from export.graphs.parseq.encoder import write_encoder
from export.graphs.parseq.reading import read_every_step, read_until_ended
from model.recognisers.parseq.network import PARSeq

MEMORY_NAME: Final = "memory"
NO_STEPS: Final = "--early-exit is for --decode ar: reading at once has no steps to leave out"

Decode = Literal["ar", "nar"]


@dataclass(frozen=True, slots=True)
class ParseqOptions:
    """What can be chosen when a PARSeq is exported."""

    decode: Decode
    """Read in turn, or all at once."""
    refine_iters: int
    """How often to read again."""
    early_exit: bool = False
    """Read in turn in a loop that ends when all texts of the batch have, instead of writing every step out."""
    max_table_bytes: int = MAX_TABLE_BYTES
    """Largest table of ready-made keys and values."""

    def __post_init__(self) -> None:
        """Check what contradicts itself.

        Raises:
            ExportError: It does.
        """
        if self.refine_iters < 0:
            raise ExportError(f"refine_iters must be at least 0, not {self.refine_iters}")
        if self.early_exit and self.decode == "nar":
            raise ExportError(NO_STEPS)


class ParseqGraph(Graph[ParseqOptions]):
    """Writes PARSeq."""

    OPTIONS: ClassVar[type[Any]] = ParseqOptions
    RESTRICTS = True

    def add_arguments(self, parser: argparse._ActionsContainer) -> None:
        """`--decode`, `--refine-iters`, `--early-exit`."""
        parser.add_argument("--decode", choices=("ar", "nar"), help="read in turn, or all at once (default: the model's own)")
        parser.add_argument(
            "--refine-iters", metavar="N", type=_count, help="how often to read again (default: the model's own)"
        )
        parser.add_argument(
            "--early-exit",
            action=argparse.BooleanOptionalAction,
            help="ar: stop when all texts of a batch have ended, by a loop, quicker on a CPU; without it every step is written "
            "out, which a GPU likes better (default: with int8)",
        )

    def complete(self, network: PARSeq, chosen: Mapping[str, Any], precision: Precision) -> ParseqOptions:
        """Of what is not chosen the config's own; an early exit where that is quicker: `int8` is the precision for CPUs."""
        config = network.config
        own = ParseqOptions(decode="ar" if config.decode_ar else "nar", refine_iters=config.refine_iters)
        options = replace(own, **chosen)
        if "early_exit" in chosen:
            return options
        return replace(options, early_exit=options.decode == "ar" and precision == "int8")

    def written_out(self, options: ParseqOptions) -> ParseqOptions:
        """Without an early exit."""
        return replace(options, early_exit=False)

    def network_that_reads_so(self, network: PARSeq, options: ParseqOptions) -> PARSeq:
        """The same weights with another config."""
        same = copy.copy(network)
        same.config = replace(network.config, decode_ar=options.decode == "ar", refine_iters=options.refine_iters)
        return same

    def described(self, network: PARSeq, options: ParseqOptions) -> dict[str, Any]:
        """How it decodes."""
        return {
            "decode_mode": options.decode,
            "refine_iters": options.refine_iters,
            "early_exit": options.early_exit,
            "max_label_length": network.config.max_label_length,
        }

    def read(self, g: GraphBuilder, network: PARSeq, options: ParseqOptions, images: str, penalty: str | None = None) -> Answer:
        """Encoder, first reading and refinements."""
        memory = write_encoder(g, network.encoder, network.config, images)
        decoder = DecoderGraph(g, network, memory, max_table_bytes=options.max_table_bytes, penalty=penalty)
        if options.decode == "ar":
            # A refinement looks at every token but the last, so before it the last step need not be read.
            steps = decoder.length if options.refine_iters else decoder.length + 1
            read = read_until_ended if options.early_exit else read_every_step
            reading = read(decoder, steps, with_logits=options.refine_iters == 0)
            tokens, logits = reading.tokens, reading.logits
            if options.refine_iters == 0:
                return Answer(tokens, logits)
        else:
            logits = decoder.read_at_once()
            tokens = _all_but_last(g, decoder.choose(logits), decoder.length) if options.refine_iters else ""
        for number in range(1, options.refine_iters + 1):
            g.scope(f"refine_{number}")
            logits = decoder.refine(tokens)
            if number < options.refine_iters:
                tokens = _all_but_last(g, decoder.choose(logits), decoder.length)
        return Answer(decoder.choose(logits), logits)


GRAPH: Final = ParseqGraph()


def write_encoder_graph(network: PARSeq, builder: GraphBuilder | None = None) -> GraphBuilder:
    """Write the encoder alone, output `memory` float `(B, N, E)`: the yardstick for the cost of decoding."""
    g = builder or GraphBuilder()
    (height, width), (rows, columns) = network.config.img_size, network.config.grid
    images = g.input(INPUT_NAME, TensorProto.UINT8, (BATCH, height, width, 3))
    memory = write_encoder(g, network.encoder, network.config, images)
    g.output(memory, MEMORY_NAME, g.float_type, (BATCH, rows * columns, network.config.embed_dim))
    return g


def _all_but_last(g: GraphBuilder, tokens: str, length: int) -> str:
    """int64 `(B, length + 1)` without the last column."""
    bounds = [g.constant(np.array([value]), f"index_{value}") for value in (0, length, 1)]
    return g.node("Slice", [tokens, *bounds])


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, not {text!r}")
    return int(text)
