"""Training, evaluation, export and service show a network the same pixels: there is one `fit`."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from artifact.fit import fit
from model.data.pictures import as_stored
from model.data.pictures import decode_image as decode_for_training
from service.images.decode import decode_image
from service.images.limits import ImageLimits


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
