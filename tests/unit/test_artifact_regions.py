"""Regions of a page: which are refused, and what is cut out."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artifact import regions
from artifact.regions import Corners, Page, RegionError, corners_of, corners_of_box, corners_of_points

SQUARE = [[10, 10], [50, 10], [50, 30], [10, 30]]


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def smooth(width: int, height: int) -> Image.Image:
    """Colours that tell where on the page a pixel is: red grows to the right, green downwards."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, 0 * x], 2).astype(np.uint8))


@pytest.fixture
def no_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "MARGIN", 0.0)


@pytest.mark.parametrize(
    ("points", "box", "told"),
    [
        (None, None, "either"),
        (SQUARE, [1, 2, 3, 4], "either"),
        (None, [], "4 numbers"),
        (None, [1, 2, 3], "4 numbers"),
        (None, [5, 5, 5, 9], "no area"),
        (None, [9, 5, 5, 9], "no area"),
        (None, [0, 0, math.nan, 9], "coordinate"),
        (None, [0, 0, 1e300, 9], "coordinate"),
        (None, [-math.inf, 0, 9, 9], "coordinate"),
        ([], None, "4 points"),
        (SQUARE[:3], None, "4 points"),
        ([*SQUARE, [10, 20]], None, "4 points"),
        ([[1, 2, 3], *SQUARE[1:]], None, "4 points"),
        ([[math.nan, 2], *SQUARE[1:]], None, "coordinate"),
        ([[1e7, 2], *SQUARE[1:]], None, "coordinate"),
        ([[0, 0], [1, 1], [2, 2], [3, 3]], None, "on a line"),
        ([[7, 7]] * 4, None, "on a line"),
        ([SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3]], None, "cross"),
        ([[0, 0], [100, 0], [20, 20], [0, 100]], None, "convex"),
        ([[0, 0], [0, 0], [50, 30], [10, 30]], None, "coincide"),
    ],
)
def test_what_is_no_region_is_told(points: list[list[float]] | None, box: list[float] | None, told: str) -> None:
    with pytest.raises(RegionError, match=told):
        corners_of(points, box)


def test_points_that_go_round_the_other_way_make_no_mirror_image() -> None:
    assert corners_of_points([SQUARE[0], SQUARE[3], SQUARE[2], SQUARE[1]]) == corners_of_points(SQUARE)


@pytest.mark.parametrize("box", [[300, 10, 400, 20], [-50, -50, -1, -1], [10, 200, 20, 300], [199.999, 10, 400, 20]])
def test_what_is_not_on_the_page_cannot_be_cut_out(box: list[float]) -> None:
    with pytest.raises(RegionError, match="200 x 100"):
        Page(noise(200, 100), 32, 128).cut(corners_of_box(box))
    left, top, right, bottom = box
    leaning = corners_of_points([[left, top], [right, top + 2], [right, bottom + 2], [left, bottom]])
    with pytest.raises(RegionError, match="200 x 100"):
        Page(noise(200, 100), 32, 128).cut(leaning)


@pytest.mark.usefixtures("no_margin")
def test_an_upright_region_is_the_crop_of_it_to_the_bit() -> None:
    page = noise(300, 200)
    box = (20, 30, 148, 62)
    for corners in (corners_of_box(box), corners_of_points([[20, 30], [148, 30], [148, 62], [20, 62]])):
        assert Page(page, 32, 128).cut(corners).tobytes() == page.crop(box).tobytes()


def test_the_margin_is_a_part_of_the_height() -> None:
    page = Page(noise(300, 200), 32, 128)
    assert page.cut(corners_of_box([50, 50, 150, 100])).size == (106, 56)
    assert page.cut(corners_of_box([0, 0, 100, 50])).size == (103, 53), "none beyond the edges"


@pytest.mark.usefixtures("no_margin")
@pytest.mark.parametrize("degrees", [1, 12, 45, 90, 135, 180, 250, 300])
def test_a_turned_region_is_straightened(degrees: int) -> None:
    page = smooth(400, 400)
    turn = math.radians(degrees)
    along, down = (math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))

    def at(x: float, y: float) -> tuple[float, float]:
        return 200 + x * along[0] + y * down[0], 200 + x * along[1] + y * down[1]

    corners = at(-60, -15), at(60, -15), at(60, 15), at(-60, 15)
    cut = Page(page, 32, 128).cut(corners_of_points(corners))
    assert cut.size == (120, 30)
    for u, v in ((2, 2), (117, 2), (117, 27), (2, 27), (60, 15)):
        x, y = at(u + 0.5 - 60, v + 0.5 - 15)
        assert np.abs(np.array(cut.getpixel((u, v))) - (x * 255 / 400, y * 255 / 400, 0)).max() < 2


