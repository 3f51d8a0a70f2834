"""A contact sheet of crops, for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from model.synth.render import RenderedCrop

_CELL, _CAPTION, _GAP = (192, 48), 14, 4


def draw_sheet(crops: Sequence[RenderedCrop], *, columns: int = 8, dots: bool = False) -> Image.Image:
    """All `crops`, each squeezed to 4:1 as the model sees it, above its text; red dots at the glyph centres."""
    rows = -(-len(crops) // columns)
    step = (_CELL[0] + _GAP, _CELL[1] + _CAPTION + _GAP)
    sheet = Image.new("RGB", (columns * step[0], rows * step[1]), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    for number, crop in enumerate(crops):
        x, y = number % columns * step[0], number // columns * step[1]
        sheet.paste(crop.image.resize(_CELL, Image.Resampling.BICUBIC), (x, y))
        size = f"{crop.image.width}x{crop.image.height}"
        pen.text((x, y + _CELL[1]), f"{crop.text}   {size}", fill="black", font=font)
        if dots:
            _draw_dots(pen, crop, (x, y))
    return sheet


def _draw_dots(pen: ImageDraw.ImageDraw, crop: RenderedCrop, at: tuple[int, int]) -> None:
    for cx, cy in crop.glyph_centers:
        x = at[0] + float(cx) * _CELL[0] / crop.image.width
        y = at[1] + float(cy) * _CELL[1] / crop.image.height
        pen.ellipse([x - 2, y - 2, x + 2, y + 2], fill="red")
