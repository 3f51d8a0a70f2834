"""What recognisers of columns share: ids, greedy reading and loss in PyTorch, and the same reading inside a graph."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, product
from math import prod

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch import Tensor

from export.graphs.builder import FLOAT_TYPES, GraphBuilder
from export.graphs.ctc import write_collapse
from model.recognisers.parts.ctc import BLANK, CtcTokenizer, collapse, ctc_loss
from model.recognisers.parts.tokenizer import UnknownCharacterError
from tests.export_models import new_session, serialised

CLASSES = 4


def drawn_logits(count: int, columns: int, classes: int = CLASSES) -> Tensor:
    """Float `(count, columns, classes)`, so few classes that runs and blanks are frequent; multiples of 1/8, without ties."""
    random = torch.Generator().manual_seed(columns)
    return torch.rand(count, columns, classes, generator=random).argsort(-1).float() * 0.75 - 0.875


def read_plainly(probabilities: Tensor) -> tuple[list[int], list[float]]:
    """One text's ids, and the products over its runs and over its blanks; of `(T, C)`."""
    best, kinds = probabilities.max(-1)
    ids, products, blanks = list[int](), list[float](), 1.0
    for kind, run in groupby(zip(kinds.tolist(), best.tolist(), strict=True), key=lambda column: column[0]):
        together = prod(value for _, value in run)
        if kind == BLANK:
            blanks *= together
        else:
            ids.append(kind)
            products.append(together)
    return ids, [*products, blanks]


@pytest.mark.parametrize("columns", [1, 2, 7, 33])
def test_columns_become_characters_with_their_probabilities(columns: int) -> None:
    probabilities = drawn_logits(64, columns).softmax(-1)
    ids, confidences = collapse(probabilities)
    assert ids.shape == confidences.shape == (64, columns + 1)
    texts, kept = CtcTokenizer("abc").decode(probabilities)
    for number, row in enumerate(probabilities):
        wanted, values = read_plainly(row)
        padding = columns + 1 - len(values)
        assert ids[number].tolist() == wanted + [0] * (padding + 1)
        assert confidences[number].tolist() == pytest.approx(values + [1.0] * padding, rel=1e-5)
        assert texts[number] == "".join("abc"[kind - 1] for kind in wanted)
        assert kept[number].tolist() == pytest.approx(values, rel=1e-5)
        assert float(kept[number].prod()) == pytest.approx(float(row.max(-1).values.prod()), rel=1e-5)


@pytest.mark.parametrize("float_type", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("columns", [1, 2, 7, 33])
def test_the_graph_collapses_as_pytorch_does(columns: int, float_type: int) -> None:
    g = GraphBuilder(float_type)
    answer = write_collapse(g, g.input("logits", float_type, ("batch", columns, CLASSES)), columns)
    assert answer.confidences is not None
    g.output(answer.token_ids, "ids", TensorProto.INT64, ("batch", columns + 1))
    g.output(answer.confidences, "confidences", TensorProto.FLOAT, ("batch", columns + 1))
    session = new_session(serialised(g))
    logits = drawn_logits(64, columns)
    # All blanks; one character; as many characters as there are columns.
    logits[:3] = torch.nn.functional.one_hot(torch.tensor([0, 2, 1]), CLASSES)[:, None] * 4.0
    logits[2, 1::2] = logits[1, 0]
    ids, confidences = collapse(logits.softmax(-1))
    assert [int((row > 0).sum()) for row in ids[:3]] == [0, 1, columns]
    for chosen in (slice(None), slice(2, 3)):
        found = session.run(None, {"logits": logits[chosen].numpy().astype(FLOAT_TYPES[float_type])})
        assert found[0].tolist() == ids[chosen].tolist()
        # These logits are half-precision numbers: all the rest is float32.
        np.testing.assert_allclose(found[1], confidences[chosen], rtol=1e-5)


def negative_log_likelihood(logits: Tensor, ids: Sequence[int]) -> float:
    """By summing over every way to name the columns; `(T, C)`."""
    chances = logits.softmax(-1).tolist()
    ways = product(range(logits.shape[1]), repeat=len(chances))
    fitting = (way for way in ways if [kind for kind, _ in groupby(way) if kind != BLANK] == list(ids))
    return -float(np.log(sum(prod(row[kind] for row, kind in zip(chances, way, strict=True)) for way in fitting)))


def test_the_loss_by_hand() -> None:
    texts, tokenizer = ["ab", "aa", "c", "abca"], CtcTokenizer("abc")
    logits = torch.randn(4, 5, CLASSES, generator=torch.Generator().manual_seed(1), requires_grad=True)
    wanted = [negative_log_likelihood(row, tokenizer.ids(text)) / len(text) for row, text in zip(logits, texts, strict=True)]
    loss = ctc_loss(logits, tokenizer.encode(texts))
    assert loss.item() == pytest.approx(np.mean(wanted), rel=1e-5)
    # An empty text counts as one of length 1; what has no room counts nothing, and gives finite gradients.
    empty = negative_log_likelihood(logits[0], [])
    loss = ctc_loss(logits[:2], tokenizer.encode(["", "aaaa"]))
    assert loss.item() == pytest.approx(empty / 2, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert bool(logits.grad[0].any())
    assert not bool(logits.grad[1:].any())
    assert ctc_loss(logits[:1], tokenizer.encode([""])).item() == pytest.approx(empty, rel=1e-5)


def test_characters_that_are_not_there() -> None:
    with pytest.raises(UnknownCharacterError, match="holds 'x'"):
        CtcTokenizer("abc").encode(["ax"])
    with pytest.raises(ValueError, match="distinct characters"):
        CtcTokenizer("aba")
