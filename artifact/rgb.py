"""From a decoded picture of any mode to RGB, 8 bits a channel; done in bands of rows, which needs little memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image

LIGHT: Final = 160
"""Letters on a transparent ground are laid on black if their mean brightness, of 255, is above this."""
BAND_PIXELS: Final = 2**16
"""Pixels of a band. Word crops have far fewer, so nearly all pictures are one band."""

Rgba = tuple[int, int, int, int]


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB.

    Transparent pixels are laid on paper: white, or black under light letters. (The colour stored under a transparent pixel is
    usually black, so that dropping the alpha channel would paint dark letters on dark.) Fully opaque pixels come out exactly
    as dropping the alpha channel leaves them, which is what the reference preprocessing does.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_to_rgb(image)
    if image.has_transparency_data:
        return _on_paper(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The bands of a picture from top to bottom: the number of each one's first row, and the band."""
    width, height = image.size
    rows = max(1, BAND_PIXELS // width)
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _on_paper(image: Image.Image) -> Image.Image:
    paper = _paper(image)
    upon = Image.new("RGB", image.size)
    for top, band in _bands(image):
        rgba = band.convert("RGBA")
        if paper is not None:
            rgba = Image.alpha_composite(Image.new("RGBA", rgba.size, paper), rgba)
        upon.paste(rgba.convert("RGB"), (0, top))
    return upon


def _paper(image: Image.Image) -> Rgba | None:
    """The paper's colour: black if less than half of the image is opaque and that part is light (letters cut out), else white.

    `None` if nothing is visible: then the colours under the transparency are the better guess.
    """
    visible, covered, brightness = False, 0.0, 0.0
    for _, band in _bands(image):
        rgba = band.convert("RGBA")
        alpha = rgba.getchannel("A")
        visible = visible or alpha.getbbox() is not None
        opacity = np.asarray(alpha, np.float32) / 255
        covered += float(opacity.sum())
        brightness += float((np.asarray(rgba.convert("L"), np.float32) * opacity).sum())
    if not visible:
        return None
    cut_out = brightness > LIGHT * covered and covered < 0.5 * image.width * image.height
    return (0, 0, 0, 255) if cut_out else (255, 255, 255, 255)


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    """Scale deeper pixels to 8 bits (Pillow would clip them): 16 bits by their full range, others from darkest to brightest."""
    low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else _range(image)
    factor = 255.0 / (high - low if high > low else 1.0)
    rgb = Image.new("RGB", image.size)
    for top, band in _bands(image):
        values = (np.asarray(band).astype(np.float64) - low) * factor
        rgb.paste(Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB"), (0, top))
    return rgb


def _range(image: Image.Image) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for _, band in _bands(image):
        values = np.asarray(band)
        if not np.isfinite(values).all():
            raise ValueError("pixels that are not numbers")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high
