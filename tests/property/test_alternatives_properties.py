"""The most probable texts, for any candidates, beside a search through all of them."""

from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact.alternatives import alternatives_of, read_with_alternatives
from artifact.text import Reading, text_length, text_of

VOCABULARY = "abcde"
SYMBOLS = ("a", "b", "ab", "ba", "bb")

steps = st.integers(1, 4).flatmap(
    lambda count: st.lists(
        st.tuples(
            st.permutations(range(len(VOCABULARY) + 1)).map(lambda ids: ids[:count]),
            st.lists(st.floats(0.0, 1.0, width=32), min_size=count, max_size=count).map(lambda c: sorted(c, reverse=True)),
        ),
        min_size=1,
        max_size=4,
    )
)


def all_texts(ids: list[list[int]], confidences: list[list[float]], vocabulary: str | tuple[str, ...]) -> dict[str, float]:
    """Every text that the candidates can make, with its probability; of several ways to write one, the best."""
    length = text_length([candidates[0] for candidates in ids])
    best = [candidates[0] for candidates in confidences][: length + 1]
    found: dict[str, float] = {}
    for ranks in product(range(len(ids[0])), repeat=length):
        tokens, probabilities = list[int](), list[float]()
        for step, rank in enumerate(ranks):
            if rank and confidences[step][rank] <= 0.0:
                break
            tokens.append(ids[step][rank])
            probabilities.append(confidences[step][rank])
            if tokens[-1] == 0:
                break
        else:
            probabilities += best[length:]
        if not tokens or tokens[-1] != 0:
            if len(tokens) < length:
                continue
        elif probabilities[-1] > math.prod(best[len(tokens) - 1 :]) * (1 + 1e-12):
            continue
        text = "".join(vocabulary[token - 1] for token in tokens if token)
        found[text] = max(found.get(text, 0.0), math.prod(probabilities))
    return found


@pytest.mark.parametrize("vocabulary", [VOCABULARY, SYMBOLS])
@given(drawn=steps, count=st.integers(1, 5))
def test_they_are_the_most_probable_ones(
    vocabulary: str | tuple[str, ...], drawn: list[tuple[list[int], list[float]]], count: int
) -> None:
    ids, confidences = [list(step[0]) for step in drawn], [step[1] for step in drawn]
    read = text_of([step[0] for step in ids], [step[0] for step in confidences], vocabulary)
    found = alternatives_of(ids, confidences, vocabulary, count, read)
    assert found[0] is read
    assert len({other.text for other in found}) == len(found) <= count
    assert all(other.confidence <= before.confidence <= 1.0 for before, other in pairwise(found))
    every = all_texts(ids, confidences, vocabulary)
    every.pop(read.text, None)
    wanted = sorted(every.values(), reverse=True)[: count - 1]
    assert [other.confidence for other in found[1:]] == pytest.approx(wanted, rel=1e-9, abs=1e-300)
    for other in found[1:]:
        assert every[other.text] == pytest.approx(other.confidence, rel=1e-9, abs=1e-300)


def test_an_example() -> None:
    ids, confidences = [[1, 2], [2, 0], [0, 3]], [[0.8, 0.2], [0.6, 0.3], [0.9, 0.1]]
    reading = read_with_alternatives([1, 2, 0], [0.8, 0.6, 0.9], ids, confidences, VOCABULARY, 5)
    assert (reading.text, reading.confidence) == ("ab", pytest.approx(0.432))
    told = {other.text: other.confidence for other in reading.alternatives}
    assert list(told) == ["ab", "a", "bb", "b"]
    assert list(told.values()) == pytest.approx([0.432, 0.24, 0.108, 0.06])


def test_an_end_that_is_more_probable_than_what_was_read_behind_it_is_left_out() -> None:
    ids, confidences = [[1, 2], [2, 0], [0, 3]], [[0.8, 0.2], [0.5, 0.4], [0.7, 0.3]]
    read = Reading("ab", 0.28)
    assert [other.text for other in alternatives_of(ids, confidences, VOCABULARY, 5, read)] == ["ab", "bb"]


def test_a_token_that_is_not_in_the_vocabulary_is_told() -> None:
    for wrong in (6, -1):
        with pytest.raises(ValueError, match="not in its charset"):
            alternatives_of([[1, wrong], [0, 1]], [[0.5, 0.1], [0.5, 0.1]], VOCABULARY, 2, Reading("a", 0.25))
