"""Labels in the scripts of the world: what a charset has stays, what it lacks is told."""
# ruff: noqa: RUF001  (letters of other scripts are what this is about)

from __future__ import annotations

import random
import string
import unicodedata

import pytest

from model.charsets import DIGITS_AND_LOWERCASE, PRINTABLE, CharsetAdapter
from model.data.alterations import Alterations, add_option
from model.data.labels import LabelRules
from model.data.spelling import Speller, segments

UPPERCASE = string.ascii_uppercase


def form(name: str, text: str) -> str:
    return unicodedata.normalize(name, text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "others"),
    [
        ("ल\u095cका", "डक"),  # Devanagari letters that are excluded from composition
        ("प\u095dना", "ढ\u093c"),
        ("সম\u09df", "য"),  # Bengali
        ("\u0a5eਰ", "ਫ"),  # Gurmukhi
        ("\ufb2aלום", "ש"),  # Hebrew letters with points
        ("10\u2126 5\u212a 1\u212b".replace(" ", ""), "Å"),  # ohm, kelvin, angstrom
        ("\uf900車\uf9ff", ""),  # compatibility ideographs
        ("க\u0bc6\u0bbe", ""),  # a Tamil vowel in its two parts
        (form("NFD", "한국어"), ""),
        (form("NFD", "Việt"), ""),
        ("ｶﾞ１２Ａ", "12A"),
        ("ﻣﺮﺣﺒﺎ", "مرحبا"),  # Arabic presentation forms
        ("ﬁnﬀ", "fi"),
        ("क\u200dष\u200cक\u200e☎\ufe0f", ""),  # joiners, direction marks, variation selectors
        ("TARİHı", "ih"),
        ("οδοςσ", ""),
        ("ǅǆǄ", ""),
        ("½²™…", "12TM."),
    ],
)
@pytest.mark.parametrize("normalise", [True, False])
def test_what_the_charset_has_stays_as_it_is(label: str, others: str, normalise: bool) -> None:
    charset = "".join(dict.fromkeys(label + others + "Aa"))
    spelling = Speller(charset, normalise).spell(label)
    assert (spelling.text, spelling.whole, spelling.altered) == (label, label, False)


@pytest.mark.parametrize(
    ("label", "charset", "text"),
    [
        ("সময\u09bc", "সম\u09dfয", "সম\u09df"),  # the charset has the whole, the label the parts
        ("ल\u095cका", "लड\u093cका", "लड\u093cका"),  # and the other way round
        (form("NFD", "한국"), "한국", "한국"),
        ("한국", form("NFD", "한국"), form("NFD", "한국")),
        ("한", "하\u11ab", "하\u11ab"),  # a syllable and the consonant after it
        (form("NFD", "Việt"), "Việt", "Việt"),
        ("Việt", form("NFD", "Việt"), "Vie\u0323\u0302t"),
        ("Việt", "Vit\u00ea\u0323", "Vi\u00ea\u0323t"),  # the vowel with one mark, the tone by itself
        ("か\u3099", "がか", "が"),
        ("கொ", "க\u0bc6\u0bbe", "க\u0bc6\u0bbe"),
        ("ا\u0654حمد", "أحمد", "أحمد"),
        ("Ω豈K", "\u2126\uf900\u212a", "\u2126\uf900\u212a"),
        ("\u2126\uf900\u212a", "Ω豈Kω", "Ω豈K"),
        ("a\u0301\u0323", "a\u0323\u0301", "a\u0301\u0323"),  # marks in another order
        ("CAFE\u0301", DIGITS_AND_LOWERCASE + "é", "café"),
    ],
)
def test_equivalent_writings_are_the_same(label: str, charset: str, text: str) -> None:
    charset = "".join(dict.fromkeys(charset))
    spelling = Speller(charset).spell(label)
    assert (spelling.text, spelling.altered) == (text, False)


