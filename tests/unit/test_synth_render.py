"""Crops: what is drawn, where its glyphs are, and that geometry carries them along."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from model.synth.lettering.fonts import FontsNotFoundError, embedded_face
from model.synth.lettering.lines import lay_out
from model.synth.render import CropRenderer, RenderedCrop
from model.synth.scene import geometry
from model.synth.scene.geometry import Arc, Warp

TEXTS = ("a", "I", ".", "WWW", "Hello", "$12.99", "jumping-fox", "~`'\"", "x" * 25, "http://example.org/a_b")


@pytest.fixture(scope="module")
def renderer() -> CropRenderer:
    return CropRenderer([embedded_face()])


@pytest.fixture(scope="module")
def crops(renderer: CropRenderer) -> list[tuple[str, RenderedCrop]]:
    """Twenty crops of each text, with all the effects that chance brings."""
    seeds = [(number, i) for number in range(len(TEXTS)) for i in range(20)]
    return [(TEXTS[seed[0]], renderer.render(TEXTS[seed[0]], np.random.default_rng(seed))) for seed in seeds]


def test_every_crop_is_rgb_of_sensible_size_and_bears_its_text(crops: list[tuple[str, RenderedCrop]]):
    for text, crop in crops:
        assert crop.text == text
        assert crop.image.mode == "RGB"
        assert 4 <= crop.image.width <= 1200
        assert 4 <= crop.image.height <= 600


def test_glyph_centers_lie_inside_the_crop(crops: list[tuple[str, RenderedCrop]]):
    for text, crop in crops:
        assert crop.glyph_centers.shape == (len(text), 2)
        assert crop.glyph_centers.dtype == np.float32
        assert (crop.glyph_centers > 0).all()
        assert (crop.glyph_centers < crop.image.size).all()


def test_glyph_centers_run_from_left_to_right(crops: list[tuple[str, RenderedCrop]]):
    for text, crop in crops:
        if len(text) > 1 and len(text) < 12:
            assert all(left < right for left, right in pairwise(crop.glyph_centers[:, 0])), text


def test_the_same_generator_gives_the_same_crop(renderer: CropRenderer):
    one, other = (renderer.render("Again", np.random.default_rng(3)) for _ in range(2))
    assert one.image.tobytes() == other.image.tobytes()
    assert (one.glyph_centers == other.glyph_centers).all()
    another = renderer.render("Again", np.random.default_rng(4))
    assert one.image.tobytes() != another.image.tobytes()


def test_a_face_of_capitals_changes_the_label():
    face = replace(embedded_face(), caps_only=True)
    assert CropRenderer([face]).render("Shop's", np.random.default_rng(0)).text == "SHOP'S"


def test_a_face_is_used_only_for_what_it_can_draw():
    poor = replace(embedded_face(), characters="abc")
    with pytest.raises(ValueError, match="no face has all the characters"):
        CropRenderer([poor]).render("abcd", np.random.default_rng(0))
    able = replace(embedded_face(), caps_only=True)
    renderer = CropRenderer([poor] * 50 + [able])
    assert {renderer.render("abcd", np.random.default_rng(i)).text for i in range(10)} == {"ABCD"}


def test_all_words_can_be_bent_for_a_test_set():
    def bend(renderer: CropRenderer, seed: int) -> float:
        """How far the middle of a word lies from the line between its ends, in shares of the word's width."""
        first, middle, last = renderer.render("xxxxxxxxxxx", np.random.default_rng(seed)).glyph_centers[[0, 5, 10]]
        along, across = last - first, middle - first
        return abs(float(along[0] * across[1] - along[1] * across[0])) / float(along @ along)

    face = embedded_face()
    bent = [bend(CropRenderer([face], clean_share=0, curved_share=1), seed) for seed in range(30)]
    straight = [bend(CropRenderer([face], clean_share=0, curved_share=0), seed) for seed in range(30)]
    assert min(bent) > 2 * max(straight)


def test_no_text_is_an_error(renderer: CropRenderer):
    with pytest.raises(ValueError, match="empty"):
        renderer.render("", np.random.default_rng(0))


def test_no_faces_is_an_error_that_says_what_to_install():
    with pytest.raises(FontsNotFoundError, match=r"debian_packages\.txt"):
        CropRenderer([])


def ink_center(image: Image.Image) -> np.ndarray:
    weight = np.asarray(image, float)
    y, x = np.indices(weight.shape)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum() + 0.5


def drawn(text: str, room: int = 20) -> tuple[Image.Image, np.ndarray]:
    line = lay_out(text, embedded_face(), 40)
    canvas = Image.new("L", (int(line.box[0]) + 2 * room, int(line.box[1]) + 2 * room))
    line.draw(canvas, (room, room))
    return canvas, line.centers + room


def test_the_center_of_a_flat_glyph_is_the_middle_of_its_ink():
    for character in "oHx8+":
        canvas, centers = drawn(character)
        left, top, right, bottom = canvas.getbbox()
        assert centers[0] == pytest.approx([(left + right) / 2, (top + bottom) / 2], abs=1)


@pytest.mark.parametrize(
    "warp",
    [
        Warp(geometry.translation(30, 12)),
        Warp(geometry.translation(60, 10) @ geometry.rotation(20)),
        Warp(geometry.translation(40, 20) @ geometry.shear(0.3) @ geometry.scaling(1.4, 0.8)),
        Warp(geometry.perspective(0.002, 0.001) @ geometry.translation(20, 20)),
        Warp(geometry.translation(20, 40), Arc((90, 40), 120)),
        Warp(geometry.translation(20, 10) @ geometry.rotation(-6), Arc((90, 40), -150)),
    ],
    ids=["shift", "rotation", "shear and scale", "perspective", "arc", "arc downwards and rotation"],
)
def test_centers_follow_the_geometry(warp: Warp):
    # The first and last glyph of a word, drawn alone where the word has them, must land where the warp says.
    _, centers = drawn("oHHHo")
    line = lay_out("oHHHo", embedded_face(), 40)
    for position in (0, 4):
        alone = Image.new("L", (int(line.box[0]) + 40, int(line.box[1]) + 40))
        glyph = replace(line, text="o", origins=[line.origins[position]])
        glyph.draw(alone, (20, 20))
        seen = ink_center(warp.draw(alone, (340, 240)))
        assert seen == pytest.approx(warp.forward(centers)[position], abs=1.5)


@pytest.mark.parametrize("radius", [80.0, -80.0, 400.0, -400.0])
def test_the_inverse_of_a_warp_undoes_it(radius: float):
    matrix = geometry.perspective(1e-3, -5e-4) @ geometry.rotation(11) @ geometry.scaling(1.2, 0.9)
    points = np.random.default_rng(0).uniform(-30, 30, (50, 2))
    for warp in (Warp(matrix), Warp(matrix, Arc((3.0, -2.0), radius)).moved(5, 7)):
        assert warp.inverse(warp.forward(points)) == pytest.approx(points, abs=1e-6)


def test_an_arc_keeps_lengths_along_its_line():
    arc = Arc((0.0, 0.0), 50.0)
    bent = arc.forward(np.array([[x, 0.0] for x in np.linspace(-40, 40, 200)]))
    assert np.linalg.norm(np.diff(bent, axis=0), axis=1).sum() == pytest.approx(80, rel=1e-3)
    assert bent[0, 1] > 0, "the ends of a positive arc hang down"
