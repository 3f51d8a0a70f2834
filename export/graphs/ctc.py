"""Connectionist temporal classification as ONNX nodes: columns of classes become a text inside the graph.

All sizes but the batch are fixed and there is no control flow. Counting and comparing is done in integers and without matrix
products, which may be rounded (TF32).

Shapes: B batch, T columns, S = T + 1 steps, C classes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from artifact.allowed import Allowed
from export.graphs.builder import GraphBuilder
from export.graphs.interface import Answer, Graph, Options, Reference, every_pass
from model.recognisers.interface import Network
from model.recognisers.parts.ctc import BLANK, collapse


class CtcGraph(Graph[Options]):
    """A recogniser that gives each column a class: the character that begins or goes on there, or the blank.

    There are no candidates for the steps of its text: another class in a column may be another character, one more or one less.
    """

    RESTRICTS = True

    @abstractmethod
    def name_columns(self, g: GraphBuilder, network: Any, options: Options, images: str) -> str:
        """Write the nodes from pixels to columns. Arguments as for `read`; gives logits, float `(B, T, C)`, the blank first."""

    def columns(self, network: Any) -> int:
        """T: the number of columns, and of characters that a text can have."""
        count: int = network.config.max_label_length
        return count

    def read(self, g: GraphBuilder, network: Network, options: Options, images: str, penalty: str | None = None) -> Answer:
        """Write the columns and the collapse of their classes to a text."""
        logits = self.name_columns(g, network, options, images)
        if penalty is not None:
            g.scope("allowed")
            logits = g.restrict(g.cast(logits, TensorProto.FLOAT) if g.half else logits, penalty)
        return write_collapse(g, logits, self.columns(network))

    def described(self, network: Network, options: Options) -> dict[str, Any]:
        """The metadata: a text may have as many characters as there are columns, however long the training labels were."""
        return {"decode_mode": "ctc", "refine_iters": 0, "max_label_length": self.columns(network)}

    def reference(self, network: Network, pixels: NDArray[np.uint8], allowed: Allowed | None = None) -> Reference:
        """The text of the columns; the margin is the smallest of all columns."""
        logits = every_pass(network, pixels, allowed)[-1]
        token_ids, confidences = collapse(logits.softmax(-1))
        best = logits.topk(2, -1).values
        return Reference(
            token_ids=token_ids.numpy(),
            confidences=confidences.numpy(),
            logits=logits.numpy(),
            steps=(token_ids != BLANK).sum(-1).numpy() + 1,
            margins=(best[..., 0] - best[..., 1]).min(-1).values.numpy(),
        )


def write_collapse(g: GraphBuilder, logits: str, columns: int) -> Answer:
    """Write what `model.recognisers.parts.ctc.collapse` does, in float32 whatever the graph's precision is.

    Args:
        g: The builder.
        logits: Float `(B, T, C)`, the blank first.
        columns: T.
    """
    g.scope("collapse")
    return collapse_columns(g, *_best_of_columns(g, logits), columns)


def collapse_columns(g: GraphBuilder, ids: str, logs: str, columns: int) -> Answer:
    """Write the same for columns whose classes are known.

    Args:
        g: The builder.
        ids: int64 `(B, T)`: the class that each column names, 0 the blank.
        logs: float32 `(B, T)`: the logarithm of its probability.
        columns: T.
    """
    g.scope("collapse")
    blank = g.constant(np.array(BLANK), "blank")
    is_blank = g.node("Equal", [ids, blank])

    # A character begins where a column has another class than the column before it; a blank precedes the first.
    before = g.node("Gather", [ids, g.constant(np.array([0, *range(columns - 1)]), "columns_before")], axis=1)
    before = g.node("Mul", [before, g.constant(np.array([0] + [1] * (columns - 1)), "but_the_first")])
    goes_on = g.node("Or", [is_blank, g.node("Equal", [ids, before])])
    begins = g.cast(g.node("Not", [goes_on]), TensorProto.INT64)
    number = g.node("CumSum", [begins, g.constant(np.array(1), "along_columns")])

    # Each column belongs to a row of the answer: a character's columns to its number, blanks to the row after the last one.
    count = g.node("Gather", [number, g.constant(np.array([columns - 1]), "last_column")], axis=1)
    end = g.add(count, g.constant(np.array(1), "one"))
    row = g.reshape(g.node("Where", [is_blank, end, number]), (0, 1, columns))
    rows = g.constant(np.arange(1, columns + 2)[:, None], "rows")
    belongs = g.node("Equal", [row, rows])  # (B, S, T)

    last_axis = g.constant(np.array([-1]), "last_axis")
    # All columns of a row have the same class.
    own_ids = g.node("Where", [belongs, g.reshape(ids, (0, 1, columns)), blank])
    token_ids = g.node("ReduceMax", [own_ids, last_axis], keepdims=0)
    with g.full_precision():
        nothing = g.constant(np.array(0.0), "nothing")
    own_logs = g.node("Where", [belongs, g.reshape(logs, (0, 1, columns)), nothing])
    confidences = g.node("Exp", [g.node("ReduceSum", [own_logs, last_axis], keepdims=0)])
    return Answer(token_ids, None, confidences)


def _best_of_columns(g: GraphBuilder, logits: str) -> tuple[str, str]:
    """The best class, int64 `(B, T)`, and the logarithm of its probability, float32 `(B, T)`."""
    logits = g.cast(logits, TensorProto.FLOAT) if g.half else logits
    probabilities = g.node("LogSoftmax", [logits], axis=-1)
    best = g.node("ReduceMax", [probabilities, g.constant(np.array([-1]), "last_axis")], keepdims=0)
    return g.node("ArgMax", [logits], axis=-1, keepdims=0), best
