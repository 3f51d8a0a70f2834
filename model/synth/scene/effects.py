"""What a camera and a file format do to a picture: light, blur, lost pixels, noise, compression."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from model.synth.scene.backgrounds import linear_ramp

Pixels = NDArray[np.float32]
Rng = np.random.Generator


def illuminate(rng: Rng, pixels: Pixels, strength: float) -> Pixels:
    """Light falling off across the picture: factors between 1 - strength and 1 + strength / 4."""
    ramp = linear_ramp(rng, (pixels.shape[1], pixels.shape[0]))
    return pixels * (1 - strength + ramp[..., None] * np.float32(1.25 * strength))


def shift_tone(rng: Rng, pixels: Pixels) -> Pixels:
    """Another exposure and contrast."""
    contrast, brightness = rng.uniform(0.55, 1.15), rng.normal(0, 18)
    middle = float(pixels.mean())
    return np.asarray((pixels - middle) * np.float32(contrast) + np.float32(middle + brightness), np.float32)


def spot(rng: Rng, pixels: Pixels) -> Pixels:
    """A soft highlight, as of a lamp on a glossy sign."""
    height, width = pixels.shape[:2]
    x = (np.arange(width, dtype=np.float32) - rng.uniform(0, width)) / np.float32(height)
    y = (np.arange(height, dtype=np.float32) - rng.uniform(0, height)) / np.float32(height)
    glow = np.exp(-(x[None] ** 2 + y[:, None] ** 2) / np.float32(2 * rng.uniform(0.2, 0.7) ** 2))
    return np.asarray(pixels + glow[..., None] * np.float32(rng.uniform(25, 110)), np.float32)


def add_noise(rng: Rng, pixels: Pixels, deviation: float) -> Pixels:
    """Sensor noise of `deviation` grey levels, partly common to the three channels."""
    height, width = pixels.shape[:2]
    grey = rng.standard_normal((height, width, 1), dtype=np.float32)
    if rng.random() < 0.5:
        return pixels + grey * np.float32(deviation)
    coloured = rng.standard_normal((height, width, 3), dtype=np.float32)
    return pixels + (grey + coloured) * np.float32(0.7 * deviation)


def blur(image: Image.Image, radius: float) -> Image.Image:
    """Out of focus by `radius` pixels."""
    return image.filter(ImageFilter.GaussianBlur(radius))


def motion_blur(rng: Rng, image: Image.Image, length: float) -> Image.Image:
    """Smeared over `length` pixels along a random direction, mostly a level one."""
    angle = rng.normal(0, 0.5) if rng.random() < 0.7 else rng.uniform(0, np.pi)
    steps = max(2, round(length))
    pixels = np.asarray(image, np.float32)
    margin = steps
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    height, width = pixels.shape[:2]
    total = np.zeros_like(pixels)
    for t in np.linspace(-0.5, 0.5, steps):
        dx, dy = round(t * length * np.cos(angle)), round(t * length * np.sin(angle))
        total += padded[margin + dy : margin + dy + height, margin + dx : margin + dx + width]
    return to_image(total / np.float32(steps))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Through a JPEG file and back."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def to_image(pixels: Pixels) -> Image.Image:
    """(height, width, 3) floats in 0-255, clipped, to an RGB image."""
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
