"""Crops that are read turned and in parts: which views there are, and which of the readings count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from artifact.long_crops import MAX_WINDOWS, MAX_WORDS, is_long, joined, line_of, parts_of
from artifact.orientation import TURNS, is_tall, most_plausible, turned
from artifact.text import Reading
from artifact.views import Found, Views
from reading.readers.interface import Picture
from reading.readers.views import ViewsReader


def reading(text: str, confidence: float = 0.99) -> Reading:
    each = confidence ** (1 / (len(text) + 1))
    return Reading(text, confidence, (each,) * len(text))


def bars(*spans: tuple[int, int], width: int, height: int = 32) -> Image.Image:
    """White paper with a black box, half as high as the paper, over each span of columns."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    for start, end in spans:
        pixels[height // 4 : -height // 4, start:end] = 0
    return Image.fromarray(pixels)


def word(start: int, letters: int) -> list[tuple[int, int]]:
    """Letters of 10 columns with 2 columns between them."""
    return [(start + 12 * index, start + 12 * index + 10) for index in range(letters)]


def read_all(views: Views, texts: dict[int, Reading | None]) -> Found | None:
    readings: dict[int, Reading | None] = {}
    for _ in range(10):
        wanted = views.wanted(readings)
        if not wanted:
            return views.found(readings)
        assert not set(wanted) & set(readings)
        readings |= {index: texts[index] for index in wanted}
    raise AssertionError("it never ends")


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_a_picture_is_turned_clockwise_and_back_without_loss(angle: int) -> None:
    picture = Image.fromarray(np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3))
    once = np.asarray(turned(picture, angle))
    assert np.array_equal(once, np.rot90(np.asarray(picture), -angle // 90))
    assert np.array_equal(np.asarray(turned(turned(picture, angle), 360 - angle)), np.asarray(picture))
    assert sorted(TURNS) == [90, 180, 270]


def test_only_tall_crops_are_turned() -> None:
    assert (is_tall(20, 30), is_tall(20, 29)) == (True, False)
    assert Views(Image.new("RGB", (20, 29)), "auto", False).wanted({}) == [0]
    assert Views(Image.new("RGB", (20, 30)), "auto", False).wanted({}) == [0, 1, 2]
    assert Views(Image.new("RGB", (20, 30)), "upright", True).wanted({}) == [0]


def test_a_crop_that_is_neither_tall_nor_wide_is_turned_if_it_is_doubtful() -> None:
    views = Views(Image.new("RGB", (20, 20)), "auto", False)
    assert views.wanted({}) == [0]
    assert views.wanted({0: reading("no", 0.9)}) == []
    assert views.wanted({0: None}) == [1, 2]
    found = read_all(views, {0: reading("W", 0.14), 1: reading("LEFT", 0.99), 2: reading("31", 0.9)})
    assert found is not None
    assert (found.text, found.angle) == ("LEFT", 90)
    assert Views(Image.new("RGB", (21, 20)), "auto", False).wanted({0: reading("W", 0.14)}) == []
    upside_down = Views(Image.new("RGB", (20, 20)), "full", False)
    assert upside_down.wanted({0: reading("W", 0.14)}) == [1, 2]
    assert upside_down.wanted(dict.fromkeys(range(3), reading("W", 0.14))) == [3]
    assert upside_down.wanted({0: reading("W", 0.8)}) == [3]


def test_the_most_plausible_angle_wins_and_is_told() -> None:
    views = Views(Image.new("RGB", (20, 90)), "auto", False)
    found = read_all(views, {0: reading("SALE", 0.7), 1: reading("words", 0.6), 2: reading("spjom", 0.2)})
    assert found is not None
    assert (found.text, found.angle) == ("words", 90)
    found = read_all(views, {0: reading("7", 0.99), 1: reading("=]", 0.7), 2: None})
    assert found is not None
    assert (found.text, found.angle) == ("7", 0)


def test_signs_alone_are_what_letters_on_their_side_look_like() -> None:
    # Crops of the ICDAR 2003 training set.
    assert most_plausible({0: reading("If", 0.36), 90: reading("=", 0.59), 270: reading("*", 0.35)}, 18, 27) == 0
    assert most_plausible({0: reading("If", 0.36), 90: reading("the", 0.59), 270: reading("*", 0.35)}, 18, 27) == 90


def test_a_letter_on_its_side_looks_like_one_or_two_others() -> None:
    # Crops of receipts and photographs, of the training sets.
    assert most_plausible({0: reading("S", 0.51), 90: reading("un", 0.85), 270: reading("un", 0.63)}, 15, 25) == 0
    assert most_plausible({0: reading("I", 0.9), 90: reading("H", 0.89), 270: reading("H", 0.91)}, 27, 42) == 0
    assert most_plausible({0: reading("", 0.36), 90: reading("DE", 0.999), 270: reading("30", 0.93)}, 93, 137) == 90


def test_the_higher_a_crop_the_sooner_it_is_turned() -> None:
    readings = {0: reading("all", 0.6), 90: reading("street", 0.5), 270: None}
    assert [most_plausible(readings, 20, height) for height in (24, 30, 80)] == [0, 0, 90]


def test_what_is_empty_stays_so_unless_a_turned_word_is_sure() -> None:
    assert most_plausible({0: reading("", 0.97), 90: reading("SALE", 0.5), 270: reading("", 0.99)}, 20, 32) == 0
    assert most_plausible({0: reading("", 0.46), 90: reading("shun", 0.97), 270: reading("nus", 0.6)}, 20, 32) == 90
    assert most_plausible({0: reading("!", 0.92), 90: reading("", 0.99), 270: reading("", 0.99)}, 20, 37) == 0


def test_views_that_fail_do_not_count() -> None:
    views = Views(Image.new("RGB", (20, 90)), "auto", False)
    found = read_all(views, {0: reading("a", 0.1), 1: None, 2: None})
    assert found is not None
    assert (found.text, found.angle) == ("a", 0)
    assert read_all(views, {0: None, 1: None, 2: None}) is None


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1e-30])
def test_any_probability_and_any_empty_text_can_be_compared(confidence: float) -> None:
    assert most_plausible({0: Reading("", confidence), 90: reading("a", confidence), 270: None}, 10, 100) == 90
    assert most_plausible({0: Reading("", confidence), 90: Reading("", 1.0)}, 10, 100) == 0


