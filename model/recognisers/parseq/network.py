"""PARSeq: the network, its two ways of decoding, its refinement and its loss under permuted orders.

"Scene Text Recognition with Permuted Autoregressive Sequence Models", Bautista and Atienza, ECCV 2022. The state dict is key
for key that of the released weights of baudm/parseq (the inner model of its checkpoints).

Shapes: B batch, N encoder tokens, T `max_label_length`, S steps (at most T + 1), C classes (charset + end), E `embed_dim`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.recognisers.interface import Network
from model.recognisers.parseq.config import PARSeqConfig
from model.recognisers.parseq.decoder import Decoder
from model.recognisers.parseq.encoder import Encoder
from model.recognisers.parseq.permutations import attention_masks
from model.recognisers.parts.attention import KeyValue, KeyValueAttention
from model.recognisers.parts.initialise import initialise
from model.recognisers.parts.tokenizer import Tokenizer
from model.recognisers.restriction import restricted


class TokenEmbedding(nn.Module):
    """Token embeddings scaled by the square root of their width."""

    def __init__(self, count: int, embed_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, embed_dim)
        self.scale = math.sqrt(embed_dim)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 `(B, S)` to float `(B, S, E)`."""
        embedded: Tensor = self.embedding(ids)
        return embedded * self.scale


