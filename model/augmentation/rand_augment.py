"""Augmentation of single crops as the reference implementation does it: RandAugment, three operations of magnitude 5.

After "RandAugment: Practical automated data augmentation" (Cubuk et al., 2020), as the PARSeq paper uses it: geometric and
colour operations whose strength grows with the magnitude, without sharpening (it would undo the blur) and without cutting out
(a hidden character cannot be read), with blur and Poisson noise besides. Of three different operations each is done with
probability one half. Strengths are those of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from model.data.crops import Centers

Rng = np.random.Generator
PROBABILITY: Final = 0.5
MAX_MAGNITUDE: Final = 10
GREY: Final = (128, 128, 128)
"""Fills what a geometric operation leaves empty."""


def _sign(rng: Rng) -> int:
    return 1 if rng.random() < 0.5 else -1


def _posterize(image: Image.Image, level: float) -> Image.Image:
    # Pillow needs at least one bit.
    return ImageOps.posterize(image, max(1, 4 - int(4 * level)))


def _solarize_add(image: Image.Image, level: float) -> Image.Image:
    added = int(110 * level)
    table = [min(255, value + added) if value < 128 else value for value in range(256)]
    return image.point(table * 3)


def _gaussian_blur(image: Image.Image, level: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(_bounded(4 * level, 0.02, image)))


def _poisson_noise(image: Image.Image, level: float, rng: Rng) -> Image.Image:
    mean = _bounded(40 * level, 0.2, image) | 1
    pixels = np.asarray(image).astype(np.int16)
    size = pixels.shape[:2]
    noise = rng.poisson(mean, size).astype(np.int16) * (2 * rng.integers(2, size=size, dtype=np.int16) - 1)
    return Image.fromarray((pixels + noise[..., None]).clip(0, 255).astype(np.uint8))


def _factor(level: float, rng: Rng) -> float:
    """A factor for colour, contrast or brightness, above or below 1."""
    return max(0.1, 1 + 0.9 * level * _sign(rng))


def _bounded(strength: float, share: float, image: Image.Image) -> int:
    """A strength in pixels or steps of grey, less on small crops, where it would leave nothing to read."""
    return round(min(strength, max(1, share * max(image.size))))


ColourOperation = Callable[[Image.Image, float, Rng], Image.Image]
COLOUR: Final[dict[str, ColourOperation]] = {
    "auto_contrast": lambda image, _level, _rng: ImageOps.autocontrast(image),
    "equalize": lambda image, _level, _rng: ImageOps.equalize(image),
    "invert": lambda image, _level, _rng: ImageOps.invert(image),
    "posterize": lambda image, level, _rng: _posterize(image, level),
    "solarize": lambda image, level, _rng: ImageOps.solarize(image, 256 - int(256 * level)),
    "solarize_add": lambda image, level, _rng: _solarize_add(image, level),
    "color": lambda image, level, rng: ImageEnhance.Color(image).enhance(_factor(level, rng)),
    "contrast": lambda image, level, rng: ImageEnhance.Contrast(image).enhance(_factor(level, rng)),
    "brightness": lambda image, level, rng: ImageEnhance.Brightness(image).enhance(_factor(level, rng)),
    "gaussian_blur": lambda image, level, _rng: _gaussian_blur(image, level),
    "poisson_noise": _poisson_noise,
}

Affine = NDArray[np.float64]
"""`(2, 3)`, in pixels, from the altered crop to the given one."""


def _rotation(size: tuple[int, int], level: float, rng: Rng) -> tuple[Affine, tuple[int, int]]:
    """A rotation by up to 30 degrees, on a canvas large enough for the whole result."""
    angle = math.radians(30 * level) * _sign(rng)
    cos, sin = math.cos(angle), math.sin(angle)
    width, height = size
    canvas = (math.ceil(width * cos + height * abs(sin)), math.ceil(width * abs(sin) + height * cos))
    linear = np.array([[cos, sin], [-sin, cos]])
    shift = np.array(size) / 2 - linear @ np.array(canvas) / 2
    return np.column_stack([linear, shift]), canvas


def _of_same_size(
    matrix: Callable[[tuple[int, int], float], list[list[float]]],
) -> Callable[[tuple[int, int], float, Rng], tuple[Affine, tuple[int, int]]]:
    return lambda size, level, rng: (np.array(matrix(size, level * _sign(rng))), size)


GEOMETRIC: Final[dict[str, Callable[[tuple[int, int], float, Rng], tuple[Affine, tuple[int, int]]]]] = {
    "rotate": _rotation,
    "shear_x": _of_same_size(lambda _size, level: [[1, 0.9 * level, 0], [0, 1, 0]]),
    "shear_y": _of_same_size(lambda _size, level: [[1, 0, 0], [0.2 * level, 1, 0]]),
    "translate_x": _of_same_size(lambda size, level: [[1, 0, 0.1 * level * size[0]], [0, 1, 0]]),
    "translate_y": _of_same_size(lambda size, level: [[1, 0, 0], [0, 1, 0.3 * level * size[1]]]),
}
OPERATIONS: Final = (*COLOUR, *GEOMETRIC)


def move(
    image: Image.Image, centers: Centers, affine: Affine, canvas: tuple[int, int], rng: Rng
) -> tuple[Image.Image, Centers]:
    """Draw `image` anew on `canvas` (width and height); the centres move along."""
    resample = Image.Resampling.BILINEAR if rng.random() < 0.5 else Image.Resampling.BICUBIC
    moved = image.transform(canvas, Image.Transform.AFFINE, affine.ravel().tolist(), resample, fillcolor=GREY)
    pixels = centers.astype(np.float64) * image.size
    # The matrix says where each new pixel comes from, so that centres move by the inverse.
    new = np.linalg.solve(affine[:, :2], (pixels - affine[:, 2]).T).T
    return moved, (new / canvas).astype(np.float16)


class RandAugment:
    """Does some operations, chosen at random, to a crop."""

    def __init__(self, layers: int = 3, magnitude: float = 5) -> None:
        """Do up to `layers` operations of `magnitude` (0 to 10)."""
        self.layers, self.level = layers, magnitude / MAX_MAGNITUDE

    def __call__(self, image: Image.Image, centers: Centers, rng: Rng) -> tuple[Image.Image, Centers]:
        """Alter an RGB crop and the centres of its glyphs, fractions of its width and height."""
        for index in rng.permutation(len(OPERATIONS))[: self.layers]:
            if rng.random() >= PROBABILITY:
                continue
            name = OPERATIONS[index]
            if name in COLOUR:
                image = COLOUR[name](image, self.level, rng)
            else:
                affine, canvas = GEOMETRIC[name](image.size, self.level, rng)
                image, centers = move(image, centers, affine, canvas, rng)
        return image, centers