def test_upside_down_is_read_only_where_nothing_is_confident() -> None:
    views = Views(Image.new("RGB", (60, 20)), "full", False)
    assert views.wanted({0: reading("hello", 0.95)}) == []
    assert views.wanted({0: reading("o77ey", 0.3)}) == [1]
    found = read_all(views, {0: reading("o77ey", 0.3), 1: reading("hello", 0.98)})
    assert found is not None
    assert (found.text, found.angle) == ("hello", 180)


def test_no_angle_is_told_where_none_was_asked_for() -> None:
    found = read_all(Views(Image.new("RGB", (60, 20)), "upright", True), {0: reading("hello")})
    assert found is not None
    assert found.angle is None


LINE = bars(*word(4, 6), *word(100, 5), *word(190, 3), width=228)


def test_a_line_is_cut_at_the_wide_gaps() -> None:
    parts = parts_of(LINE)
    assert len(parts.words) == 3
    assert parts.clear
    for (start, end), (first, last) in zip(parts.words, ((4, 74), (100, 158), (190, 224)), strict=True):
        assert start <= first < last <= end
        assert first - start <= 5 or start == 0
    assert [a[1] <= b[0] for a, b in zip(parts.words, parts.words[1:], strict=False)] == [True, True]


def test_a_word_is_not_cut_between_its_letters() -> None:
    assert parts_of(bars(*word(4, 18), width=222)).words == ()


