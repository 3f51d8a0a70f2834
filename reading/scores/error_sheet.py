"""A picture of the worst mistakes: crops that were read wrong with the most confidence."""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

COLUMNS: Final = 4
CROP_PX: Final = (220, 64)
CELL_PX: Final = (240, 128)
FONT_PX: Final = 14
MAX_CHARACTERS: Final = 24
INK, RED, PAPER = (20, 20, 20), (190, 0, 0), (255, 255, 255)


class WorstMistakes:
    """Keeps the wrong readings of the highest confidence, only a few of them."""

    def __init__(self, limit: int) -> None:
        """Keep `limit` of them."""
        self.limit = limit
        self._heap: list[tuple[float, int, Image.Image, str, str, str]] = []
        self._seen = 0

    def add(self, confidence: float, picture: Image.Image, label: str, text: str, dataset: str) -> None:
        """Note a crop that was read wrong."""
        self._seen += 1
        if self.limit < 1 or (len(self._heap) == self.limit and confidence <= self._heap[0][0]):
            return
        # The number breaks ties, so that pictures are never compared.
        entry = (confidence, -self._seen, _fitted(picture), label, text, dataset)
        if len(self._heap) < self.limit:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heapreplace(self._heap, entry)

    def rows(self) -> list[tuple[float, str, str, str]]:
        """Confidence, label, reading and data set, the most confident first."""
        return [(entry[0], *entry[3:]) for entry in sorted(self._heap, reverse=True)]

    def draw(self, path: Path) -> None:
        """Draw the mistakes to a PNG file, the most confident first."""
        worst = sorted(self._heap, reverse=True)
        lines = max(1, -(-len(worst) // COLUMNS))
        sheet = Image.new("RGB", (COLUMNS * CELL_PX[0], lines * CELL_PX[1]), PAPER)
        pen, font = ImageDraw.Draw(sheet), _font()
        if not worst:
            pen.text((10, 10), "no mistakes", INK, font)
        for number, (confidence, _, picture, label, text, dataset) in enumerate(worst):
            left, top = 10 + number % COLUMNS * CELL_PX[0], 6 + number // COLUMNS * CELL_PX[1]
            sheet.paste(picture, (left, top))
            below = top + CROP_PX[1] + 2
            pen.text((left, below), f"label {_cut(label)}", INK, font)
            pen.text((left, below + 17), f"read  {_cut(text)}", RED, font)
            pen.text((left, below + 34), f"{confidence:.3f}  {_cut(dataset)}", INK, font)
        sheet.save(path, "PNG")


def _fitted(picture: Image.Image) -> Image.Image:
    """The picture scaled to the cell, with its aspect ratio kept."""
    scale = min(CROP_PX[0] / picture.width, CROP_PX[1] / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _cut(text: str) -> str:
    shown = text.replace("\n", " ") or "(nothing)"
    return shown if len(shown) <= MAX_CHARACTERS else f"{shown[: MAX_CHARACTERS - 3]}..."


def _font() -> ImageFont.FreeTypeFont:
    """Matplotlib's font, which has more alphabets than Pillow's."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"), FONT_PX)
