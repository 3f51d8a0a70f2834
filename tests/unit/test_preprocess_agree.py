"""Training and serving must show the network the same pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from model.preprocess import resize
from service.preprocess import to_crop


@pytest.mark.parametrize("size", [(1, 1), (7, 90), (128, 32), (400, 50), (1, 500), (333, 1)])
@pytest.mark.parametrize("img_size", [(32, 128), (224, 224), (48, 64)])
def test_service_and_training_resize_alike(size: tuple[int, int], img_size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size[0] * 1000 + size[1])
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    served = to_crop(image, *img_size)
    assert served.shape == (*img_size, 3)
    assert np.array_equal(served, resize(image, img_size))