@pytest.mark.usefixtures("no_margin")
def test_perspective_is_straightened() -> None:
    page = np.zeros((200, 300, 3), np.uint8)
    corners = (50.0, 40.0), (250.0, 80.0), (250.0, 120.0), (50.0, 160.0)
    page[:] = 40
    y, x = np.mgrid[:200, :300] + 0.5
    on = (x > 50) & (x < 250) & (y > 40 + (x - 50) / 5) & (y < 160 - (x - 50) / 5)
    page[on] = 220
    cut = np.asarray(Page(Image.fromarray(page), 32, 128).cut(corners_of_points(corners)))
    assert (cut[3:-3, 3:-3] == 220).all()


@pytest.mark.usefixtures("no_margin")
def test_of_a_region_that_leaves_the_page_only_what_is_there_is_read() -> None:
    page = smooth(200, 100)
    assert Page(page, 32, 128).cut(corners_of_box([-900, 20, 100, 50])).size == (100, 30)
    corners = corners_of_points([[-300, 20], [100, 24], [100, 54], [-300, 50]])
    cut = Page(page, 32, 128).cut(corners)
    assert abs(cut.width - 100) <= 1
    far = corners_of_points([[-1e6, 20], [100, 24], [100, 54], [-1e6, 50]])
    assert abs(Page(page, 32, 128).cut(far).width - 100) <= 1


@pytest.mark.usefixtures("no_margin")
def test_corners_that_are_not_on_the_page_are_as_bright_as_the_region() -> None:
    page = Image.new("RGB", (200, 200), (180, 170, 160))
    cut = np.asarray(Page(page, 32, 128).cut(corners_of_points([[-20, 20], [60, -60], [90, -30], [10, 50]])))
    assert (np.abs(cut.astype(int) - (180, 170, 160)) <= 1).all()


def test_large_regions_are_cut_from_smaller_copies_that_look_the_same() -> None:
    page = smooth(4000, 1000)
    opened = Page(page, 32, 128)
    cut = opened.cut(corners_of_box([200, 100, 3800, 900]))
    assert cut.width * cut.height <= regions.MAX_CUT_PIXELS
    assert cut.width >= 128 * regions.OVERSAMPLING
    wanted = np.asarray(page.crop((152, 52, 3848, 948)).resize((128, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(np.asarray(cut.resize((128, 32), Image.Resampling.BICUBIC)) - wanted).max() <= 3
    assert len({id(opened._level(3600, 800)[0]) for _ in range(3)}) == 1, "made once"


def test_a_long_line_keeps_the_rows_that_the_network_sees() -> None:
    page = Page(noise(4000, 400), 32, 128)
    assert page.cut(corners_of_box([0, 100, 2000, 150])).height == 56
    assert page.cut(corners_of_points([[0, 100], [2000, 110], [2000, 150], [0, 140]])).height == 45
    assert page.cut(corners_of_box([0, 100, 4000, 150])).height == 28, "but not at any price"


coordinates = st.floats(-300, 600) | st.floats(-1e6, 1e6) | st.integers(-20, 220).map(float)


@given(st.tuples(*[st.tuples(coordinates, coordinates)] * 4))
def test_any_four_points_are_cut_out_or_refused(points: tuple[tuple[float, float], ...]) -> None:
    page = Page(noise(200, 100), 32, 128)
    try:
        cut = page.cut(corners_of_points(points))
    except RegionError:
        return
    assert cut.mode == "RGB"
    assert 1 <= cut.width * cut.height <= 1.1 * regions.MAX_LINE_PIXELS + 1000


@given(st.tuples(*[coordinates] * 4))
def test_any_box_is_cut_out_or_refused(box: tuple[float, ...]) -> None:
    try:
        cut = Page(noise(200, 100), 32, 128).cut(corners_of_box(box))
    except RegionError:
        return
    assert cut.width <= 200
    assert cut.height <= 100


def test_clipping_keeps_what_is_inside() -> None:
    triangle = regions._clipped([(-50.0, 50.0), (50.0, -50.0), (150.0, 150.0)], 100.0, 100.0)
    assert all(-1e-9 <= x <= 100 + 1e-9 and -1e-9 <= y <= 100 + 1e-9 for x, y in triangle)
    assert regions._clipped([(1.0, 1.0), (2.0, 1.0), (2.0, 2.0)], 100.0, 100.0) == [(1.0, 1.0), (2.0, 1.0), (2.0, 2.0)]
    assert not regions._clipped([(101.0, 1.0), (102.0, 1.0), (102.0, 2.0)], 100.0, 100.0)


def test_the_perspective_takes_the_square_to_the_corners() -> None:
    corners: Corners = ((10.0, 20.0), (90.0, 10.0), (110.0, 70.0), (5.0, 60.0))
    projected = regions._project(regions._projection(corners), regions.SQUARE)
    assert np.allclose(projected, corners)
    halves = regions._project(regions._projection(corners), [(0.0, 0.5), (0.5, 0.5), (1.0, 0.5)])
    (x0, y0), (x1, y1), (x2, y2) = halves
    assert abs((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)) < 1e-6, "lines stay straight"
    assert all(a[0] < b[0] for a, b in pairwise(halves.tolist()))