@pytest.mark.parametrize(
    ("label", "charset", "text", "folded"),
    [
        ("Straße", UPPERCASE + "ß", "STRAßE", ()),
        ("Straße", UPPERCASE + "\u1e9e", "STRA\u1e9eE", ()),
        ("Straße", UPPERCASE, "STRASSE", ()),
        ("STRA\u1e9eE", string.ascii_lowercase + "ß", "straße", ()),
        ("Straße", PRINTABLE + "ß", "Straße", ()),
        ("ΟΔΟΣ", "αβγδοσς", "οδοσ", ()),
        ("ΟΔΟΣ", "αβγδοσ", "οδοσ", ()),
        ("οδος", "ΑΒΓΔΟΣ", "ΟΔΟΣ", ()),
        ("οδος", "αβγδοσ", "οδοσ", (("ς", "σ"),)),
        ("οδος", "αβγδοσΔΟΣ", "οδοσ", (("ς", "σ"),)),
        ("TARİH", "abcçhıitar", "tarih", (("İ", "i"),)),
        ("ılık", UPPERCASE, "ILIK", ()),
        ("\u01c5", "\u01c6", "\u01c6", ()),
        ("\u01c5", "\u01c4", "\u01c4", ()),
        ("\u01c5", PRINTABLE, "Dz", (("\u01c5", "Dz"),)),
        ("CAFÉ", DIGITS_AND_LOWERCASE + "é", "café", ()),
        ("ÉTÉ", PRINTABLE + "é", "ETE", (("É", "E"), ("É", "E"))),  # both cases, but not of this letter
        ("\u0440ЖФ", "жфр", "ржф", ()),
    ],
)
def test_one_case_is_folded_to_the_other(label: str, charset: str, text: str, folded: tuple[tuple[str, str], ...]) -> None:
    spelling = Speller(charset).spell(label)
    assert (spelling.text, spelling.folded, spelling.lost) == (text, folded, ())
    # A reading is folded as a label is; else a right one could be called wrong.
    assert Speller(charset).read(label) == text


@pytest.mark.parametrize(
    ("label", "charset", "text", "lost", "folded"),
    [
        ("£12.50", PRINTABLE, "12.50", "£", ""),
        ("cafe\u0301", PRINTABLE, "cafe", "", "é>e"),
        ("ｶﾞ１２", "ガ12", "ガ12", "", "ｶﾞ>ガ １>1 ２>2"),
        ("ﻣﺮﺣﺒﺎ", "مرحبا", "مرحبا", "", "ﻣ>م ﺮ>ر ﺣ>ح ﺒ>ب ﺎ>ا"),
        ("ﬁne №5…", PRINTABLE + " ", "fine No5...", "", "ﬁ>fi №>No …>..."),
        ("½", PRINTABLE, "12", "", "½>12"),
        ("日本", "日", "日", "本", ""),
        ("が", "か", "か", "", "が>か"),
        ("か\u3099", "か", "か", "", "が>か"),
        ("q\u0301", PRINTABLE, "q", "\u0301", ""),
        ("ड\u093c", "ड", "ड", "\u093c", ""),
        ("\u095c", "क", "", "\u095c", ""),
        ("क\u200dष", "कष", "कष", "\u200d", ""),
        ("´a´", PRINTABLE + " ", "a", "´´", ""),  # Unicode makes a space and an accent of it
        ("a\u202eb\x1bc", PRINTABLE, "abc", "\u202e\x1b", ""),
        ("a b\u00a0c", PRINTABLE, "abc", "  ", ""),
    ],
)
def test_what_is_lost_or_folded_is_told(label: str, charset: str, text: str, lost: str, folded: str) -> None:
    spelling = Speller(charset).spell(label)
    assert (spelling.text, "".join(spelling.lost)) == (text, lost)
    assert [f"{old}>{new}" for old, new in spelling.folded] == folded.split()


def test_whitespace() -> None:
    assert LabelRules("ab\u3000 ", 9).spell(" a\u3000b a\u00a0 b\n") == "a\u3000b a b"
    assert LabelRules("ab ", 9).spell("a\u3000b") == "a b"
    assert LabelRules("ab\u00a0", 9).spell("a\u00a0b") == "a\u00a0b"
    told = [
        Speller(charset, keep_whitespace=keep).spell("a b").lost for charset in ("ab", "ab ") for keep in (None, True, False)
    ]
    # Whoever asks for labels without spaces has not lost them.
    assert told == [(" ",), (" ",), (), (), (), ()]


def test_without_normalising_what_the_charset_lacks_is_lost() -> None:
    spelling = Speller(PRINTABLE, normalise_unicode=False).spell("café ﬁ")
    assert (spelling.text, spelling.lost, spelling.folded) == ("caf", ("é", " ", "ﬁ"), ())


