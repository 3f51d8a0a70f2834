"""The regions of a page, as a text detector has found them, from a JSON file: what `POST /v1/regions` takes as `regions`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from artifact.regions import Page, RegionError, corners_of

HEIGHT, WIDTH = 32, 128
"""Pixels of the pictures that most networks take: regions are cut out somewhat larger than that."""


class RegionFileError(ValueError):
    """The file cannot be used; the message says why."""


def load_regions(path: Path) -> list[dict[str, Any]]:
    """The regions that a file lists, as objects with `points` or `box`, and perhaps `id`.

    Raises:
        RegionFileError: There is no such file, or it is no list of objects.
    """
    try:
        regions = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RegionFileError(error.strerror or "cannot be read") from None
    except (ValueError, RecursionError):
        raise RegionFileError("is not JSON") from None
    if not isinstance(regions, list) or not regions or not all(isinstance(region, dict) for region in regions):
        raise RegionFileError('must be a list such as [{"id": "title", "box": [10, 20, 90, 44]}]')
    return regions


def cut_regions(page: Image.Image, regions: list[dict[str, Any]]) -> Iterator[tuple[str, Image.Image | RegionError]]:
    """The id of each region, by default its position, and its picture or why there is none.

    Args:
        page: Upright, RGB.
        regions: As `load_regions` gives them.
    """
    opened = Page(page, HEIGHT, WIDTH)
    for index, region in enumerate(regions):
        id_ = str(region.get("id", index))
        try:
            yield id_, opened.cut(corners_of(region.get("points"), region.get("box")))
        except RegionError as error:
            yield id_, error
        except (TypeError, ValueError):
            yield id_, RegionError("Points are pairs of numbers, and a box is four numbers.")
