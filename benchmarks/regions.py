"""What regions of a page cost beside the same crops alone: processor time of the whole service, in this process.

    python -m benchmarks.regions --regions 100 --dpi 150

A page of words is rendered and saved as JPEG. It is posted to `/v1/regions`, and its words, cut out by hand and saved as PNG,
are posted to `/v1/recognize` as one form; the two take turns. Printed are the median processor times, their ratio, and how
many regions read like their crop.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import math
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx
from PIL import Image, ImageDraw, ImageFont

from service.config import Settings
from service.core.runtime import Runtime
from service.http.app import App
from service.sessions.artifact import load_artifact

A4_INCHES = (8.27, 11.69)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Word:
    """A word on a page, with the corners of its box."""

    points: list[tuple[float, float]]
    crop: Image.Image


def render(n_words: int, dpi: int, degrees: float, seed: int = 0) -> tuple[Image.Image, list[Word]]:
    """A page of A4, turned by some degrees, and its words; each is cut out before the page is turned."""
    chance = random.Random(seed)
    width, height = (round(side * dpi) for side in A4_INCHES)
    page = Image.new("RGB", (width, height), (250, 248, 240))
    draw, font_px = ImageDraw.Draw(page), round(dpi / 5)
    font = ImageFont.load_default(font_px)
    boxes, x, y = list[tuple[float, ...]](), width // 8, height // 8
    while len(boxes) < n_words and y < 7 * height // 8:
        word = "".join(chance.choices(LETTERS, k=chance.randint(3, 9)))
        box = draw.textbbox((x, y), word, font=font)
        if box[2] > 7 * width // 8:
            x, y = width // 8, y + round(1.6 * font_px)
            continue
        draw.text((x, y), word, (30, 30, 40), font)
        boxes.append(box)
        x = math.ceil(box[2]) + font_px // 2
    turn = math.radians(degrees)
    turned = page.rotate(-degrees, Image.Resampling.BICUBIC, fillcolor=(250, 248, 240)) if degrees else page

    def placed(x: float, y: float) -> tuple[float, float]:
        x, y = x - width / 2, y - height / 2
        return (
            width / 2 + x * math.cos(turn) - y * math.sin(turn),
            height / 2 + x * math.sin(turn) + y * math.cos(turn),
        )

    words = []
    for left, top, right, bottom in boxes:
        margin = 0.06 * (bottom - top)
        crop = page.crop(tuple(map(round, (left - margin, top - margin, right + margin, bottom + margin))))
        words.append(Word([placed(*at) for at in ((left, top), (right, top), (right, bottom), (left, bottom))], crop))
    return turned, words


def file_of(picture: Image.Image, format_: str) -> bytes:
    """The picture as an image file."""
    buffer = io.BytesIO()
    picture.save(buffer, format_)
    return buffer.getvalue()


async def cpu_s(ask: Callable[[], Awaitable[httpx.Response]]) -> tuple[float, list[str]]:
    """Processor time of this process while a request is answered, and the texts."""
    started_s = time.process_time()
    answer = await ask()
    took_s = time.process_time() - started_s
    return took_s, [result["text"] for result in answer.raise_for_status().json()["results"]]


async def compare(page: bytes, words: list[Word], rounds: int) -> None:
    """Post page and crops in turns, and print what they take."""
    settings = Settings(lanes=1, tune=False, self_check_interval_s=0)
    runtime = Runtime(settings, load_artifact(settings))
    app = App(runtime)
    regions = json.dumps([{"points": word.points} for word in words])
    crops = [("file", ("crop", file_of(word.crop, "PNG"))) for word in words]
    async with app.api.router.lifespan_context(app.api):
        await runtime.warmed_up()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here", timeout=60) as client:

            def post_page() -> Awaitable[httpx.Response]:
                return client.post("/v1/regions", files={"file": page, "regions": (None, regions)})

            def post_crops() -> Awaitable[httpx.Response]:
                return client.post("/v1/recognize", files=crops)

            taken: list[tuple[float, float]] = []
            for _ in range(rounds + 1):
                page_s, of_page = await cpu_s(post_page)
                crops_s, of_crops = await cpu_s(post_crops)
                taken.append((page_s, crops_s))
    page_s, crops_s = (statistics.median(values) for values in zip(*taken[1:], strict=True))
    same = sum(one == other for one, other in zip(of_page, of_crops, strict=True))
    print(f"page {1000 * page_s:.0f} ms, crops {1000 * crops_s:.0f} ms, ratio {page_s / crops_s:.2f}")
    print(f"{same} of {len(words)} regions read like their crops")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=100)
    parser.add_argument("--dpi", type=int, default=150)
    parser.add_argument("--degrees", type=float, default=0.0, help="by which the page is turned")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    page, words = render(arguments.regions, arguments.dpi, arguments.degrees)
    encoded = file_of(page, "JPEG")
    print(f"{page.width} x {page.height} pixels, {len(encoded)} bytes, {len(words)} regions")
    asyncio.run(compare(encoded, words, arguments.rounds))


if __name__ == "__main__":
    main()
