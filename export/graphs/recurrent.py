"""Recurrent layers over columns as ONNX nodes.

What the two directions of an LSTM keep is float32 in a graph of 8-bit integers: the quantised LSTM of ONNX Runtime takes its
scales from the batch, so that a crop's reading would depend on its company.

Shapes: B batch, T columns, h width of the state.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from onnx import TensorProto
from torch import Tensor, nn

from export.graphs.builder import GraphBuilder
from model.recognisers.parts.recurrent import BidirectionalLSTM


def write_recurrent(g: GraphBuilder, columns: str, layers: Iterable[nn.Module], name: str) -> str:
    """Layers of `BidirectionalLSTM`, one after another.

    Args:
        g: Where to.
        columns: Float `(T, B, width)`, the columns first.
        layers: In their order.
        name: Of all of them.

    Returns:
        Float `(T, B, width)`.
    """
    for index, layer in enumerate(layers):
        assert isinstance(layer, BidirectionalLSTM)
        both = write_lstm(g, columns, layer.rnn, f"{name}.{index}.rnn")
        columns = g.linear(both, layer.linear.weight, layer.linear.bias, f"{name}.{index}.linear")
    return columns


def write_naming(g: GraphBuilder, columns: str, layers: nn.Sequential, name: str) -> str:
    """The same, where the last linear layer names the columns: float `(T, B, width)` to logits, float32 `(B, T, C)`."""
    *before, last = layers
    assert isinstance(last, BidirectionalLSTM)
    both = write_lstm(g, write_recurrent(g, columns, before, name), last.rnn, f"{name}.last.rnn")
    return write_head(g, both, last.linear)


def write_head(g: GraphBuilder, columns: str, head: nn.Linear) -> str:
    """Logits of columns, always float32, `(T, B, width)` to `(B, T, C)`: rounded ones would make ties of near ties."""
    columns = g.cast(columns, TensorProto.FLOAT) if g.half else columns
    with g.full_precision():
        return g.transpose(g.linear(columns, head.weight, head.bias, "head"), (1, 0, 2))


def write_lstm(g: GraphBuilder, columns: str, lstm: nn.LSTM, name: str) -> str:
    """What both directions give, side by side: float `(T, B, width)` to `(T, B, 2h)`."""
    stacked = {"input": list[Tensor](), "hidden": list[Tensor](), "bias": list[Tensor]()}
    for end in ("", "_reverse"):
        of_input, of_hidden, *biases = (
            onnx_gates(getattr(lstm, f"{which}_l0{end}").detach()) for which in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        stacked["input"].append(of_input)
        stacked["hidden"].append(of_hidden)
        stacked["bias"].append(torch.cat(biases))
    constants = [g.constant(torch.stack(parts), f"{name}.{which}") for which, parts in stacked.items()]
    given = g.node("LSTM", [columns, *constants], hidden_size=lstm.hidden_size, direction="bidirectional")  # (T, 2, B, h)
    return g.reshape(g.transpose(given, (0, 2, 1, 3)), (0, 0, 2 * lstm.hidden_size))


def onnx_gates(weight: Tensor) -> Tensor:
    """Rows of an LSTM's weight, `(4h, ...)`, in the order of ONNX (input, output, forget, cell) instead of PyTorch's."""
    into, forget, cell, out = weight.chunk(4)
    return torch.cat([into, out, forget, cell])
