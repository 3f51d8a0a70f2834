"""Training, evaluation, export and service show a network the same pixels: there is one `fit`."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from artifact.fit import fit, fit_for, fit_padded
from artifact.metadata import PadSide
from model.data.pictures import as_stored
from model.data.pictures import decode_image as decode_for_training
from service.images.decode import decode_image
from service.images.limits import ImageLimits
from tests.toy_artifact import METADATA


@pytest.mark.parametrize("size", [(1, 1), (7, 90), (128, 32), (400, 50), (1, 500), (333, 1)])
@pytest.mark.parametrize("img_size", [(32, 128), (224, 224), (48, 64)])
def test_service_and_training_show_the_same_pixels(size: tuple[int, int], img_size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size[0] * 1000 + size[1])
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(file, "PNG")
    served = fit(decode_image(file.getvalue(), ImageLimits()), *img_size)
    trained = fit(as_stored(decode_for_training(file.getvalue())), *img_size)
    assert served.shape == (*img_size, 3)
    assert np.array_equal(served, trained)


def test_other_modes_are_shown_as_rgb() -> None:
    grey = Image.fromarray(np.arange(128 * 32, dtype=np.uint16).reshape(32, 128).astype(np.uint8))
    pixels = fit(grey, 32, 128)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.stack([np.asarray(grey)] * 3, -1))


BLUE = (0, 0, 200)


def plain(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (250, 10, 20))


@pytest.mark.parametrize(
    ("width", "height", "side", "filled"),
    [
        (16, 4, "end", (slice(0, 4), slice(0, 16))),  # as it is
        (6, 4, "end", (slice(0, 4), slice(0, 6))),  # narrow
        (6, 4, "both", (slice(0, 4), slice(5, 11))),
        (3, 2, "both", (slice(0, 4), slice(5, 11))),  # made larger
        (5, 4, "both", (slice(0, 4), slice(5, 10))),  # an odd pixel at the end
        (32, 4, "end", (slice(0, 2), slice(0, 16))),  # wide
        (32, 4, "both", (slice(1, 3), slice(0, 16))),
        (1000, 1, "both", (slice(1, 2), slice(0, 16))),  # a pixel of it stays
        (1, 1000, "end", (slice(0, 4), slice(0, 1))),
    ],
)
def test_padding_keeps_the_aspect_ratio(width: int, height: int, side: PadSide, filled: tuple[slice, slice]) -> None:
    pixels = fit_padded(plain(width, height), 4, 16, BLUE, side)
    wanted = np.full((4, 16, 3), BLUE, np.uint8)
    wanted[filled] = (250, 10, 20)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, wanted)


def test_an_artifact_says_how_pictures_come_to_its_size() -> None:
    # A ramp whose halved pixels are known: each is the mean of two, and bicubic weights reach further than bilinear ones.
    ramp = Image.fromarray(np.repeat(np.array([[0, 0, 0, 0, 240, 240, 240, 240]], np.uint8), 2, 0))
    small = replace(METADATA, image_height=1, image_width=4)
    bilinear = fit_for(replace(small, resample="bilinear"), ramp)[0, :, 0]
    assert bilinear.tolist() == [0, 30, 210, 240]
    bicubic = fit_for(small, ramp)[0, :, 0]
    assert bicubic.tolist() == fit(ramp, 1, 4)[0, :, 0].tolist() != bilinear.tolist()
    padded = replace(METADATA, image_height=2, image_width=10, fit="pad", pad_value=BLUE, pad_side="end", resample="bilinear")
    assert fit_for(padded, ramp)[:, :, 2].tolist() == [[0, 0, 0, 0, 240, 240, 240, 240, 200, 200]] * 2
