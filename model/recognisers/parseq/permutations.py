"""The permutations that PARSeq trains on, and the attention masks they mean.

From the paper's section 3.2: besides left to right and right to left, random factorisation orders, each with its mirror image.
The random draws follow the reference implementation step by step, so that one seed gives both the same orders.
"""

from __future__ import annotations

import math
from itertools import permutations
from typing import Final

import numpy as np
import torch
from torch import Tensor

# Of the 24 orders of four characters, one of each mirrored pair, in the order the reference lists them.
_FOUR_UNMIRRORED: Final = (0, 3, 4, 6, 9, 10, 12, 16, 17, 18, 19, 21)
_ENUMERATED_BELOW: Final = 5
"""Shorter texts have so few orders that they are drawn without repetition from the list of all."""


def draw_permutations(
    length: int, rng: np.random.Generator, count: int = 6, forward: bool = True, mirrored: bool = True
) -> Tensor:
    """Draw orders in which a text of `length` characters is to be predicted.

    Args:
        length: Characters in the longest text of the batch; 0 when all are empty.
        rng: Draws the orders of short texts; those of longer ones come from torch's global generator, as in the reference.
        count: How many orders, mirror images included; fewer when a short text does not have as many.
        forward: Begin with left to right.
        mirrored: Follow each order by its mirror image.

    Returns:
        int64 `(orders, length + 2)`: positions in order of prediction, 0 (begin) first. Position `length + 1` (end) comes last,
        but first of all in the second order, the exact reverse.
    """
    if length < 2:
        # There is but one order: begin, the character if there is one, end.
        return torch.arange(length + 2).unsqueeze(0)
    drawn = _draw_short(length, rng, count, forward, mirrored) if length < _ENUMERATED_BELOW else None
    if drawn is None:
        wanted = (count // 2 if mirrored else count) - int(forward)
        rows = [torch.arange(length)] if forward else []
        drawn = torch.stack(rows + [torch.randperm(length) for _ in range(wanted)])
    if mirrored:
        drawn = torch.stack([drawn, drawn.flip(-1)], 1).flatten(0, 1)
    begin = torch.zeros(len(drawn), 1, dtype=torch.long)
    orders = torch.cat([begin, drawn + 1, torch.full_like(begin, length + 1)], 1)
    if len(orders) > 1:
        # With the end token predicted first the second order is the true right-to-left one.
        orders[1, 1:] = torch.arange(length + 1, 0, -1)
    return orders


def _draw_short(length: int, rng: np.random.Generator, count: int, forward: bool, mirrored: bool) -> Tensor:
    total = math.factorial(length) // (2 if mirrored else 1)
    wanted = min(count // 2 if mirrored else count, total)
    every = torch.tensor(list(permutations(range(length))))
    pool = every[list(_FOUR_UNMIRRORED)] if length == 4 and mirrored else every[:total]
    chosen = pool[:0]
    if forward:
        # The first of the list is left to right itself.
        chosen, pool = pool[:1], pool[1:]
    if len(pool):
        picked = rng.choice(len(pool), size=wanted - len(chosen), replace=False)
        chosen = torch.cat([chosen, pool[torch.from_numpy(picked)]])
    return chosen


def attention_masks(orders: Tensor) -> tuple[Tensor, Tensor]:
    """What each position must not see under each order.

    Args:
        orders: int64 `(P, L + 2)` or `(L + 2,)`, from `draw_permutations`.

    Returns:
        Two bool tensors `(P, L + 1, L + 1)` (or without the first axis), true where blocked: for the content (row: token 0..L)
        and for the queries (row: the query for position 1..L+1). Columns are tokens 0..L.
    """
    rank = orders.argsort(-1)
    keys = rank[..., None, :-1]
    content_blocked = keys > rank[..., :-1, None]
    # A query must not see the very token it asks for.
    query_blocked = keys >= rank[..., 1:, None]
    return content_blocked, query_blocked
