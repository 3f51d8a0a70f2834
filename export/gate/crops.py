"""Word crops for the parity gate: drawn, deterministic, of every length a network can read, and a few without any text."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from artifact.allowed import Allowed, allowed_matrix
from artifact.fit import fit

SEED: Final = 20220701
BATCH: Final = 32
"""The number of crops is a multiple of this, so that there are full batches of this size."""
MAX_LENGTHS: Final = 60
"""Beyond so many lengths, lengths are sampled instead of drawing all of them."""
MAX_WORD: Final = 12
"""Longest text of `word_crops`."""
FONT_PX: Final = 32
DRAWABLE: Final = frozenset(string.digits + string.ascii_letters + string.punctuation)

Pixels = NDArray[np.uint8]
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True, slots=True)
class GateCrop:
    """One crop and what it shows."""

    description: str
    """For reports, such as `text 'Kiosk' of 5`."""
    pixels: Pixels
    """uint8 `(height, width, 3)`."""
    text: str = ""
    """What is drawn, if that is known."""
    allowed: Allowed | None = None
    """bool `(characters,)`: which may be read; None: all."""


def stacked(crops: Sequence[GateCrop]) -> tuple[Pixels, Allowed | None]:
    """The pixels of several crops, `(N, height, width, 3)`, and what may be read, `(N, characters)`; None: all in all crops."""
    rows = [crop.allowed for crop in crops]
    characters = next((len(row) for row in rows if row is not None), None)
    pixels = np.stack([crop.pixels for crop in crops])
    return pixels, None if characters is None else allowed_matrix(rows, characters)


def restricted_crops(crops: Sequence[GateCrop], charset: str) -> list[GateCrop]:
    """The same crops, to be read with half of the charset each: every second one with all of its own text, if it has any."""
    rng = np.random.default_rng(SEED)
    found = []
    for number, crop in enumerate(crops):
        row = rng.permutation(len(charset)) < (len(charset) + 1) // 2
        if number % 2:
            row |= np.array([char in crop.text for char in charset])
        found.append(replace(crop, description=f"{crop.description}, {row.sum()} characters allowed", allowed=row))
    return found


def parity_crops(img_size: tuple[int, int], charset: str, max_label_length: int) -> list[GateCrop]:
    """Crops with texts of every length 1..`max_label_length`, a blank one, noise and gradients.

    Args:
        img_size: Height and width in pixels.
        charset: Texts are drawn from its printable ASCII characters, or from the letters if it has none.
        max_label_length: Longest text, in characters.
    """
    rng = np.random.default_rng(SEED)
    crops = list(_without_text(img_size, rng))
    alphabet = [c for c in charset if c in DRAWABLE] or list(string.ascii_letters)
    count = min(max_label_length, MAX_LENGTHS)
    lengths = [round(value) for value in np.linspace(1, max_label_length, count)]
    total = math.ceil((len(crops) + len(lengths)) / BATCH) * BATCH
    for number in range(total - len(crops)):
        length = lengths[number] if number < len(lengths) else int(rng.integers(1, max_label_length + 1))
        text = "".join(rng.choice(alphabet, length))
        crops.append(GateCrop(f"text {text!r} of {length}", fit(_draw(text, rng), *img_size), text))
    return crops


def word_crops(img_size: tuple[int, int], charset: str, max_label_length: int, count: int, seed: int) -> list[GateCrop]:
    """Crops with texts of the lengths that words have.

    Args:
        img_size: Height and width in pixels.
        charset: As for `parity_crops`.
        max_label_length: Longest text, in characters.
        count: How many.
        seed: Of texts, colours, angles and noise.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, min(max_label_length, MAX_WORD) + 1, count)
    return crops_of_lengths(img_size, charset, lengths.tolist(), rng)


def crops_of_lengths(
    img_size: tuple[int, int], charset: str, lengths: Sequence[int], rng: np.random.Generator
) -> list[GateCrop]:
    """Crops with a text of each of `lengths` characters; other arguments as for `word_crops`."""
    alphabet = [c for c in charset if c in DRAWABLE] or list(string.ascii_letters)
    texts = ["".join(rng.choice(alphabet, length)) for length in lengths]
    return [GateCrop(f"text {text!r} of {len(text)}", fit(_draw(text, rng), *img_size), text) for text in texts]


def _without_text(img_size: tuple[int, int], rng: np.random.Generator) -> Iterator[GateCrop]:
    height, width = img_size
    shape = (height, width, 3)
    yield GateCrop("blank white", np.full(shape, 255, np.uint8))
    yield GateCrop("blank black", np.zeros(shape, np.uint8))
    yield GateCrop("noise", rng.integers(0, 256, shape, dtype=np.uint8))
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    yield GateCrop("gradient", np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], shape)))


def _draw(text: str, rng: np.random.Generator) -> Image.Image:
    """Dark on light or light on dark, coloured, slightly rotated and noisy."""
    margin = int(rng.integers(2, 12))
    dark, light = rng.integers(0, 110, 3), rng.integers(145, 256, 3)
    ink, paper = (dark, light) if rng.random() < 0.5 else (light, dark)
    return paint(text, ink, paper, margin, None, rng)


def paint(
    text: str,
    ink: NDArray[np.int64],
    paper: NDArray[np.int64],
    margin: int,
    noise: float | None,
    rng: np.random.Generator,
    font: Font | None = None,
) -> Image.Image:
    """Draw a text on a plain ground, slightly rotated and noisy.

    Args:
        text: What to write.
        ink: Red, green and blue of the text.
        paper: Red, green and blue of the ground.
        margin: Pixels on each side.
        noise: Standard deviation of the noise, of 255; None: drawn, up to 12.
        rng: Draws angle and noise.
        font: The font; None: Pillow's own.
    """
    font = font or ImageFont.load_default(size=FONT_PX)
    left, top, right, bottom = font.getbbox(text)
    size = (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin)
    image = Image.new("RGB", size, _colour(paper))
    ImageDraw.Draw(image).text((margin - left, margin - top), text, font=font, fill=_colour(ink))
    angle = float(rng.uniform(-4, 4))
    image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=_colour(paper))
    deviation = rng.uniform(0, 12) if noise is None else noise
    noisy = np.asarray(image, dtype=np.float64) + rng.normal(0, deviation, (image.height, image.width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _colour(values: NDArray[np.int64]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    return red, green, blue
