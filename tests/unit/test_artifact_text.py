from __future__ import annotations

import pytest

from artifact.text import text_of


def read(ids: list[int], probabilities: list[float]) -> tuple[str, float, tuple[float, ...]]:
    reading = text_of(ids, probabilities, "abc")
    return reading.text, reading.confidence, reading.character_confidences


def test_text_ends_at_the_end_token_whose_probability_counts() -> None:
    text, confidence, characters = read([1, 3, 0, 2, 2], [0.5, 0.5, 0.25, 0.125, 0.125])
    assert (text, confidence, characters) == ("ac", 0.0625, (0.5, 0.5))


def test_a_text_of_full_length_has_no_end_token() -> None:
    assert read([1, 2, 3], [0.5, 0.5, 0.5]) == ("abc", 0.125, (0.5, 0.5, 0.5))


def test_an_empty_text_has_the_confidence_of_its_end() -> None:
    assert read([0, 1], [0.75, 0.5]) == ("", 0.75, ())


def test_symbols_of_several_characters_share_their_probability() -> None:
    reading = text_of([2, 1, 0], [0.5, 0.25, 0.5], ("a", "ch"))
    assert (reading.text, reading.confidence, reading.character_confidences) == ("cha", 0.0625, (0.5, 0.5, 0.25))


@pytest.mark.parametrize("ids", [[4, 0], [-1, 0]])
def test_an_id_outside_the_charset_is_an_error(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="charset"):
        read(ids, [0.5, 0.5])


def test_ids_after_the_end_are_not_looked_at() -> None:
    assert read([1, 0, 99], [0.5, 0.5, 0.5])[0] == "a"
