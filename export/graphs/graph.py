"""A PARSeq network as a self-contained ONNX graph: raw pixels in, token ids and confidences out.

The interface is that of `artifact.metadata`. The way of decoding and the number of refinements are baked in; the batch is the
only dynamic size. No boolean selection; without an early exit no control flow, and no size computed at run time.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from artifact.metadata import CONFIDENCES_NAME, INPUT_NAME, LOGITS_NAME, TOKEN_IDS_NAME, DecodeMode
from export.graphs.builder import GraphBuilder
from export.graphs.decoder_graph import MAX_TABLE_BYTES, DecoderGraph
from export.graphs.encoder_graph import write_encoder
from export.graphs.reading_graph import read_every_step, read_until_ended
from model.recognisers.parseq.network import PARSeq

MEMORY_NAME = "memory"
BATCH = "batch"


def write_graph(
    model: PARSeq,
    decode: DecodeMode,
    refine_iters: int,
    *,
    early_exit: bool = False,
    with_logits: bool = False,
    max_table_bytes: int = MAX_TABLE_BYTES,
    builder: GraphBuilder | None = None,
) -> GraphBuilder:
    """Write the graph that reads images.

    Args:
        model: the network; its weights are read as they are in eval mode.
        decode: in turn (`ar`) or at once (`nar`).
        refine_iters: how often to read again.
        early_exit: read in turn in a loop that ends when all texts of the batch have, instead of writing every step out.
        with_logits: give the logits of the last pass too.
        max_table_bytes: largest table of ready-made keys and values.
        builder: an empty one, of the precision to write; float32 without it.

    Raises:
        ValueError: `refine_iters` is negative.
    """
    if refine_iters < 0:
        raise ValueError(f"refine_iters must be at least 0, not {refine_iters}")
    g = builder or GraphBuilder()
    memory = _encoder(g, model)
    decoder = DecoderGraph(g, model, memory, max_table_bytes=max_table_bytes)
    steps = model.config.max_label_length + 1
    token_ids, logits = _decode(decoder, decode, refine_iters, early_exit=early_exit)
    g.scope("answer")
    confidences = g.node("ReduceMax", [g.softmax(logits), g.constant(np.array([-1]), "last_axis")], keepdims=0)
    g.output(token_ids, TOKEN_IDS_NAME, TensorProto.INT64, (BATCH, steps))
    g.output(confidences, CONFIDENCES_NAME, TensorProto.FLOAT, (BATCH, steps))
    if with_logits:
        g.output(logits, LOGITS_NAME, TensorProto.FLOAT, (BATCH, steps, decoder.classes))
    return g


def write_encoder_graph(model: PARSeq, builder: GraphBuilder | None = None) -> GraphBuilder:
    """Write the encoder alone, output `memory` float `(B, N, E)`: the yardstick for the cost of decoding."""
    g = builder or GraphBuilder()
    rows, columns = model.config.grid
    g.output(_encoder(g, model), MEMORY_NAME, g.float_type, (BATCH, rows * columns, model.config.embed_dim))
    return g


def _encoder(g: GraphBuilder, model: PARSeq) -> str:
    height, width = model.config.img_size
    images = g.input(INPUT_NAME, TensorProto.UINT8, (BATCH, height, width, 3))
    return write_encoder(g, model.encoder, model.config, images)


def _decode(decoder: DecoderGraph, decode: DecodeMode, refine_iters: int, *, early_exit: bool) -> tuple[str, str]:
    """All passes; returns tokens, int64 `(B, S)`, and logits, float `(B, S, C)`, of the last."""
    g = decoder.g
    if decode == "ar":
        # A refinement looks at every token but the last, so before it the last step need not be read.
        steps = decoder.length if refine_iters else decoder.length + 1
        read = read_until_ended if early_exit else read_every_step
        reading = read(decoder, steps, with_logits=refine_iters == 0)
        tokens, logits = reading.tokens, reading.logits
    else:
        logits = decoder.read_at_once()
        tokens = _all_but_last(g, decoder.choose(logits), decoder.length) if refine_iters else ""
    for number in range(1, refine_iters + 1):
        g.scope(f"refine_{number}")
        logits = decoder.refine(tokens)
        if number < refine_iters:
            tokens = _all_but_last(g, decoder.choose(logits), decoder.length)
    if decode == "ar" and refine_iters == 0:
        return tokens, logits
    return decoder.choose(logits), logits


def _all_but_last(g: GraphBuilder, tokens: str, length: int) -> str:
    """int64 `(B, length + 1)` without the last column."""
    bounds = [g.constant(np.array([value]), f"index_{value}") for value in (0, length, 1)]
    return g.node("Slice", [tokens, *bounds])