def test_a_line_is_answered_with_its_words_and_their_boxes() -> None:
    views = Views(LINE, "upright", True)
    found = read_all(
        views,
        {0: reading("x", 0.01), 1: reading("Please"), 2: reading("drive"), 3: reading("now"), **dict.fromkeys(range(4, 20))},
    )
    assert found is not None
    assert found.text == "Please drive now"
    assert len(found.character_confidences) == len(found.text)
    assert math.isclose(found.confidence, 0.99**3)
    assert [each.text for each in found.words] == ["Please", "drive", "now"]
    assert all(
        0 <= left < right <= 228 and (top, bottom) == (0, 32) for left, top, right, bottom in (w.box for w in found.words)
    )


@pytest.mark.parametrize(("angle", "whole"), [(90, (0, 228 - 74, 32, 228 - 4)), (270, (0, 4, 32, 74))])
def test_boxes_are_those_of_the_picture_as_it_was_sent(angle: int, whole: tuple[int, int, int, int]) -> None:
    standing = turned(LINE, 360 - angle)
    views = Views(standing, "auto", True)
    texts: dict[int, Reading | None] = dict.fromkeys(range(60))
    index = views.reasons.index("turned") + (angle == 270)
    texts |= {0: reading("!", 0.01), index: reading("longline", 0.3)}
    firsts = [place for place, reason in enumerate(views.reasons) if reason == "word"]
    for place in firsts:
        texts[place] = reading("word")
    found = read_all(views, texts)
    assert found is not None
    assert (found.text, found.angle) == ("word word word", angle)
    left, top, right, bottom = found.words[0].box
    assert left <= whole[0]
    assert right >= whole[2]
    assert top <= whole[1]
    assert bottom >= whole[3]
    assert (right - left, bottom - top) < standing.size


def test_the_letters_of_one_word_that_is_set_wide_are_no_words() -> None:
    views = Views(LINE, "upright", True)
    texts: dict[int, Reading | None] = {0: reading("KEY", 0.5), 1: reading("K"), 2: reading("E"), 3: reading("Y")}
    found = read_all(views, texts | dict.fromkeys(range(4, 20)))
    assert found is not None
    assert (found.text, found.words) == ("KEY", ())


def test_what_is_read_with_confidence_stays_one_word_unless_the_words_say_the_same() -> None:
    views = Views(LINE, "upright", True)
    for texts, expected in (
        (("good", "bye", "now"), "good bye now"),
        (("gold", "buy", "now"), "goodbyenow"),
    ):
        found = read_all(views, {0: reading("goodbyenow", 0.95), **{n + 1: reading(text) for n, text in enumerate(texts)}})
        assert found is not None
        assert found.text == expected


def test_letters_of_equal_pitch_are_not_cut_where_their_gaps_are_a_little_wider() -> None:
    spans, column = [], 4
    for gap in (5, 6, 7, 9, 5, 6, 7, 4):
        spans.append((column, column + 16))
        column += 16 + gap
    picture = bars(*spans, width=column)
    assert is_long(*picture.size)
    assert parts_of(picture).words == ()
    spans = spans[:4] + [(start + 6, end + 6) for start, end in spans[4:]]
    assert len(parts_of(bars(*spans, width=column + 6)).words) == 2


def test_a_line_that_is_read_as_one_is_told_by_its_words_where_they_are_surer() -> None:
    texts = {1: reading("sickum"), 2: reading("refutal"), 3: reading("tubbish")}
    for whole, expected, n_words in (
        (reading("sickum refutal tubish", 0.9), "sickum refutal tubbish", 3),
        (reading("Sickum refutal tubbish", 0.9), "Sickum refutal tubbish", 0),  # alone, a small letter looks like a capital one
        (reading("sickum refutal tubbish", 0.9), "sickum refutal tubbish", 3),
        (reading("sickum refutal tubish", 0.99), "sickum refutal tubish", 0),
        (reading("sickum refutaltubish", 0.9), "sickum refutaltubish", 0),
    ):
        found = read_all(Views(LINE, "upright", True), {0: whole, **texts})
        assert found is not None
        assert (found.text, len(found.words)) == (expected, n_words)


