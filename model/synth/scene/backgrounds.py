"""What lies behind the letters: plain colour, gradients, textures and clutter."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from model.synth.scene.colours import Colour, random_colour

Pixels = NDArray[np.float32]
Rng = np.random.Generator
Size = tuple[int, int]


def plain(size: Size, colour: Colour) -> Pixels:
    """One colour, as (height, width, 3) float32 in 0-255; `size` is (width, height)."""
    return np.broadcast_to(colour, (size[1], size[0], 3)).astype(np.float32)


def gradient(rng: Rng, size: Size, colour: Colour, strength: float) -> Pixels:
    """A colour that drifts along a random direction by up to `strength` grey levels."""
    ramp = linear_ramp(rng, size) - 0.5
    drift = rng.normal(0, 0.35, 3).astype(np.float32) + np.float32(rng.choice((-1.0, 1.0)))
    return np.asarray(colour + ramp[..., None] * drift * np.float32(strength), np.float32)


def textured(rng: Rng, size: Size, colour: Colour, strength: float) -> Pixels:
    """A colour under coloured noise of several scales, its deviation about `strength` grey levels."""
    noise = cloud(rng, size, int(rng.integers(2, 5))) + 0.6 * cloud(rng, size, int(rng.integers(5, 14)))
    # Surfaces vary in brightness more than in hue.
    noise = noise.mean(axis=2, keepdims=True) * np.float32(1.5) + noise * np.float32(rng.uniform(0, 0.5))
    return np.asarray(colour + noise * np.float32(strength), np.float32)


def linear_ramp(rng: Rng, size: Size) -> Pixels:
    """(height, width) values from 0 to 1 along a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-1, 1, size[0], dtype=np.float32) * np.float32(np.cos(angle))
    y = np.linspace(-1, 1, size[1], dtype=np.float32) * np.float32(np.sin(angle))
    ramp = x[None, :] + y[:, None]
    low, high = float(ramp.min()), float(ramp.max())
    return np.asarray((ramp - low) / max(high - low, 1e-6), np.float32)


def cloud(rng: Rng, size: Size, cells: int) -> Pixels:
    """Smooth coloured noise (height, width, 3) in about [-1, 1] with `cells` bumps along the height."""
    across = max(2, cells * size[0] // max(size[1], 1))
    small = rng.integers(0, 256, (cells, across, 3), dtype=np.uint8)
    grown = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(grown, np.float32) / np.float32(127.5) - 1


def add_clutter(rng: Rng, pixels: Pixels, ground: Colour, reach: float) -> Pixels:
    """Draw lines, boxes and soft blobs that differ from the `ground` by about `reach` grey levels."""
    canvas = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(1, 6))):
        _DRAWERS[int(rng.integers(len(_DRAWERS)))](rng, pen, canvas.size, _tint(rng, ground, reach))
    if rng.random() < 0.6:
        canvas = canvas.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 4))))
    return np.asarray(canvas, np.float32)


def add_edge(rng: Rng, pixels: Pixels) -> Pixels:
    """Let the frame of a sign show: a band of another colour along one border."""
    height, width = pixels.shape[:2]
    colour = random_colour(rng)
    band = max(1, int(height * rng.uniform(0.03, 0.14)))
    if rng.random() < 0.7:
        rows = slice(0, band) if rng.random() < 0.5 else slice(height - band, height)
        pixels[rows] = colour
    else:
        columns = slice(0, band) if rng.random() < 0.5 else slice(width - band, width)
        pixels[:, columns] = colour
    return pixels


def _tint(rng: Rng, ground: Colour, reach: float) -> tuple[int, int, int]:
    mixed = np.clip(ground + rng.normal(0, reach, 3) + rng.normal(0, reach), 0, 255)
    return int(mixed[0]), int(mixed[1]), int(mixed[2])


def _line(rng: Rng, pen: ImageDraw.ImageDraw, size: Size, fill: tuple[int, int, int]) -> None:
    ends = rng.uniform(-0.2, 1.2, 4) * (*size, *size)
    pen.line([float(v) for v in ends], fill=fill, width=int(rng.integers(1, 5)))


def _box(rng: Rng, pen: ImageDraw.ImageDraw, size: Size, fill: tuple[int, int, int]) -> None:
    x, y = np.sort(rng.uniform(-0.3, 1.3, 2)) * size[0], np.sort(rng.uniform(-0.3, 1.3, 2)) * size[1]
    pen.rectangle([float(x[0]), float(y[0]), float(x[1]), float(y[1])], fill=fill)


def _blob(rng: Rng, pen: ImageDraw.ImageDraw, size: Size, fill: tuple[int, int, int]) -> None:
    x, y = rng.uniform(-0.1, 1.1) * size[0], rng.uniform(-0.1, 1.1) * size[1]
    r = rng.uniform(0.1, 0.6) * size[1]
    pen.ellipse([x - r, y - r, x + r, y + r], fill=fill)


_DRAWERS: Final = (_line, _line, _box, _blob)
