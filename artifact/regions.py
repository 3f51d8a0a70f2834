"""Regions of a page, cut out and straightened: what a text detector has found becomes crops for a recogniser.

Coordinates are pixels, with 0, 0 at the upper left corner of the first pixel: a box from 0 to 10 has the ten pixels 0 to 9.
A region is read about as well as if it had been cut out by hand in full size, but costs little however large it is: it is taken
from a smaller copy of the page where that still has `OVERSAMPLING` times as many pixels as the network will see.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MARGIN: Final = 0.06
"""What is added on each side of a region, as a part of its height."""
OVERSAMPLING: Final = 1.5
MAX_CUT_PIXELS: Final = 2**16
"""Pixels of a region that is cut out, at most."""
MAX_LINE_PIXELS: Final = 2**17
"""The same of a region that is long, and would have fewer rows than the network sees if it had to have fewer pixels."""
MAX_COORDINATE: Final = 1_000_000.0
MIN_AREA: Final = 1.0
"""Pixels of a region that are on the page, at least."""
MIN_TURN: Final = 1e-3
"""A corner that turns less, in pixels squared, counts as straight: rounding alone may turn it."""
UPRIGHT: Final = 0.5
"""By how many pixels the sides of a region may lean to count as upright."""
N_CORNERS: Final = 4

Point = tuple[float, float]
Corners = tuple[Point, Point, Point, Point]
"""Of a text: top left, top right, bottom right, bottom left, as a reader of the text would call them."""

SQUARE: Final[Corners] = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


class RegionError(ValueError):
    """A region cannot be cut out; the message is a sentence that says why and what to do."""


def corners_of(points: Sequence[Sequence[float]] | None, box: Sequence[float] | None) -> Corners:
    """The corners of a region that is given by four points or by a box, clockwise.

    Raises:
        RegionError: There is neither, or both, or they make no region.
    """
    if (points is None) == (box is None):
        raise RegionError("A region has either points or a box.")
    return corners_of_box(box or ()) if points is None else corners_of_points(points)


def corners_of_box(box: Sequence[float]) -> Corners:
    """The corners of an upright box.

    Args:
        box: Left, top, right, bottom.

    Raises:
        RegionError: It is no box.
    """
    if len(box) != N_CORNERS:
        raise RegionError(f"A box has 4 numbers (left, top, right, bottom), and this one {len(box)}.")
    _check_numbers(box)
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        raise RegionError("The box has no area: left must be less than right, and top less than bottom.")
    return (left, top), (right, top), (right, bottom), (left, bottom)


def corners_of_points(points: Sequence[Sequence[float]]) -> Corners:
    """The corners of a quadrilateral, clockwise. Points that go round the other way are taken so, from the same first point.

    Args:
        points: Pairs of x and y, beginning at the top left of the text.

    Raises:
        RegionError: They are no convex quadrilateral.
    """
    if len(points) != N_CORNERS or any(len(point) != 2 for point in points):
        detail = "A region has 4 points, each of them a pair [x, y]"
        raise RegionError(f"{detail}. For a shape of more points send the smallest rectangle around it.")
    for point in points:
        _check_numbers(point)
    first, second, third, fourth = [(float(x), float(y)) for x, y in points]
    corners = first, second, third, fourth
    turns = _turns(corners)
    if all(turn < 0 for turn in turns):
        return first, fourth, third, second
    if not all(turn > 0 for turn in turns):
        if not any(turns):
            raise RegionError("The region has no area: its points lie on a line.")
        detail = "The points must go round the region, top left, top right, bottom right, bottom left of the text"
        raise RegionError(f"{detail}: these cross over, coincide, or are not convex.")
    return corners


class Page:
    """A decoded page, from which regions are cut. May be used by several threads at once.

    Args:
        picture: RGB.
        height: Of the pictures that the network takes, in pixels.
        width: The same.
    """

    def __init__(self, picture: Image.Image, height: int, width: int) -> None:
        self._levels = [picture]
        """The page, and copies of it each of which is half as wide and high as the one before."""
        self._height, self._width = height, width
        self._lock = threading.Lock()

    def cut(self, corners: Corners) -> Image.Image:
        """A region, upright, with a little margin; where the region leaves the page, what there is of it.

        Raises:
            RegionError: Less than a pixel of it is on the page.
        """
        page = self._levels[0]
        if _area(_clipped(corners, page.width, page.height)) < MIN_AREA:
            raise RegionError(
                f"Less than a pixel of the region is on the page, which is {page.width} x {page.height} pixels, upright."
            )
        corners = _widened(corners)
        if _is_upright(corners):
            (left, top), _, (right, bottom), _ = corners
            return self._cut_box(max(0.0, left), max(0.0, top), min(page.width, right), min(page.height, bottom))
        return self._cut_quadrilateral(corners)

    def _cut_box(self, left: float, top: float, right: float, bottom: float) -> Image.Image:
        level, scale = self._level(right - left, bottom - top)
        across = _rounded(left / scale, right / scale, level.width)
        down = _rounded(top / scale, bottom / scale, level.height)
        return level.crop((across[0], down[0], across[1], down[1]))

    def _cut_quadrilateral(self, corners: Corners) -> Image.Image:
        page = self._levels[0]
        matrix = _projection(corners)
        leaves = not all(0.0 <= x <= page.width and 0.0 <= y <= page.height for x, y in corners)
        if leaves:
            # The part of the region's own square that is on the page, and the same matrix for it.
            seen = _project(np.asarray(np.linalg.inv(matrix), np.float64), _clipped(corners, page.width, page.height))
            low, high = np.clip(seen.min(axis=0), 0.0, 1.0), np.clip(seen.max(axis=0), 0.0, 1.0)
            part = np.array([[high[0] - low[0], 0.0, low[0]], [0.0, high[1] - low[1], low[1]], [0.0, 0.0, 1.0]])
            matrix = matrix @ part
            first, second, third, fourth = [(float(x), float(y)) for x, y in _project(matrix, SQUARE)]
            corners = first, second, third, fourth
        size_px = _size(corners)
        level, scale = self._level(*size_px)
        width, height = (max(1, round(side / scale)) for side in size_px)
        # From pixels of the result to its square, to the page, to the copy of it.
        matrix = np.diag([1 / scale, 1 / scale, 1.0]) @ matrix @ np.diag([1 / width, 1 / height, 1.0])
        coefficients = (matrix / matrix[2, 2]).reshape(-1)[:8].tolist()
        return level.transform(
            (width, height),
            Image.Transform.PERSPECTIVE,
            coefficients,
            Image.Resampling.BILINEAR,
            fillcolor=self._colour_around(corners) if leaves else None,
        )

    def _colour_around(self, corners: Corners) -> tuple[int, ...]:
        """The mean colour of the page where a region is, for those corners of it that are not on the page."""
        page = self._levels[0]
        left, top, right, bottom = (
            max(0.0, min(x for x, _ in corners)),
            max(0.0, min(y for _, y in corners)),
            min(float(page.width), max(x for x, _ in corners)),
            min(float(page.height), max(y for _, y in corners)),
        )
        pixel = self._cut_box(left, top, right, bottom).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        return pixel if isinstance(pixel, tuple) else ()

    def _level(self, width: float, height: float) -> tuple[Image.Image, int]:
        """The copy of the page to cut a region of this size from, and how many times smaller it is than the page."""
        level, scale = 0, 1
        while True:
            most_pixels = MAX_CUT_PIXELS if height >= 2 * scale * self._height else MAX_LINE_PIXELS
            ample = min(width / self._width, height / self._height) >= 2 * scale * OVERSAMPLING
            if not ample and width * height <= most_pixels * scale**2:
                break
            level, scale = level + 1, 2 * scale
        if level >= len(self._levels):
            with self._lock:
                while level >= len(self._levels):
                    self._levels.append(self._levels[-1].reduce(2))
        return self._levels[level], scale


def _check_numbers(numbers: Sequence[float]) -> None:
    if not all(abs(number) <= MAX_COORDINATE for number in numbers):  # false for NaN too
        raise RegionError(f"A coordinate is not a number from -{MAX_COORDINATE:.0f} to {MAX_COORDINATE:.0f}.")


def _turns(corners: Corners) -> list[float]:
    """At each corner, the area of the parallelogram of the edges that meet there: positive where the way turns clockwise."""
    found = []
    for index, (x, y) in enumerate(corners):
        (x_before, y_before), (x_after, y_after) = corners[index - 1], corners[(index + 1) % N_CORNERS]
        turn = (x - x_before) * (y_after - y) - (y - y_before) * (x_after - x)
        found.append(turn if abs(turn) >= MIN_TURN else 0.0)
    return found


def _area(polygon: Sequence[Point]) -> float:
    twice = sum(x * polygon[index - 1][1] - polygon[index - 1][0] * y for index, (x, y) in enumerate(polygon))
    return abs(twice) / 2


def _size(corners: Corners) -> tuple[float, float]:
    """Mean width and height of a quadrilateral."""
    top_left, top_right, bottom_right, bottom_left = corners
    width = math.dist(top_left, top_right) + math.dist(bottom_left, bottom_right)
    height = math.dist(top_left, bottom_left) + math.dist(top_right, bottom_right)
    return width / 2, height / 2


def _is_upright(corners: Corners) -> bool:
    (left, top), (right, top_right), (right_below, bottom), (left_below, bottom_left) = corners
    leanings = left - left_below, right - right_below, top - top_right, bottom - bottom_left
    return left < right and top < bottom and all(abs(leaning) <= UPRIGHT for leaning in leanings)


def _widened(corners: Corners) -> Corners:
    """The corners with the margin, moved outwards along the edges."""
    margin = MARGIN * _size(corners)[1]
    moved = []
    for index, (x, y) in enumerate(corners):
        for neighbour in (corners[index - 1], corners[(index + 1) % N_CORNERS]):
            share = margin / math.dist(corners[index], neighbour)
            x += share * (corners[index][0] - neighbour[0])
            y += share * (corners[index][1] - neighbour[1])
        moved.append((x, y))
    first, second, third, fourth = moved
    wide = first, second, third, fourth
    return wide if all(turn > 0 for turn in _turns(wide)) else corners


def _clipped(polygon: Sequence[Point], width: float, height: float) -> Sequence[Point]:
    """The part of a convex polygon that is on a page of this size (Sutherland and Hodgman, 1974)."""
    for axis, limit, sign in ((0, 0.0, 1.0), (0, width, -1.0), (1, 0.0, 1.0), (1, height, -1.0)):
        inside = [sign * (point[axis] - limit) for point in polygon]
        if min(inside, default=0.0) >= 0.0:
            continue
        kept: list[Point] = []
        for index, point in enumerate(polygon):
            before, here, there = polygon[index - 1], inside[index], inside[index - 1]
            if (here < 0.0) != (there < 0.0):
                share = there / (there - here)
                kept.append((before[0] + share * (point[0] - before[0]), before[1] + share * (point[1] - before[1])))
            if here >= 0.0:
                kept.append(point)
        polygon = kept
    return polygon


def _projection(corners: Corners) -> NDArray[np.float64]:
    """The 3 x 3 matrix of the perspective that takes the unit square to these corners (Heckbert, 1989, section 2.2.3)."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    dx1, dx2, dx3 = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, dy3 = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    g, h = (dx3 * dy2 - dx2 * dy3) / area, (dx1 * dy3 - dx3 * dy1) / area
    return np.array([[x1 - x0 + g * x1, x3 - x0 + h * x3, x0], [y1 - y0 + g * y1, y3 - y0 + h * y3, y0], [g, h, 1.0]])


def _project(matrix: NDArray[np.float64], points: Sequence[Point]) -> NDArray[np.float64]:
    """Apply a perspective to points: float `(n, 2)`."""
    projected = np.column_stack([np.asarray(points, np.float64), np.ones(len(points))]) @ matrix.T
    return projected[:, :2] / projected[:, 2:]


def _rounded(low: float, high: float, limit: int) -> tuple[int, int]:
    """Whole pixels from 0 to `limit`, at least one."""
    first = min(round(low), limit - 1)
    return first, max(first + 1, min(round(high), limit))