def test_hostile_labels_take_no_longer_than_others() -> None:
    for label in ("e" + "\u0301\u0323" * 10_000, "\u1100\u1161" * 10_000, "क\u093c" * 10_000):
        assert max(map(len, segments(label))) <= 32
        assert LabelRules(PRINTABLE, 25)(label) in ("e", None)


@pytest.mark.parametrize("seed", range(5))
def test_random_labels_and_charsets(seed: int) -> None:
    rng = random.Random(seed)
    every = [
        chr(code)
        for code in range(0x20000)
        if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co", "Zs", "Zl", "Zp", "Cc")
    ]
    pools = [
        every,
        [c for c in every if form("NFD", c) != c],
        [c for c in every if form("NFKC", c) != c],
        [c for c in every if c.lower() != c.upper()],
    ]
    marks = [c for c in every if unicodedata.combining(c)]
    for _ in range(200):
        drawn = "".join(rng.choices(rng.choice(pools), k=6) + rng.choices(marks, k=2) + rng.choices(pools[1], k=2))
        around = sorted({c for name in ("NFC", "NFD", "NFKD") for c in form(name, drawn) + drawn if not c.isspace()})
        charset = "".join(c for c in around if rng.random() < 0.6) or "a"
        both_cases = not (CharsetAdapter(charset).fold_to_lower or CharsetAdapter(charset).fold_to_upper)
        for _ in range(5):
            label = "".join(rng.choices(around, k=rng.randint(1, 6)))
            spelling = Speller(charset).spell(label)
            assert set(spelling.text) <= set(charset)
            if set(label) <= set(charset):
                assert spelling.text == label
            equivalent = form("NFD", spelling.text) == form("NFD", label)
            assert equivalent <= (not spelling.altered)
            assert equivalent or spelling.altered or not both_cases
            # Nothing that the charset has is gone.
            left = list(form("NFD", spelling.text))
            for part in form("NFD", "".join(c for c in label if c in charset)):
                left.remove(part)


def test_alterations_are_told_by_name_and_shortly() -> None:
    rules, found = LabelRules(PRINTABLE, 25), Alterations()
    for label in ["£12.50"] * 9 + ["a b", "café", "é", "toolong" * 9 + "€", "plain"]:
        rules(label, found)
    assert str(found) == (
        "10 labels lost characters that the charset has not: '£' U+00A3 POUND SIGN 9 times, ' ' U+0020 SPACE once; "
        "2 labels had characters folded: 'é'->'e' 2 times"
    )
    assert add_option(found.characters()) == "--add-characters '£ é'"
    many = Alterations()
    for code in range(0x4E00, 0x4E00 + 3000):
        rules(chr(code), many)
    assert len(str(many)) < 1000
    assert "and 2990 others" in str(many)
    assert "and 2990 others, or --charset FILE" in add_option(many.characters())
    assert str(Alterations()) == ""


def test_letters_that_became_one_with_their_marks_are_named_one_by_one() -> None:
    rules, found = LabelRules("ガパ", 25), Alterations()
    assert rules("ｶﾞﾊﾟ", found) == "ガパ"
    assert str(found) == "1 label had characters folded: 'ｶﾞ'->'ガ' once, 'ﾊﾟ'->'パ' once"
    assert found.characters() == ["ｶ", "ﾞ", "ﾊ", "ﾟ"]
    assert add_option(found.characters()) == "--add-characters 'ｶﾞﾊﾟ'"


def test_what_cannot_be_seen_is_told_in_escapes() -> None:
    rules, found = LabelRules("ab", 25), Alterations()
    rules("a\u202e\u0301\x1b'\U0001f3fb\U000e0100b", found)
    told = str(found)
    assert "'\\u202e' U+202E RIGHT-TO-LEFT OVERRIDE once" in told
    assert "'\\u0301' U+0301 COMBINING ACUTE ACCENT once" in told
    assert "'\\u001b' U+001B (a control character) once" in told
    assert not set(told) & {"\u202e", "\u0301", "\x1b"}
    option = add_option(found.characters())
    assert option == "--add-characters $'\\u202e\\u0301\\u001b\\'🏻\\U000e0100'"
