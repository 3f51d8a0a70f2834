"""Crops to read and to train on: small image files, and LMDB archives of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from model.data.crops import CropArrays


def png(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (colour, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def picture(index: int, size: tuple[int, int] = (60, 24)) -> bytes:
    pixels = np.random.default_rng(index).integers(0, 255, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_lmdb(folder: Path, samples: list[tuple[bytes, str]], count: int | None = None) -> Path:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 22) as archive, archive.begin(write=True) as transaction:
        transaction.put(b"num-samples", str(len(samples) if count is None else count).encode())
        for index, (image, label) in enumerate(samples, start=1):
            transaction.put(b"image-%09d" % index, image)
            transaction.put(b"label-%09d" % index, label.encode())
    return folder


def crops(size: int, first: int = 0) -> CropArrays:
    from model.data.crops import CropArrays  # late: it needs torch, and those who only write archives do not

    images = np.arange(first, first + size, dtype=np.uint8)[:, None, None, None].repeat(3, -1)
    return CropArrays(images, [str(first + i) for i in range(size)], np.zeros((size, 25, 2), np.float16))


def put(folder: Path, **values: bytes | None) -> Path:
    """Set or delete keys of an archive, `_` for `-`."""
    with lmdb.open(str(folder), map_size=1 << 22) as archive, archive.begin(write=True) as transaction:
        for name, value in values.items():
            key = name.replace("_", "-").encode()
            if value is None:
                transaction.delete(key)
            else:
                transaction.put(key, value)
    return folder
