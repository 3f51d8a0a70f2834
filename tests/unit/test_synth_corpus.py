"""Texts: lengths, characters, shares and the split of the words."""

import re
from pathlib import Path

import numpy as np
import pytest

from model.synth.words.corpus import (
    CHARSET,
    Corpus,
    DictionaryNotFoundError,
    is_validation_word,
    random_string,
    read_dictionary,
)
from model.synth.words.sign_words import SIGN_WORDS

WORDS = [f"{a}{b}{c}" for a in ("al", "bre", "co", "du") for b in ("man", "rin", "tak", "vel") for c in ("", "do", "ines")]


def texts(split: str, count: int = 4000) -> list[str]:
    corpus = Corpus(split, large=WORDS, common=WORDS)
    rng = np.random.default_rng(7)
    return [corpus.sample(rng) for _ in range(count)]


def test_the_charset_is_printable_ascii_without_space():
    assert len(CHARSET) == 94
    assert set(CHARSET) == {chr(code) for code in range(33, 127)}


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_text_has_1_to_25_characters_of_the_charset(split: str):
    for text in texts(split):
        assert 1 <= len(text) <= 25
        assert set(text) <= set(CHARSET)


def test_random_strings_use_the_whole_charset_and_are_mostly_short():
    rng = np.random.default_rng(1)
    drawn = [random_string(rng) for _ in range(5000)]
    assert set("".join(drawn)) == set(CHARSET)
    assert {len(text) for text in drawn} == set(range(1, 26))
    assert np.median([len(text) for text in drawn]) <= 7


def test_words_are_the_larger_part_and_come_in_all_cases():
    drawn = texts("train")
    words = [text for text in drawn if text.isalpha() and text.lower() in {*WORDS, *SIGN_WORDS}]
    assert 0.4 < len(words) / len(drawn) < 0.7
    for share, of in ((0.30, str.isupper), (0.25, str.istitle), (0.45, str.islower)):
        longer = [word for word in words if len(word) > 1]
        assert sum(map(of, longer)) / len(longer) == pytest.approx(share, abs=0.05)


def test_words_of_training_and_validation_are_disjoint():
    known = {*WORDS, *SIGN_WORDS}
    train, validation = (known & set(re.findall("[a-z]+", " ".join(texts(split)).lower())) for split in ("train", "validation"))
    # Random strings and the names of months and units may hit upon a short word: longer ones tell.
    assert not {w for w in train if len(w) > 4 and is_validation_word(w)}
    assert not {w for w in validation if len(w) > 4 and not is_validation_word(w)}
    assert len(validation) > 20


def test_the_split_of_a_word_ignores_its_case():
    assert all(is_validation_word(word) == is_validation_word(word.upper()) for word in SIGN_WORDS)


def test_the_same_generator_gives_the_same_texts():
    assert texts("train", 200) == texts("train", 200)


def test_a_missing_dictionary_is_an_error_that_says_what_to_install(tmp_path: Path):
    with pytest.raises(DictionaryNotFoundError, match="wamerican-huge"):
        read_dictionary(tmp_path / "absent")


def test_no_words_is_an_error():
    with pytest.raises(ValueError, match="no words"):
        Corpus("train", large=["it's", "42"], common=WORDS)
