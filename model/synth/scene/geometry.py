"""The map between points of the flat text and of the crop, in both directions, and how an image is drawn through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Points = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Cells of the mesh along a curve, in output pixels: fine enough that the bends between cells do not show.
_CELL: Final = 12


@dataclass(frozen=True)
class Arc:
    """Bends the horizontal line through `origin` into a circle of signed `radius` pixels (positive: a smile's
    opposite, the middle higher than the ends). Lengths along that line are kept."""

    origin: tuple[float, float]
    radius: float

    def forward(self, points: Points) -> Points:
        """Flat points (n, 2) to bent points (n, 2)."""
        x, y = points[:, 0] - self.origin[0], points[:, 1] - self.origin[1]
        angle, distance = x / self.radius, self.radius - y
        bent = np.stack([distance * np.sin(angle), self.radius - distance * np.cos(angle)], axis=1)
        return np.asarray(bent + self.origin)

    def inverse(self, points: Points) -> Points:
        """Bent points (n, 2) to flat points (n, 2)."""
        x, y = points[:, 0] - self.origin[0], points[:, 1] - self.origin[1]
        sign = np.sign(self.radius)
        up = self.radius - y
        distance = sign * np.hypot(x, up)
        flat = np.stack([self.radius * np.arctan2(sign * x, sign * up), self.radius - distance], axis=1)
        return np.asarray(flat + self.origin)


@dataclass(frozen=True)
class Warp:
    """An optional arc followed by a homography `matrix` (3, 3) acting on columns (x, y, 1)."""

    matrix: Matrix
    arc: Arc | None = None

    def forward(self, points: Points) -> Points:
        """Points (n, 2) of the flat text to points (n, 2) of the crop."""
        return _project(self.matrix, self.arc.forward(points) if self.arc else points)

    def inverse(self, points: Points) -> Points:
        """Points (n, 2) of the crop to points (n, 2) of the flat text."""
        back = _project(_inverse(self.matrix), points)
        return self.arc.inverse(back) if self.arc else back

    def moved(self, dx: float, dy: float) -> Warp:
        """The same warp with its result shifted by (dx, dy) pixels."""
        return Warp(translation(dx, dy) @ self.matrix, self.arc)

    def draw(self, source: Image.Image, size: tuple[int, int]) -> Image.Image:
        """`source` seen through the warp, as an image of `size` (width, height); black outside."""
        if self.arc is None:
            inverse = _inverse(self.matrix)
            data = tuple((inverse / inverse[2, 2]).ravel()[:8])
            return source.transform(size, Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR)
        return source.transform(size, Image.Transform.MESH, self._mesh(size), Image.Resampling.BILINEAR)

    def _mesh(self, size: tuple[int, int]) -> list[tuple[tuple[int, int, int, int], tuple[float, ...]]]:
        xs, ys = _ticks(size[0]), _ticks(size[1])
        grid = np.stack(np.meshgrid(xs, ys), axis=-1).astype(np.float64)
        flat = self.inverse(grid.reshape(-1, 2)).reshape(grid.shape)
        mesh = []
        for j in range(len(ys) - 1):
            for i in range(len(xs) - 1):
                # Pillow takes the corners counter-clockwise from the upper left.
                corners = (flat[j, i], flat[j + 1, i], flat[j + 1, i + 1], flat[j, i + 1])
                box = (int(xs[i]), int(ys[j]), int(xs[i + 1]), int(ys[j + 1]))
                mesh.append((box, tuple(float(v) for corner in corners for v in corner)))
        return mesh


def translation(dx: float, dy: float) -> Matrix:
    """Matrix (3, 3) of a shift."""
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]], np.float64)


def scaling(sx: float, sy: float) -> Matrix:
    """Matrix (3, 3) of a scaling about the origin."""
    return np.diag([sx, sy, 1.0])


def rotation(degrees: float) -> Matrix:
    """Matrix (3, 3) of a rotation about the origin, clockwise on the screen for positive angles."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float64)


def shear(factor: float) -> Matrix:
    """Matrix (3, 3) that slants: x gains `factor` times y."""
    return np.array([[1, factor, 0], [0, 1, 0], [0, 0, 1]], np.float64)


def perspective(px: float, py: float) -> Matrix:
    """Matrix (3, 3) of a plane that recedes along x by `px` and along y by `py` per pixel."""
    return np.array([[1, 0, 0], [0, 1, 0], [px, py, 1]], np.float64)


def border(box: tuple[float, float, float, float], steps: int = 9) -> Points:
    """Points (4 * steps, 2) around a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    t = np.linspace(0, 1, steps)
    x, y = left + (right - left) * t, top + (bottom - top) * t
    sides = [
        np.stack([x, np.full(steps, top)], 1),
        np.stack([x, np.full(steps, bottom)], 1),
        np.stack([np.full(steps, left), y], 1),
        np.stack([np.full(steps, right), y], 1),
    ]
    return np.concatenate(sides)


def _project(matrix: Matrix, points: Points) -> Points:
    homogeneous = points @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])


def _inverse(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _ticks(length: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, length, max(2, length // _CELL + 1)).astype(np.int64))