class PARSeq(Network):
    """The network with its decoding, refinement and loss."""

    def __init__(self, config: PARSeqConfig) -> None:
        super().__init__()
        self.config: PARSeqConfig = config
        self.tokenizer = Tokenizer(config.charset_train)
        embed_dim = config.embed_dim
        self.encoder = Encoder(config)
        self.decoder = Decoder(
            embed_dim,
            config.dec_num_heads,
            embed_dim * config.dec_mlp_ratio,
            config.dec_depth,
            config.dropout,
        )
        # The begin and pad tokens are never predicted.
        self.head = nn.Linear(embed_dim, len(self.tokenizer) - 2)
        self.text_embed = TokenEmbedding(len(self.tokenizer), embed_dim)
        self.pos_queries = nn.Parameter(torch.empty(1, config.max_label_length + 1, embed_dim))
        self.dropout = nn.Dropout(config.dropout)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise as the reference implementation does. Patches keep PyTorch's default; the residual stem does not."""
        nn.init.trunc_normal_(self.pos_queries, std=0.02)
        nn.init.trunc_normal_(self.encoder.pos_embed, std=0.02)
        patches = self.encoder.patch_embed.proj if self.config.stem == "patch" else None
        for module in self.modules():
            if isinstance(module, KeyValueAttention):
                nn.init.xavier_uniform_(module.in_proj_weight)
            elif module is not patches:
                initialise(module)

    def encode(self, images: Tensor) -> Tensor:
        """Images, float `(B, 3, H, W)` in [-1, 1], to memory, float `(B, N, E)`."""
        memory: Tensor = self.encoder(images)
        return memory

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Content of the decoder: int64 `(B, S)`, the first the begin token, to float `(B, S, E)`.

        Characters carry the position they stand at; the begin token carries none.
        """
        begin = self.text_embed(ids[:, :1])
        rest = self.pos_queries[:, : ids.shape[1] - 1] + self.text_embed(ids[:, 1:])
        content: Tensor = self.dropout(torch.cat([begin, rest], 1))
        return content

    def forward(
        self,
        images: Tensor,
        max_length: int | None = None,
        decode_ar: bool | None = None,
        refine_iters: int | None = None,
    ) -> Tensor:
        """Read images.

        Args:
            images: Float `(B, 3, H, W)` in [-1, 1].
            max_length: Read at most so many characters, always in as many steps. None: autoregressive decoding ends when every
                text of the batch has ended.
            decode_ar: Autoregressive, or all positions at once; None: as the config says.
            refine_iters: How often to read again with the text so far as context; None: as the config says.

        Returns:
            Logits, float `(B, S, C)`; `S` is `max_length + 1`, or less when decoding stopped early and nothing is refined.
        """
        stop_early = max_length is None
        limit = self.config.max_label_length if max_length is None else min(max_length, self.config.max_label_length)
        return self._passes(images, limit, decode_ar, refine_iters, stop_early=stop_early)[-1]

    def decode(self, logits: Tensor) -> tuple[list[str], list[Tensor]]:
        """Greedy reading (see `Tokenizer.decode`): texts, and the probabilities of their tokens, the end token's included."""
        return self.tokenizer.decode(logits.softmax(-1))

    def passes(self, images: Tensor, allowed: Tensor | None = None) -> Sequence[Tensor]:
        """The logits of the first reading and of every refinement, as the config decodes; all steps of each."""
        return self._passes(images, self.config.max_label_length, None, None, stop_early=False, allowed=allowed)

    def step_probabilities(self, logits: Tensor) -> Tensor:
        """The softmax of the logits."""
        return logits.softmax(-1)

    def ways(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The encoder alone, the usual ways of decoding, and the config's own."""
        config, length = self.config, self.config.max_label_length
        own = "ar" if config.decode_ar else "nar"
        own += "" if not config.refine_iters else f" + {config.refine_iters} refinement{'s' if config.refine_iters > 1 else ''}"
        decoding = {"nar": (False, 0), "ar": (True, 0), "ar + 1 refinement": (True, 1)}
        decoding.setdefault(own, (config.decode_ar, config.refine_iters))
        whole = {
            name: partial(self.forward, max_length=length, decode_ar=ar, refine_iters=n) for name, (ar, n) in decoding.items()
        }
        return {"encoder": self.encode, **whole}

    def reads_by(self) -> dict[str, object]:
        """The config's `decode_ar` and `refine_iters`."""
        return {"decode": "ar" if self.config.decode_ar else "nar", "refine_iters": self.config.refine_iters}

    def _passes(
        self,
        images: Tensor,
        length: int,
        decode_ar: bool | None,
        refine_iters: int | None,
        *,
        stop_early: bool,
        allowed: Tensor | None = None,
    ) -> list[Tensor]:
        decode_ar = self.config.decode_ar if decode_ar is None else decode_ar
        refine_iters = self.config.refine_iters if refine_iters is None else refine_iters
        steps = length + 1
        memory = self.decoder.project_memory(self.encode(images))
        if decode_ar:
            found = [self._read_in_turn(memory, steps, stop_early, allowed)]
        else:
            found = [restricted(self._read_at_once(memory, steps), allowed)]
        for _ in range(refine_iters):
            found.append(restricted(self._refine(found[-1], memory, steps), allowed))
        return found

    def _begin(self, memory: list[KeyValue]) -> Tensor:
        keys = memory[0][0]
        return torch.full((len(keys), 1), self.tokenizer.bos_id, dtype=torch.long, device=keys.device)

    def _read_at_once(self, memory: list[KeyValue], steps: int) -> Tensor:
        content = self.embed_tokens(self._begin(memory))
        logits: Tensor = self.head(self.decoder(self.pos_queries[:, :steps], content, memory))
        return logits

    def _read_in_turn(self, memory: list[KeyValue], steps: int, stop_early: bool, allowed: Tensor | None) -> Tensor:
        ids = self._begin(memory)
        ended = torch.zeros_like(ids, dtype=torch.bool)
        logits = []
        for step in range(steps):
            # All content so far precedes the query, so no mask is needed.
            later = _above_diagonal(step + 1, 1, ids.device)
            query = self.pos_queries[:, step : step + 1]
            out = self.decoder(query, self.embed_tokens(ids), memory, None, later)
            logits.append(restricted(self.head(out), allowed))
            chosen = logits[-1].argmax(-1)
            ids = torch.cat([ids, chosen], 1)
            ended |= chosen == self.tokenizer.eos_id
            if stop_early and bool(ended.all()):
                break
        return torch.cat(logits, 1)

    def _refine(self, logits: Tensor, memory: list[KeyValue], steps: int) -> Tensor:
        """Read every position again, seeing the whole text so far but the character in question (a cloze test).

        Text that early stopping did not write would be hidden behind the end token in any case. With more than one layer the
        reference fails there (its content mask keeps the full size); here the masks have the size of the text. As in the
        reference, the content stream sees with the same mask as the queries.
        """
        ids = torch.cat([self._begin(memory), logits[:, :-1].argmax(-1)], 1)
        length = ids.shape[1]
        after_end = ((ids == self.tokenizer.eos_id).cumsum(-1) > 0)[:, None, None, :]
        itself = torch.ones(steps, length, dtype=torch.bool, device=ids.device)
        itself = itself.triu(1) & ~itself.triu(2)
        blocked = after_end | itself
        content_blocked = after_end | itself[:length]
        query = self.pos_queries[:, :steps]
        refined: Tensor = self.head(self.decoder(query, self.embed_tokens(ids), memory, blocked, content_blocked))
        return refined

    def permutation_loss(self, memory: Tensor, targets: Tensor, orders: Tensor, count: Tensor | None = None) -> Tensor:
        """The permuted language-modelling loss over all orders, in one pass.

        The mean negative log likelihood of every predicted token under every order. From the third order on the end token does
        not count (the first two have taught it; under the others its place is known from the length).

        Args:
            memory: Float `(B, N, E)`, from `encode`.
            targets: int64 `(B, L + 2)`, from `Tokenizer.encode`.
            orders: int64 `(P, L + 2)`, from `draw_permutations`.
            count: Divide the sum by this instead of by the number of predicted tokens.

        Returns:
            The loss, a scalar.
        """
        inputs, outputs = targets[:, :-1], targets[:, 1:]
        pad_id, eos_id = self.tokenizer.pad_id, self.tokenizer.eos_id
        content_blocked, query_blocked = attention_masks(orders.to(targets.device))
        padding = ((inputs == pad_id) | (inputs == eos_id))[:, None, None, :]
        logits = self._answer_orders(memory, inputs, padding, query_blocked, content_blocked)
        wanted = self._wanted(outputs, len(orders))
        reduction = "mean" if count is None else "sum"
        loss = F.cross_entropy(logits.flatten(0, -2), wanted.flatten(), ignore_index=pad_id, reduction=reduction)
        return loss if count is None else loss / count

    def count_predicted(self, targets: Tensor, orders: Tensor) -> Tensor:
        """The number of tokens over which `permutation_loss` is the mean."""
        return (self._wanted(targets[:, 1:], len(orders)) != self.tokenizer.pad_id).sum()

    def _wanted(self, outputs: Tensor, orders: int) -> Tensor:
        """The tokens to be predicted under each order, int64 `(P, B, L + 1)`."""
        wanted = outputs.unsqueeze(0).repeat(orders, 1, 1)
        wanted[2:][wanted[2:] == self.tokenizer.eos_id] = self.tokenizer.pad_id
        return wanted

    def _answer_orders(
        self, memory: Tensor, inputs: Tensor, padding: Tensor, query_blocked: Tensor, content_blocked: Tensor
    ) -> Tensor:
        """Logits under every order, float `(P, B, L + 1, C)`."""
        count, length = query_blocked.shape[:2]
        batch = len(inputs)
        memory_kv = self.decoder.project_memory(memory)
        content = self.embed_tokens(inputs)
        query = self.pos_queries[:, :length].repeat(1, count, 1)
        if self.config.dec_depth == 1:
            # The content's keys and values are the same under all orders, so the queries of all orders are joined.
            query = self.dropout(query.expand(batch, -1, -1))
            logits: Tensor = self.head(self.decoder(query, content, memory_kv, padding | query_blocked.flatten(0, 1)))
            return logits.view(batch, count, length, -1).transpose(0, 1)

        def fold(x: Tensor) -> Tensor:
            return x.repeat(count, *[1] * (x.dim() - 1))

        def per_order(blocked: Tensor) -> Tensor:
            return fold(padding) | blocked.repeat_interleave(batch, 0)[:, None]

        query = self.dropout(self.pos_queries[:, :length].expand(count * batch, -1, -1))
        folded = [(fold(key), fold(value)) for key, value in memory_kv]
        out = self.decoder(query, fold(content), folded, per_order(query_blocked), per_order(content_blocked))
        logits = self.head(out)
        return logits.view(count, batch, length, -1)


def _above_diagonal(size: int, diagonal: int, device: torch.device) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool, device=device).triu(diagonal)
