"""TRBA as ONNX nodes: every step is written out, so there is no control flow.

The decoder takes a twentieth of the time. So it is float32 in every graph, and there is no other one that stops early.

Shapes: B batch, T columns, S steps, h width of columns and state, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from artifact.allowed import Allowed
from export.graphs.builder import GraphBuilder
from export.graphs.interface import Answer, Graph, NoOptions, Reference, every_pass, largest, read_steps
from export.graphs.trb import write_columns
from model.recognisers.trba.decoder import AttentionDecoder
from model.recognisers.trba.network import TRBA


class TrbaGraph(Graph[NoOptions]):
    """Writes TRBA. The logits are those of the classes that can be read; confidences are by all."""

    RESTRICTS = True

    def read(self, g: GraphBuilder, network: TRBA, options: NoOptions, images: str, penalty: str | None = None) -> Answer:
        """The columns, and the steps that read them."""
        columns = write_columns(g, network, images)
        columns = g.cast(columns, TensorProto.FLOAT) if g.half else columns
        with g.full_precision():
            steps = _Steps(g, network.Prediction, g.transpose(columns, (1, 0, 2)), network.config.columns, penalty)
            for number in range(network.config.max_label_length + 1):
                g.scope(f"step_{number}")
                steps.write_next()
            g.scope("answer")
            return steps.answer()

    def described(self, network: TRBA, options: NoOptions) -> dict[str, Any]:
        """It reads in turn."""
        return {**super().described(network, options), "decode_mode": "ar"}

    def reference(self, network: TRBA, pixels: NDArray[np.uint8], allowed: Allowed | None = None) -> Reference:
        """What the network reads; a near tie is one of classes that can be read."""
        (logits,) = every_pass(network, pixels, allowed)
        probabilities = network.step_probabilities(logits)
        read = read_steps([logits[..., : network.Prediction.readable]])
        return replace(read, confidences=probabilities.amax(-1).numpy(), probabilities=probabilities.numpy())


GRAPH: Final = TrbaGraph()


class _Steps:
    """Writes step after step."""

    def __init__(self, g: GraphBuilder, decoder: AttentionDecoder, columns: str, count: int, penalty: str | None) -> None:
        """Write what all steps share.

        Args:
            g: Where to.
            decoder: Its weights.
            columns: Float32 `(B, T, h)`.
            count: T.
            penalty: Float32 `(B or 1, readable)`, added to the logits; None: nothing is.
        """
        self.g, self.decoder, self.columns, self.count, self.penalty = g, decoder, columns, count, penalty
        self.cell = decoder.attention_cell
        self.width = self.cell.rnn.hidden_size
        g.scope("decoder")
        self.projected = g.matmul(columns, g.weight(self.cell.i2h.weight, "i2h"))
        self.table = _token_table(decoder)
        self.state: tuple[str, str] | None = None
        self.given: list[str] = []
        self.logits: list[str] = []
        self.tokens: list[str] = []

    def write_next(self) -> None:
        """Write one step more."""
        g, readable = self.g, self.decoder.readable
        gates = self._gates(self._context())
        hidden = self._cell(gates)
        generator = self.decoder.generator
        product = g.matmul(hidden, g.weight(generator.weight[:readable], "generator"))
        logits = g.add(product, g.constant(generator.bias[:readable], "generator.bias"))
        if self.penalty is not None:
            logits = g.add(logits, self.penalty)
        self.given.append(hidden)
        self.logits.append(logits)
        self.tokens.append(g.node("ArgMax", [logits], axis=-1, keepdims=0))

    def answer(self) -> Answer:
        """What all steps have read."""
        g, generator, readable = self.g, self.decoder.generator, self.decoder.readable
        tokens = g.concat([g.reshape(token, (0, 1)) for token in self.tokens], 1)
        logits = g.concat([g.reshape(each, (0, 1, readable)) for each in self.logits], 1)
        given = g.concat([g.reshape(each, (0, 1, self.width)) for each in self.given], 1)
        # Begin and pad are no answers, but they have their share of the probability.
        others = g.matmul(given, g.weight(generator.weight[readable:], "generator.others"))
        others = g.add(others, g.constant(generator.bias[readable:], "generator.others.bias"))
        probabilities = g.softmax(g.concat([logits, others], 2))
        bounds = [g.constant(np.array([value]), f"index_{value}") for value in (0, readable, 2)]
        of_readable = g.node("Slice", [probabilities, *bounds])
        return Answer(tokens, logits, largest(g, of_readable), of_readable)

    def _context(self) -> str:
        """The columns, weighted by how well they suit the state; float `(B, h)`."""
        g, h2h = self.g, self.cell.h2h
        bias = g.constant(h2h.bias, "h2h.bias")
        if self.state is None:  # which is zero
            state = bias
        else:
            product = g.matmul(self.state[0], g.weight(h2h.weight, "h2h"))
            state = g.reshape(g.add(product, bias), (0, 1, self.width))
        scores = g.matmul(g.node("Tanh", [g.add(self.projected, state)]), g.weight(self.cell.score.weight, "score"))
        weights = g.softmax(g.reshape(scores, (0, 1, self.count)))
        return g.reshape(g.matmul(weights, self.columns), (0, self.width))

    def _gates(self, context: str) -> str:
        """What goes into the recurrent cell's gates: by context, state and last token; float `(B, 4h)`."""
        g, rnn = self.g, self.cell.rnn
        gates = g.matmul(context, g.weight(rnn.weight_ih[:, : self.width], "cell.context"))
        if self.state is None:
            return g.add(gates, g.constant(self.table[self.decoder.begin], "cell.begin"))
        gates = g.add(gates, g.matmul(self.state[0], g.weight(rnn.weight_hh, "cell.hidden")))
        return g.add(gates, g.node("Gather", [g.constant(self.table, "cell.tokens"), self.tokens[-1]], axis=0))

    def _cell(self, gates: str) -> str:
        """The recurrent cell; what it gives, float `(B, h)`."""
        g = self.g
        into, forget, new, out = g.split(gates, 4, -1)
        kept = g.node("Mul", [g.node("Sigmoid", [into]), g.node("Tanh", [new])])
        if self.state is not None:
            kept = g.add(g.node("Mul", [g.node("Sigmoid", [forget]), self.state[1]]), kept)
        hidden = g.node("Mul", [g.node("Sigmoid", [out]), g.node("Tanh", [kept])])
        self.state = hidden, kept
        return hidden


def _token_table(decoder: AttentionDecoder) -> torch.Tensor:
    """What each token that a step may begin with adds to the gates, biases included; float64 `(readable + 1, 4h)`."""
    cell = decoder.attention_cell.rnn
    embedded = decoder.char_embeddings.weight.detach().double()[: decoder.begin + 1]
    of_token = cell.weight_ih.detach().double()[:, cell.hidden_size :]
    return embedded @ of_token.T + cell.bias_ih.detach().double() + cell.bias_hh.detach().double()
