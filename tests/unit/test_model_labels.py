from __future__ import annotations

import pytest

from model.charsets import DIGITS_AND_LOWERCASE, PRINTABLE
from model.data.labels import LabelRules


@pytest.mark.parametrize(
    ("label", "charset", "expected"),
    [
        ("It's", DIGITS_AND_LOWERCASE, "its"),
        ("a b\tc", PRINTABLE, "abc"),
        ("café", PRINTABLE, "cafe"),
        ("cafe\u0301", PRINTABLE, "cafe"),
        ("ﬁne №5", PRINTABLE, "fineNo5"),
        ("CAFÉ", DIGITS_AND_LOWERCASE, "cafe"),
        ("CAFE\u0301", DIGITS_AND_LOWERCASE + "é", "café"),
        ("a  b", PRINTABLE + " ", "a b"),
        ("  a b \n", PRINTABLE + " ", "a b"),
        ("日本", "日", "日"),
    ],
)
def test_labels_are_spelt_in_the_charset(label: str, charset: str, expected: str) -> None:
    assert LabelRules(charset, 25)(label) == expected


def test_what_can_be_switched() -> None:
    assert LabelRules(PRINTABLE, 25, normalise_unicode=False)("café") == "caf"
    assert LabelRules(PRINTABLE + " ", 25, keep_whitespace=False)("a b") == "ab"
    assert LabelRules(PRINTABLE, 25, letters=False)("12:30") == "12:30"
    assert LabelRules(PRINTABLE, 25, letters=False)("12a") is None


def test_labels_that_cannot_be_read_are_refused() -> None:
    rules = LabelRules(DIGITS_AND_LOWERCASE, 3)
    assert (rules("!!"), rules("abcd"), rules("ab-c")) == (None, None, "abc")


def test_empty_labels_are_used_on_request_those_of_which_nothing_is_left_never() -> None:
    for charset in (DIGITS_AND_LOWERCASE, DIGITS_AND_LOWERCASE + " "):
        rules = LabelRules(charset, 3, keep_empty=True)
        assert [rules(label) for label in ("", " \n", "!!", "ж", "abcd", "a")] == ["", "", None, None, None, "a"]
        assert [LabelRules(charset, 3)(label) for label in ("", " \n")] == [None, None]
    assert LabelRules(PRINTABLE, 3, letters=False, keep_empty=True)("") == ""


def test_where_the_kept_characters_stood() -> None:
    assert LabelRules(DIGITS_AND_LOWERCASE, 25).positions("It's!") == [0, 1, 3]
