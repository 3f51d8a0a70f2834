"""PARSeq's decoding passes as ONNX nodes, with every key and value computed once.

What the graph exploits, none of it an approximation:

* The position queries are parameters: in the first layer their norm and projection are constants.
* While reading in turn the content stream is causal, so a token's keys and values never change: they are kept, layer by layer.
* In the first layer they depend on the token and its position alone: for a charset of ordinary size all of them are a table.
* While there is only the begin token, attending to it gives a constant in the first layer.

Shapes: B batch, T `max_label_length`, S = T + 1 steps, n tokens so far, E `embed_dim`, H heads, D = E / H, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from onnx import TensorProto

from export.builder import GraphBuilder
from export.layer_graph import LayerGraph
from model.parseq import PARSeq

MASKED = -30000.0
"""Added to the scores of what must not be seen: exp of it is 0, and two of them still fit a half-precision float."""
MAX_TABLE_BYTES = 16 * 2**20
"""Keys and values of the first layer become a table up to this size; above it they are computed from the embedding."""


@dataclass(slots=True)
class Reading:
    """What reading in turn has produced so far."""

    logits: list[str]
    """Each float `(B, C)`."""
    tokens: list[str]
    """Each int64 `(B,)`."""
    caches: list[str]
    """For each layer the keys and values of the tokens so far, float `(B, 2H, n, D)`."""


class DecoderGraph:
    """Appends decoding passes to a graph."""

    def __init__(self, g: GraphBuilder, model: PARSeq, memory: str, *, max_table_bytes: int = MAX_TABLE_BYTES) -> None:
        """Project the memory for every layer.

        Args:
            g: where to.
            model: the weights, in eval mode.
            memory: float `(B, N, E)`, the encoder's output.
            max_table_bytes: see `MAX_TABLE_BYTES`.
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
        self.use_table = 4 * self.length * self.classes * 2 * config.embed_dim <= max_table_bytes
        g.scope("memory")
        self.layers = [
            LayerGraph(g, layer, depth, memory, config.grid[0] * config.grid[1])
            for depth, layer in enumerate(model.decoder.typed_layers())
        ]

    def read_at_once(self) -> str:
        """All positions, seeing the begin token only. Returns logits, float `(B, S, C)`."""
        self.g.scope("at_once")
        return self._head(self._begin(self.length + 1)[0])

    def read_in_turn(self, steps: int) -> Reading:
        """Read the first `steps` positions, one after another, each seeing the tokens before it.

        Every step is written out, so no text is cut short; steps after the end token are computed and carry no meaning.
        """
        self.g.scope("step_0")
        query, caches = self._begin(1)
        reading = Reading([], [], caches)
        self._choose(query, reading)
        for step in range(1, steps):
            self.g.scope(f"step_{step}")
            self._see_last_token(reading)
            self._choose(self._answer(step, reading.caches), reading)
        return reading

    def refine(self, tokens: str, first_layer: str | None = None) -> str:
        """Read every position again, seeing the whole text but the character in question and what follows the end.

        Args:
            tokens: int64 `(B, T)`, the text so far, without the begin token.
            first_layer: that text's keys and values in the first layer, float `(B, 2H, S, D)`, if they are known.

        Returns:
            Logits, float `(B, S, C)`.
        """
        count = self.length + 1
        mask = self._cloze_mask(tokens)
        needs_content = first_layer is None or len(self.layers) > 1
        content = self._embed_text(tokens) if needs_content else ""
        query = ""
        for depth, layer in enumerate(self.layers):
            q = layer.query(layer.norm_query(query), count) if depth else layer.constant_query(self.pos_queries)
            normed = layer.norm_content(content) if needs_content else ""
            known = first_layer if depth == 0 else None
            key_value = known or layer.key_value(normed, count)
            query = layer.stream(query if depth else self.pos_queries, q, key_value, count, mask)
            if depth + 1 < len(self.layers):
                # The content sees with the queries' mask, as the model does.
                content = layer.stream(content, layer.query(normed, count), key_value, count, mask)
        return self._head(query)

    def see_all_tokens(self, reading: Reading) -> str:
        """Keys and values in the first layer of everything that was read, float `(B, 2H, 1 + len(tokens), D)`."""
        rows = self._first_layer_rows(len(reading.tokens), reading.tokens[-1])
        return self.g.concat([*filter(None, reading.caches[:1]), rows], 2)

    def stack_tokens(self, tokens: list[str]) -> str:
        """Each int64 `(B,)` to int64 `(B, len(tokens))`."""
        return self.g.transpose(self.g.reshape(self.g.concat(tokens, 0), (len(tokens), -1)), (1, 0))

    def stack_logits(self, logits: list[str]) -> str:
        """Each float `(B, C)` to float `(B, len(logits), C)`."""
        return self.g.reshape(self.g.concat(logits, 1), (0, len(logits), self.classes))

    def _begin(self, count: int) -> tuple[str, list[str]]:
        """The first `count` queries, seeing only the begin token: the answer, and the caches of the layers.

        The first layer's cache is still empty, for a constant cannot be joined to a batch: `_first_layer_rows` begins it.
        """
        g, first = self.g, self.layers[0]
        begin = self.embedding[self.model.tokenizer.bos_id]
        seen = first.attending_to_one(begin)
        queries = self.pos_queries[:count] + seen
        flat = count == 1 and g.flat_rows
        query = first.rest(g.constant(queries if flat else queries[None], "begin.queries"), count)
        if len(self.layers) == 1:
            return query, [""]
        begin_content = (begin + seen)[None] if g.flat_rows else (begin + seen)[None, None]
        content, caches = first.rest(g.constant(begin_content, "begin.content"), 1), [""]
        for depth, layer in enumerate(self.layers[1:], start=1):
            normed = layer.norm_content(content)
            caches.append(layer.key_value(normed, 1))
            query = layer.stream(query, layer.query(layer.norm_query(query), count), caches[-1], count)
            if depth + 1 < len(self.layers):
                content = layer.stream(content, layer.query(normed, 1), caches[-1], 1)
        return query, caches

    def _see_last_token(self, reading: Reading) -> None:
        """Append the last token's keys and values to every layer's cache."""
        g, position, token = self.g, len(reading.tokens), reading.tokens[-1]
        rows = self._first_layer_rows(position, token)
        content = ""
        for depth, layer in enumerate(self.layers):
            if depth == 0 and len(self.layers) > 1:
                content = self._embed(position, token)
                content = content if g.flat_rows else g.reshape(content, (0, 1, self.model.config.embed_dim))
            normed = layer.norm_content(content) if content else ""
            if depth:
                rows = layer.key_value(normed, 1)
            reading.caches[depth] = g.concat([*filter(None, [reading.caches[depth]]), rows], 2)
            if depth + 1 < len(self.layers):
                # The token sees itself and what precedes it: that is what the cache holds.
                content = layer.stream(content, layer.query(normed, 1), reading.caches[depth], 1)

    def _first_layer_rows(self, position: int, token: str) -> str:
        """Keys and values of one token in the first layer, `(B, 2H, 1, D)`; at position 1 with the begin token before it."""
        g, layer = self.g, self.layers[0]
        begin = layer.constant_key_value(self.embedding[self.model.tokenizer.bos_id])
        count = 2 if position == 1 else 1
        if self.use_table:
            content = self.embedding[: self.classes] + self.pos_queries[position - 1]
            table = layer.constant_key_value(content)[:, :, None]
            if position == 1:
                table = torch.cat([begin.expand(len(table), -1, -1)[:, :, None], table], 2)
            return g.node("Gather", [g.constant(table, f"decoder.0.table_{position}"), token], axis=0)
        content_rows = self._embed(position, token, with_begin=position == 1)
        return layer.key_value(layer.norm_content(content_rows), count)

    def _embed(self, position: int, token: str, *, with_begin: bool = False) -> str:
        """Content of one token, `(B, E)`; with the begin token before it, `(B, 2, E)`."""
        g = self.g
        table = self.embedding[: self.classes]
        place = self.pos_queries[position - 1]
        if with_begin:
            begin = self.embedding[self.model.tokenizer.bos_id]
            table = torch.stack([begin.expand_as(table), table], 1)
            place = torch.stack([torch.zeros_like(place), place])
        embedded = g.node("Gather", [g.constant(table, "embedding"), token], axis=0)
        return g.add(embedded, g.constant(place, f"place_{position}"))

    def _embed_text(self, tokens: str) -> str:
        """Content of a whole text, int64 `(B, T)` to float `(B, S, E)`, the begin token first."""
        g = self.g
        # No predicted id is as large as the begin token's: this turns one column into it without asking for the batch size.
        column = g.node("Slice", [tokens, *(g.constant(np.array([v]), f"index_{v}") for v in (0, 1, 1))])
        begin = g.node("Max", [column, g.constant(np.array([[self.model.tokenizer.bos_id]]), "begin_id")])
        ids = g.concat([begin, tokens], 1)
        embedded = g.node("Gather", [g.constant(self.embedding[:-1], "embedding_with_begin"), ids], axis=0)
        places = torch.cat([torch.zeros_like(self.pos_queries[:1]), self.pos_queries[: self.length]])
        return g.add(embedded, g.constant(places, "places"))

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

    def _answer(self, step: int, caches: list[str]) -> str:
        """The query of one position through all layers, `(B, E)`."""
        position, query = self.pos_queries[step : step + 1], ""
        for depth, layer in enumerate(self.layers):
            q = layer.query(layer.norm_query(query), 1) if depth else layer.constant_query(position)
            query = layer.stream(query if depth else position, q, caches[depth], 1)
        return query

    def _choose(self, query: str, reading: Reading) -> None:
        query = query if self.g.flat_rows else self.g.reshape(query, (0, self.model.config.embed_dim))
        logits = self._head(query)
        reading.logits.append(logits)
        reading.tokens.append(self.g.node("ArgMax", [logits], axis=-1, keepdims=0))

    def _head(self, query: str) -> str:
        """Logits, always float32: in half precision near ties would become ties, and a confidence lose its third digit."""
        g, head = self.g, self.model.head
        query = g.cast(query, TensorProto.FLOAT) if g.half else query
        with g.full_precision():
            normed = g.layer_norm(query, self.model.decoder.norm, "decoder.norm")
            product = g.matmul(normed, g.weight(head.weight, "head"))
            return g.add(product, g.constant(head.bias, "head.bias"))
