"""Crops whose answers are known before they are posted; now and then one on which the model must fail."""

from __future__ import annotations

import io
import random

import httpx
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tests.chaos import wild_requests
from tests.chaos.wild_requests import FAILS, Expected
from tests.integration.server import PATIENCE_S
from tests.toy_artifact import HEIGHT, POISON, WIDTH, png_of

POISONED_SHARE = 0.02
FONT_SIZE = 22


def toy_crops() -> list[tuple[Expected, bytes]]:
    """Whose text is in their pixels."""
    crops = wild_requests.toy_crops(random.Random(0))
    poisoned = png_of("poison", poisoned=True)
    return [*crops, *((FAILS, poisoned) for _ in range(round(POISONED_SHARE * len(crops))))]


def bundled_crops(url: str) -> list[tuple[Expected, bytes]]:
    """Words in print, and what the model at this address reads on each when it is posted alone; equal ones once."""
    readings: dict[str, bytes] = {}
    with httpx.Client(base_url=url, timeout=PATIENCE_S, headers={"content-type": "image/png"}) as client:
        for number in range(1000, 1200):
            content = drawn(f"W{number * 7919 % 10**6}x")
            answer = client.post("/v1/recognize", content=content)
            readings.setdefault(answer.raise_for_status().json()["text"], content)
    poisoned = drawn("poison", poisoned=True)
    crops: list[tuple[Expected, bytes]] = list(readings.items())
    return [*crops, *((FAILS, poisoned) for _ in range(round(POISONED_SHARE * len(crops))))]


def drawn(text: str, *, poisoned: bool = False) -> bytes:
    """A PNG file of the model's own size."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(FONT_SIZE)
    draw.text((WIDTH / 2, HEIGHT / 2), text, "black", font, anchor="mm")
    pixels = np.array(image)
    if poisoned:
        pixels[0, -1, 2] = POISON
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
