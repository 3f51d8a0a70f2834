"""PARSeq's decoding passes as ONNX nodes, with every key and value computed once.

What the graph exploits, none of it an approximation:

* The position queries are parameters: in the first layer their norm and projection are constants.
* While reading in turn the content stream is causal, so a token's keys and values never change: they are kept, layer by layer.
* In the first layer they depend on the token and its position alone: for a charset of ordinary size all of them are a table.
* While there is only the begin token, attending to it gives a constant in the first layer, and so are the queries to the image.

Shapes: B batch, T `max_label_length`, S = T + 1 steps, n tokens so far, E `embed_dim`, H heads, D = E / H, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from export.graphs.builder import Array, GraphBuilder
from export.graphs.parseq.layer import LayerGraph
from model.recognisers.parseq.network import PARSeq

MASKED: Final = -30000.0
"""Added to the scores of hidden positions: exp of it is 0, and the sum of two of them still fits a half-precision float."""
MAX_TABLE_BYTES: Final = 16 * 2**20
"""Keys and values of the first layer become a table up to this size; above it they are computed from the embedding."""


class StepPlace(ABC):
    """A step of autoregressive reading: it knows its row in tables of all steps."""

    @abstractmethod
    def row(self, table: Tensor | Array, name: str) -> str:
        """The row of `table`, `(S, ...)`, for this step."""


@dataclass(frozen=True, slots=True)
class StepOutputs:
    """The values that reading one position gives."""

    logits: str
    """float `(B, C)`."""
    token: str
    """int64 `(B,)`, the best token."""
    caches: Sequence[str]
    """For each layer the keys and values of the tokens that were seen, float `(B, 2H, n, D)`."""


class DecoderGraph:
    """Appends decoding passes to a graph."""

    def __init__(
        self,
        g: GraphBuilder,
        model: PARSeq,
        memory: str,
        *,
        max_table_bytes: int = MAX_TABLE_BYTES,
        penalty: str | None = None,
    ) -> None:
        """Project the memory for every layer.

        Args:
            g: The builder.
            model: The network, in eval mode.
            memory: Float `(B, N, E)`, the encoder's output.
            max_table_bytes: See `MAX_TABLE_BYTES`.
            penalty: Float32 `(B or 1, C)`, added to all logits; None: nothing is.
        """
        config = model.config
        self.g = g
        self.model = model
        self.length = config.max_label_length
        self.classes = model.head.out_features
        self.pos_queries = model.pos_queries.detach()[0].double()
        """`(S, E)`."""
        self.embedding = model.text_embed.embedding.weight.detach().double() * model.text_embed.scale
        """`(C + 2, E)`."""
        g.scope("memory")
        self.layers = [
            LayerGraph(g, layer, depth, memory, config.grid[0] * config.grid[1])
            for depth, layer in enumerate(model.decoder.typed_layers())
        ]
        self._penalty = penalty
        self._bias: str | None = None
        if penalty is not None:
            with g.full_precision():
                self._bias = g.add(penalty, g.constant(model.head.bias, "head.bias"))
        self._places = torch.cat([torch.zeros_like(self.pos_queries[:1]), self.pos_queries[: self.length]])
        """`(S, E)`: added to the content of the token before each position; zeros for the begin token."""
        self._table = ""
        self._use_table = 4 * self.length * self.classes * 2 * config.embed_dim <= max_table_bytes

    def read_at_once(self) -> str:
        """All positions, seeing the begin token only. Returns logits, float `(B, S, C)`."""
        self.g.scope("at_once")
        return self._all_heads(self._begin(self.length + 1)[0])

    def begin(self) -> StepOutputs:
        """Read position 0, having seen the begin token."""
        g = self.g
        query, caches = self._begin(1)
        logits = self._step_head(query)
        token = self.choose(logits)
        # A constant that is joined to tokens needs a row for each crop, so its row 0 is looked up for each.
        begin = g.constant(self._begin_key_value()[None, :, None], "decoder.0.begin")
        zeros = g.node("Sub", [token, token])
        return StepOutputs(logits, token, [g.node("Gather", [begin, zeros], axis=0), *caches])

    def step(self, place: StepPlace, last: StepOutputs) -> StepOutputs:
        """Read one more position, having seen the token before it.

        Args:
            place: The position to read, 1 or later.
            last: The outputs of the step before.
        """
        seen = self._see(place, last.token, last.caches)
        first = self.layers[0]
        start = place.row(first.start_table(self.pos_queries), "decoder.0.starts")
        query = first.stream_from(start, place.row(first.query_table(self.pos_queries), "decoder.0.query_rows"), seen[0])
        for layer, cache in zip(self.layers[1:], seen[1:], strict=True):
            query = layer.stream(query, layer.query(layer.norm_query(query), 1), cache, 1)
        logits = self._step_head(query)
        return StepOutputs(logits, self.choose(logits), seen)

    def refine(self, tokens: str) -> str:
        """Read every position again, seeing the whole text but the character in question and what follows the end.

        Args:
            tokens: int64 `(B, T)`, the text so far, without the begin token.

        Returns:
            Logits, float `(B, S, C)`.
        """
        count = self.length + 1
        mask = self._cloze_mask(tokens)
        needs_content = not self._use_table or len(self.layers) > 1
        content = self._embed_text(tokens) if needs_content else ""
        query = ""
        for depth, layer in enumerate(self.layers):
            q = layer.query(layer.norm_query(query), count) if depth else layer.constant_query(self.pos_queries)
            normed = layer.norm_content(content) if needs_content else ""
            known = self._use_table and depth == 0
            key_value = self._text_key_value(tokens) if known else layer.key_value(normed, count)
            query = layer.stream(query if depth else self.pos_queries, q, key_value, count, mask)
            if depth + 1 < len(self.layers):
                # The content sees with the queries' mask, as the model does.
                content = layer.stream(content, layer.query(normed, count), key_value, count, mask)
        return self._all_heads(query)

    def choose(self, logits: str) -> str:
        """The best token, int64 `(B,)` or `(B, S)`."""
        return self.g.node("ArgMax", [logits], axis=-1, keepdims=0)

    def head(self, query: str, bias: str | None = None) -> str:
        """Logits of `(n, E)`, always float32: in half precision near ties become ties, confidences lose their third digit.

        Args:
            query: Of the graph's float type.
            bias: Float32 `(n or 1, C)` in place of the head's own.
        """
        g, head = self.g, self.model.head
        query = g.cast(query, TensorProto.FLOAT) if g.half else query
        with g.full_precision():
            normed = g.layer_norm(query, self.model.decoder.norm, "decoder.norm")
            weight = g.weight(head.weight, "head")
            if bias is not None:
                return g.node("Gemm", [normed, weight, bias])
            return g.add(g.matmul(normed, weight), g.constant(head.bias, "head.bias"))

    def _step_head(self, query: str) -> str:
        """Logits of one position, `(B, C)`. The penalty is in the bias, so that it costs no node at every step."""
        return self.head(self._flat(query), self._bias)

    def _all_heads(self, query: str) -> str:
        """Logits of all positions, `(B, S, E)` to `(B, S, C)`; with two axes in between, as the encoder's last norm."""
        logits = self.head(self.g.reshape(query, (-1, self.model.config.embed_dim)))
        return self.g.restrict(self.g.reshape(logits, (-1, self.length + 1, self.classes)), self._penalty)

    def _flat(self, query: str) -> str:
        return query if self.g.flat_rows else self.g.reshape(query, (0, self.model.config.embed_dim))

    def _begin(self, count: int) -> tuple[str, list[str]]:
        """The first `count` queries, seeing only the begin token: the answer, and the caches of the layers but the first."""
        first = self.layers[0]
        begin = self.embedding[self.model.tokenizer.bos_id]
        seen = first.attending_to_one(begin)
        query = first.rest(self.pos_queries[:count] + seen, count)
        if len(self.layers) == 1:
            return query, []
        content, caches = first.rest((begin + seen)[None], 1), []
        for depth, layer in enumerate(self.layers[1:], start=1):
            normed = layer.norm_content(content)
            caches.append(layer.key_value(normed, 1))
            query = layer.stream(query, layer.query(layer.norm_query(query), count), caches[-1], count)
            if depth + 1 < len(self.layers):
                content = layer.stream(content, layer.query(normed, 1), caches[-1], 1)
        return query, caches

    def _see(self, place: StepPlace, token: str, caches: Sequence[str]) -> list[str]:
        """Append the last token's keys and values to every layer's cache."""
        g, seen, content = self.g, [], ""
        if not self._use_table or len(self.layers) > 1:
            content = self._embed(place, token)
        for depth, layer in enumerate(self.layers):
            normed = layer.norm_content(content) if content else ""
            known = self._use_table and depth == 0
            rows = self._token_key_value(place, token) if known else layer.key_value(normed, 1)
            seen.append(g.concat([caches[depth], rows], 2))
            if depth + 1 < len(self.layers):
                # The token sees itself and what precedes it: that is what the cache holds.
                content = layer.stream(content, layer.query(normed, 1), seen[-1], 1)
        return seen

    # Content: what the tokens themselves give.

    def _begin_key_value(self) -> Tensor:
        """Of the begin token in the first layer, `(2H, D)`."""
        return self.layers[0].constant_key_value(self.embedding[self.model.tokenizer.bos_id])

    def _look_up(self, rows: str) -> str:
        """Keys and values of the first layer from their table: int64 `(...)` to float `(..., 2H, 1, D)`.

        Row `p * C + c` is that of token c behind p others, the last one that of the begin token.
        """
        g = self.g
        if not self._table:
            self._table = g.constant(self._key_value_table(), "decoder.0.table")
        return g.node("Gather", [self._table, rows], axis=0)

    def _key_value_table(self) -> Tensor:
        content = self.embedding[: self.classes] + self.pos_queries[: self.length, None]
        rows = self.layers[0].constant_key_value(content).flatten(0, 1)
        return torch.cat([rows, self._begin_key_value()[None]])[:, :, None]

    def _token_key_value(self, place: StepPlace, token: str) -> str:
        """Of the last token in the first layer, from the table: float `(B, 2H, 1, D)`."""
        # The token before step s stands behind s - 1 others.
        offset = place.row(np.arange(-1, self.length) * self.classes, "offsets")
        return self._look_up(self.g.add(token, offset))

    def _text_key_value(self, tokens: str) -> str:
        """Of the begin token and a whole text in the first layer, from the table: int64 `(B, T)` to float `(B, 2H, S, D)`."""
        g, layer = self.g, self.layers[0]
        rows = g.add(tokens, g.constant((np.arange(self.length) * self.classes)[None], "text_offsets"))
        rows = self._begin_with(rows, self.length * self.classes)
        found = g.transpose(self._look_up(rows), (0, 2, 1, 3, 4))
        return g.reshape(found, (0, 2 * layer.heads, self.length + 1, layer.width))

    def _embed(self, place: StepPlace, token: str) -> str:
        """Content of the last token, `(B, E)`, or `(B, 1, E)` where the builder wants it so."""
        g = self.g
        embedded = g.node("Gather", [g.constant(self.embedding[: self.classes], "embedding"), token], axis=0)
        content = g.add(embedded, place.row(self._places, "places"))
        return content if g.flat_rows else g.reshape(content, (0, 1, self.model.config.embed_dim))

    def _embed_text(self, tokens: str) -> str:
        """Content of a whole text, int64 `(B, T)` to float `(B, S, E)`, the begin token first."""
        g = self.g
        ids = self._begin_with(tokens, self.model.tokenizer.bos_id)
        embedded = g.node("Gather", [g.constant(self.embedding[:-1], "embedding_with_begin"), ids], axis=0)
        return g.add(embedded, g.constant(self._places, "places"))

    def _begin_with(self, rows: str, first: int) -> str:
        """int64 `(B, T)` to `(B, S)`: with a column of `first` in front; no other number is as large."""
        g = self.g
        # The larger of the two turns one column into the number without asking for the batch size.
        column = g.node("Slice", [rows, *(g.constant(np.array([v]), f"index_{v}") for v in (0, 1, 1))])
        return g.concat([g.node("Max", [column, g.constant(np.array([[first]]), f"first_{first}")]), rows], 1)

    def _cloze_mask(self, tokens: str) -> str:
        """Float `(B, 1, S, S)`: hides from each position its own character and all that follows the end."""
        g, count = self.g, self.length + 1
        ended = g.node("Equal", [tokens, g.constant(np.array(self.model.tokenizer.eos_id), "end_id")])
        ended = g.cast(ended, g.float_type)
        # Counts the end tokens up to each position; column 0 is the begin token, which is always seen.
        counting = torch.cat([torch.zeros(self.length, 1), torch.ones(self.length, self.length).triu()], 1)
        after = g.matmul(ended, g.constant(counting * MASKED, "after_end"))
        after = g.node("Max", [after, g.constant(np.array(MASKED), "masked")])
        itself = torch.diag(torch.full((self.length,), MASKED), 1)[None, None]
        return g.add(g.reshape(after, (0, 1, 1, count)), g.constant(itself, "itself"))