SPANS = ((0, 128), (64, 192), (128, 256))


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        (("international", "nationalisa", "alisations"), "internationalisations"),
        (("internl", "ternatio", "ational"), "international"),
        (("aaaaaa", "aaaaaa", "aaaaaa"), None),
        (("abcdef", "uvwxyz", "klmnop"), None),
        (("banana", "nanas", ""), None),
    ],
)
def test_windows_are_joined_without_doubled_letters(windows: tuple[str, ...], expected: str | None) -> None:
    joint = joined(reading("?", 0.1), [reading(text) for text in windows], SPANS)
    if expected is None and joint is not None:
        assert len(joint.text) < sum(map(len, windows))
    else:
        assert (joint and joint.text) == expected


def test_of_letters_that_differ_the_surer_one_is_kept() -> None:
    left = Reading("parliam", 0.5, (0.99, 0.99, 0.99, 0.99, 0.99, 0.99, 0.6))
    right = Reading("liamentarian", 0.9, (0.99,) * 12)
    cut = Reading("parliao", 0.5, left.character_confidences)
    for first in (left, cut):
        joint = joined(None, [first, right], ((0, 128), (64, 192)))
        assert joint is not None
        assert joint.text == "parliamentarian"


def test_windows_that_are_less_sure_than_the_whole_do_not_count() -> None:
    windows = [reading("wholesome", 0.98), reading("somenesses", 0.98)]
    joint = joined(reading("wholenesses", 0.5), windows, SPANS[:2])
    assert joint is not None
    assert joint.text == "wholesomenesses"
    assert joined(reading("wholenesses", 0.99), windows, SPANS[:2]) is None


def test_windows_that_make_no_more_than_an_ordinary_word_do_not_count() -> None:
    assert joined(reading("balthazar", 0.2), [reading("baliha", 0.999), reading("lihazar", 0.999)], SPANS[:2]) is None


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000), (16384, 64), (5, 1), (5, 25), (200, 40)])
@pytest.mark.parametrize("noise", [False, True])
def test_any_picture_has_a_bounded_number_of_views_and_an_end(size: tuple[int, int], noise: bool) -> None:
    width, height = size
    pixels: Any = np.random.default_rng(1).integers(0, 255, (height, width, 3)) if noise else np.full((height, width, 3), 9)
    picture = Image.fromarray(pixels.astype(np.uint8))
    views = Views(picture, "full", True)
    assert len(views.pictures) <= 4 + 3 * (MAX_WORDS + MAX_WINDOWS)
    assert all(min(view.size) >= 1 for view in views.pictures)
    assert len(views.reasons) == len(views.pictures)
    for text in ("", "a", "abcdefgh"):
        assert read_all(views, dict.fromkeys(range(len(views.pictures)), Reading(text, 0.2, (0.9,) * len(text)))) is not None


def test_a_line_of_words_whose_characters_are_not_known_has_none() -> None:
    line = line_of([Reading("a", 0.5), Reading("b", 0.5)])
    assert (line.text, line.confidence, line.character_confidences) == ("a b", 0.25, ())


class Sizes:
    """A reader that reads the shape of a picture."""

    description, charset, max_label_length, refused = "sizes", "ab", 25, 0

    def __init__(self) -> None:
        self.batches: list[int] = []

    def read(self, pictures: Sequence[Picture]) -> list[Reading]:
        self.batches.append(len(pictures))
        return [reading("words", 0.95) if each.image.width > each.image.height else reading("x", 0.2) for each in pictures]

    def close(self) -> None:
        pass


def test_a_reader_reads_views_in_batches_no_larger_than_it_is_given() -> None:
    sizes = Sizes()
    pictures = [Picture(Image.new("RGB", size)) for size in ((20, 60), (60, 20), (20, 60), (20, 20))]
    found = ViewsReader(sizes, "auto", True).read(pictures)
    assert [(each.text, each.angle) for each in found if isinstance(each, Found)] == [
        ("words", 90),
        ("words", 0),
        ("words", 90),
        ("x", 0),
    ]
    assert sizes.batches == [4, 4, 2]
