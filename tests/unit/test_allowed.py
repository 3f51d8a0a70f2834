"""Which characters may be read, as people ask for them."""

from __future__ import annotations

import numpy as np
import pytest

from artifact.allowed import AllowedError, UnknownCharactersError, allowed_matrix, entries_of, parts_of
from model.charsets import CHARSETS

ALL = CHARSETS["94"]


def chosen(wanted: str, vocabulary: str | tuple[str, ...] = ALL) -> list[str]:
    return [entry for entry, allowed in zip(vocabulary, entries_of(wanted, vocabulary), strict=True) if allowed]


@pytest.mark.parametrize(
    ("wanted", "characters"),
    [
        ("digits", "0123456789"),
        ("lowercase", "abcdefghijklmnopqrstuvwxyz"),
        ("uppercase,digits", "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        ("digits,digits,uppercase,digits", "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        ("chars:0123456789", "0123456789"),
        ("chars:aab", "ab"),
        ("chars:digits", "dgist"),
        ("chars:chars:", ":achrs"),
        ("chars:,", ","),
        ("digits,chars:.,-", "0123456789,-."),
    ],
)
def test_kinds_and_characters(wanted: str, characters: str) -> None:
    assert sorted(chosen(wanted)) == sorted(characters)


def test_kinds_cover_what_there_is() -> None:
    assert chosen("alphanumeric") == [*chosen("digits"), *chosen("letters")]
    assert sorted(chosen("alphanumeric,punctuation")) == sorted(ALL)
    assert set(chosen("letters")) == {*chosen("lowercase"), *chosen("uppercase")}


def test_kinds_are_those_of_unicode() -> None:
    assert chosen("letters", "aя字\u0e01\u0e34٣²-") == ["a", "я", "字", "\u0e01", "\u0e34"]
    assert chosen("digits", "a1٣²") == ["1", "٣"]


def test_a_symbol_is_allowed_if_all_its_characters_are() -> None:
    assert chosen("chars:abc", ("a", "ch", "cab", "d")) == ["a", "cab"]
    with pytest.raises(UnknownCharactersError, match="no symbol of the model has only"):
        entries_of("chars:h", ("a", "ch"))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("", "nothing is no kind of characters; there are digits, letters,"),
        (",", "nothing is no kind"),
        ("digits,", "nothing is no kind"),
        (",chars:a", "nothing is no kind"),
        ("Digits", "`Digits` is no kind"),
        ("digits letters", "`digits letters` is no kind"),
        ("0123456789", "or chars: with characters behind it, such as chars:0123456789"),
        ("chars:", "there is no character behind chars:"),
        ("digits,chars:", "there is no character behind chars:"),
        ("digitschars:a", "there must be a comma before chars:"),
        ("x" * 10000, "`xxxxxxxxxxxxxxxxxxxx` is no kind"),
    ],
)
def test_what_cannot_be_understood_is_told(wanted: str, said: str) -> None:
    for ask in (parts_of, lambda text: entries_of(text, ALL)):
        with pytest.raises(AllowedError) as told:
            ask(wanted)
        assert said in str(told.value)
        assert len(str(told.value)) < 300


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("chars:1é2ß", "the model does not have the characters `é`, `ß`"),
        ("chars:1 2", "space (in an address `+` stands for it, and %2B for a plus)"),
        ("chars:1\x002\u202e", "U+0000, U+202E"),
        ("chars:" + "".join(map(chr, range(0x4E00, 0x4E00 + 500))), "and 480 more"),
    ],
)
def test_characters_that_the_model_does_not_have_are_named(wanted: str, said: str) -> None:
    with pytest.raises(UnknownCharactersError) as told:
        entries_of(wanted, ALL)
    assert said in str(told.value)
    assert len(str(told.value)) < 300


def test_a_kind_that_the_model_does_not_have_is_named() -> None:
    with pytest.raises(UnknownCharactersError, match="the model has no uppercase"):
        entries_of("digits,uppercase", CHARSETS["36"])


def test_rows_of_a_batch() -> None:
    row = np.array([True, False, False])
    assert allowed_matrix([None, row], 3).tolist() == [[True] * 3, [True, False, False]]
