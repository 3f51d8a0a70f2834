"""The wide recipe: texts of other kinds, more characters, crops without text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from model.synth import dataset
from model.synth.dataset import WIDE_BLANK_SHARE, Recipe, render_indexed
from model.synth.lettering.fonts import embedded_face
from model.synth.lettering.lines import lay_out
from model.synth.render import CropRenderer, RenderedCrop
from model.synth.scene.blanks import draw_blank, slice_of
from model.synth.words.corpus import WIDE_KINDS, Corpus, TextKind
from model.synth.words.phrases import EXTRA_CHARACTERS, LONG
from model.synth.words.sign_words import SIGN_WORDS


def texts(kinds: dict[TextKind, float], extra: str = EXTRA_CHARACTERS, count: int = 600) -> list[str]:
    corpus = Corpus("train", SIGN_WORDS, SIGN_WORDS, kinds=kinds, extra=extra)
    rng = np.random.default_rng(3)
    return [corpus.sample(rng) for _ in range(count)]


def crops(recipe: Recipe, count: int) -> list[RenderedCrop]:
    corpus = Corpus(recipe.split, SIGN_WORDS, SIGN_WORDS, kinds=WIDE_KINDS, extra=recipe.extra_characters)
    renderer = CropRenderer([embedded_face()], clean_share=0.25, curved_share=0.28, wide=True)
    return [render_indexed(corpus, renderer, recipe, index) for index in range(count)]


def test_long_texts_are_long() -> None:
    drawn = texts({"long": 1.0})
    assert all(LONG <= len(text) <= 25 for text in drawn)
    assert any(" " in text for text in drawn)
    assert any(text.isalpha() for text in drawn)


def test_lines_have_words_with_single_spaces() -> None:
    for text in texts({"line": 1.0}):
        assert re.fullmatch(r"\w+( \w+){1,2}", text)
        assert len(text) <= 25


def test_prices_in_other_currencies() -> None:
    drawn = texts({"currency": 1.0}, "£€ ")
    assert any(re.fullmatch(r"£\d+\.\d\d", text) for text in drawn)
    assert any(re.fullmatch(r"\d+,\d\d ?€", text) for text in drawn)
    assert all(re.search("[£€]", text) for text in drawn)


@pytest.mark.parametrize(
    ("extra", "wanted"), [("", set()), (" ", {" "}), ("€", {"€"}), (EXTRA_CHARACTERS, set(EXTRA_CHARACTERS))]
)
def test_no_other_characters_than_those_asked_for(extra: str, wanted: set[str]) -> None:
    drawn = set("".join(texts(dict.fromkeys(WIDE_KINDS, 0.3), extra, 2000)))
    assert drawn - {chr(code) for code in range(33, 127)} == wanted


def test_without_kinds_the_texts_are_what_they_were() -> None:
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    plain, none = (
        Corpus("train", SIGN_WORDS, SIGN_WORDS),
        Corpus("train", SIGN_WORDS, SIGN_WORDS, kinds={}, extra=EXTRA_CHARACTERS),
    )
    assert [plain.sample(rng) for _ in range(200)] == [none.sample(other) for _ in range(200)]


def test_wide_crops_bear_their_text_or_none() -> None:
    drawn = crops(Recipe("train", 9, wide=True, extra_characters=" "), 400)
    blank = sum(crop.text == "" for crop in drawn)
    assert 0.4 * WIDE_BLANK_SHARE < blank / len(drawn) < 2 * WIDE_BLANK_SHARE
    for crop in drawn:
        assert crop.image.mode == "RGB"
        assert crop.glyph_centers.shape == (len(crop.text), 2)
        assert ((crop.glyph_centers >= 0) & (crop.glyph_centers <= crop.image.size)).all()


def test_characters_that_no_face_has_are_not_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("\n".join(SIGN_WORDS))
    poor = embedded_face()
    assert set(EXTRA_CHARACTERS) - set(poor.characters)
    monkeypatch.setattr(dataset, "load_faces", lambda *_: [poor])
    source = Recipe("train", 1, words=words, wide=True, extra_characters=EXTRA_CHARACTERS).source()
    assert {len(source(index).text) for index in range(200)} >= {0, 15}


def test_a_crop_depends_on_its_index_alone() -> None:
    recipe = Recipe("train", 9, wide=True)
    once, again = crops(recipe, 30), crops(recipe, 30)
    assert all(one.image.tobytes() == other.image.tobytes() for one, other in zip(once, again, strict=True))


def test_only_blanks() -> None:
    assert {crop.text for crop in crops(Recipe("validation", 1, only="blank"), 40)} == {""}


def test_the_space_has_its_place_in_the_line() -> None:
    line, joined = lay_out("ab cd", embedded_face(), 40), lay_out("abcd", embedded_face(), 40)
    assert line.box[0] > joined.box[0]
    assert line.box[1] == joined.box[1]
    assert line.centers[1, 0] < line.centers[2, 0] < line.centers[3, 0]
    assert line.centers[2, 1] == pytest.approx(line.box[1] / 2)


def test_blanks_differ_and_are_small() -> None:
    drawn = [draw_blank(np.random.default_rng(seed)) for seed in range(60)]
    assert all(8 <= image.width <= 400 and 12 <= image.height <= 64 for image in drawn)
    assert len({image.tobytes() for image in drawn}) == 60


def test_a_slice_shows_the_border_of_a_crop_alone() -> None:
    image = CropRenderer([embedded_face()]).render("Harbour", np.random.default_rng(0)).image
    marked = image.copy()
    # Whatever stands in the middle of the crop's height is not to be seen.
    marked.paste((255, 0, 0), (0, int(0.3 * image.height), image.width, int(0.7 * image.height)))
    for seed in range(20):
        rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
        assert slice_of(image, rng).tobytes() == slice_of(marked, other).tobytes()
