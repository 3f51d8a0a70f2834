"""Reading in turn as ONNX nodes: every step written out, or a loop that ends when all texts have.

Both give the same tokens up to the end of a text; what follows it has no meaning. Written out there is no control flow: what a
GPU likes, where each decision is a copy to the host. A loop does no more steps than the longest text of the batch needs, and
holds the weights of a step once instead of once a step: what a CPU likes.

Shapes: B batch, S steps, C classes, H heads, D width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto
from torch import Tensor

from export.graphs.builder import Array, Carried, GraphBuilder, Round
from export.graphs.parseq.decoder import DecoderGraph, StepOutputs, StepPlace


@dataclass(frozen=True, slots=True)
class FixedPlace(StepPlace):
    """A step of its own: its rows are constants."""

    g: GraphBuilder
    number: int

    def row(self, table: Tensor | Array, name: str) -> str:
        """A constant."""
        return self.g.constant(table[self.number], f"{name}_{self.number}")


@dataclass(frozen=True, slots=True)
class LoopPlace(StepPlace):
    """A round of a loop: its rows are looked up."""

    g: GraphBuilder
    round: str
    """int64, a scalar: 0 in the round that reads position 1."""

    def row(self, table: Tensor | Array, name: str) -> str:
        """A row of a constant."""
        return self.g.node("Gather", [self.g.constant(table[1:], name), self.round], axis=0)


@dataclass(frozen=True, slots=True)
class ReadInTurn:
    """What reading in turn has given."""

    tokens: str
    """int64 `(B, S)`."""
    logits: str
    """float `(B, S, C)`; empty if nobody asked."""


def read_every_step(decoder: DecoderGraph, steps: int, *, with_logits: bool) -> ReadInTurn:
    """Read the first `steps` positions one after another, all of them written out.

    No text is cut short; steps after the end token are computed and carry no meaning.
    """
    g = decoder.g
    g.scope("step_0")
    read = [decoder.begin()]
    for number in range(1, steps):
        g.scope(f"step_{number}")
        read.append(decoder.step(FixedPlace(g, number), read[-1]))
    tokens = g.reshape(g.concat([step.token for step in read], 0), (steps, -1))
    logits = ""
    if with_logits:
        logits = g.reshape(g.concat([step.logits for step in read], 1), (0, steps, decoder.classes))
    return ReadInTurn(g.transpose(tokens, (1, 0)), logits)


def read_until_ended(decoder: DecoderGraph, steps: int, *, with_logits: bool) -> ReadInTurn:
    """The same with a loop that ends when every text of the batch has; what was not read is zeros, that is end tokens."""
    g, config = decoder.g, decoder.model.config
    if steps == 1:
        return read_every_step(decoder, steps, with_logits=with_logits)
    g.scope("step_0")
    first = decoder.begin()
    g.scope("loop")

    def write(number: str, values: list[str]) -> Round:
        token, smallest, *caches = values
        step = decoder.step(LoopPlace(g, number), StepOutputs("", token, caches))
        smallest = g.node("Min", [smallest, step.token])
        stacked = [step.token, step.logits] if with_logits else [step.token]
        return Round(_unfinished(g, smallest), [step.token, smallest, *step.caches], stacked)

    width = config.embed_dim // config.dec_num_heads
    cache_shape = ("batch", 2 * config.dec_num_heads, "tokens", width)
    carried = [Carried(first.token, TensorProto.INT64, ("batch",)) for _ in ("token", "smallest")]
    carried += [Carried(cache, g.float_type, cache_shape) for cache in first.caches]
    # One round, even if all texts are empty: of no rounds a stack would come whose batch size is not known.
    stacks = g.loop(steps - 1, carried, write)
    tokens = _pad(g, first.token, g.transpose(stacks[0], (1, 0)), (steps,))
    if not with_logits:
        return ReadInTurn(tokens, "")
    return ReadInTurn(tokens, _pad(g, first.logits, g.transpose(stacks[1], (1, 0, 2)), (steps, decoder.classes)))


def _unfinished(g: GraphBuilder, smallest: str) -> str:
    """Whether a text has no end token (0, the smallest of all) yet, from its smallest token: int64 `(B,)` to a bool."""
    return g.node("Greater", [g.node("ReduceMax", [smallest], keepdims=0), g.constant(np.array(0), "end_token")])


def _pad(g: GraphBuilder, first: str, others: str, shape: tuple[int, ...]) -> str:
    """The first step `(B, ...)` and the others `(B, n, ...)`, with zeros up to `(B, *shape)`."""
    joined = g.concat([g.reshape(first, (0, 1, *shape[1:])), others], 1)
    missing = g.node("Sub", [g.constant(np.array([shape[0]]), f"steps_{shape[0]}"), g.node("Shape", [joined], start=1, end=2)])
    rank = 1 + len(shape)
    before = g.constant(np.zeros(rank + 1, np.int64), f"no_padding_{rank + 1}")
    behind = [g.constant(np.zeros(rank - 2, np.int64), f"no_padding_{rank - 2}")] if rank > 2 else []
    return g.reshape(g.node("Pad", [joined, g.concat([before, missing, *behind], 0)]), (0, *shape))
