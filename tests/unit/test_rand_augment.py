from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from model.augmentation.rand_augment import COLOUR, GEOMETRIC, OPERATIONS, RandAugment, move

UNKNOWN = np.full((25, 2), np.nan, np.float16)


def crop(size: tuple[int, int] = (100, 32)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8))


def test_the_operations_are_those_of_the_reference() -> None:
    assert len(OPERATIONS) == 16
    assert not [name for name in OPERATIONS if "sharp" in name or "cut" in name]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_alters_a_crop(name: str) -> None:
    image, rng = crop().point(lambda value: 30 + value // 2), np.random.default_rng(0)
    if name in COLOUR:
        altered = COLOUR[name](image, 0.5, rng)
        assert altered.size == image.size
    else:
        affine, canvas = GEOMETRIC[name](image.size, 0.5, rng)
        altered, _ = move(image, UNKNOWN, affine, canvas, rng)
    assert altered.mode == "RGB"
    assert altered.tobytes() != image.tobytes()


@pytest.mark.parametrize("name", GEOMETRIC)
def test_centres_move_with_the_pixels(name: str) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        image = Image.new("RGB", (120, 40))
        ImageDraw.Draw(image).ellipse((66, 14, 74, 22), "white")
        centers = UNKNOWN.copy()
        centers[0] = [70.5 / 120, 18.5 / 40]
        affine, canvas = GEOMETRIC[name](image.size, 0.5, rng)
        moved, found = move(image, centers, affine, canvas, rng)
        seen = np.asarray(moved.convert("L")).astype(float)
        # What the operation uncovers is grey.
        seen[seen < 200] = 0
        y, x = np.indices(seen.shape)
        expected = np.array([(seen * (x + 0.5)).sum(), (seen * (y + 0.5)).sum()]) / seen.sum() / moved.size
        assert found[0] == pytest.approx(expected, abs=0.02)
        assert np.isnan(found[1:]).all()


def test_a_rotated_crop_keeps_its_corners() -> None:
    affine, canvas = GEOMETRIC["rotate"]((100, 20), 0.5, np.random.default_rng(0))
    corners = np.array([[0, 0], [100, 0], [0, 20], [100, 20]])
    seen = np.linalg.solve(affine[:, :2], (corners - affine[:, 2]).T).T
    assert (seen > -1e-6).all()
    assert (seen <= canvas).all()


def test_a_seed_decides() -> None:
    augment = RandAugment()

    def draw(seed: int) -> bytes:
        return augment(crop(), UNKNOWN, np.random.default_rng([seed, 1]))[0].tobytes()

    assert draw(3) == draw(3)
    assert len({draw(seed) for seed in range(20)}) > 10


def test_no_more_than_three_operations_each_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def noting(name: str, result: Callable[[Any], Any]) -> Callable[..., Any]:
        def operate(first: Any, *_: object) -> Any:
            done.append(name)
            return result(first)

        return operate

    for name in COLOUR:
        monkeypatch.setitem(COLOUR, name, noting(name, lambda image: image))
    for name in GEOMETRIC:
        monkeypatch.setitem(GEOMETRIC, name, noting(name, lambda size: (np.eye(2, 3), size)))
    counts, augment = [], RandAugment()
    for seed in range(400):
        done.clear()
        augment(crop((8, 8)), UNKNOWN, np.random.default_rng(seed))
        assert len(set(done)) == len(done)
        counts.append(len(done))
    assert max(counts) == 3
    assert np.mean(counts) == pytest.approx(1.5, abs=0.15)


@pytest.mark.parametrize("size", [(1, 1), (3, 60), (400, 2)])
def test_odd_crops_survive(size: tuple[int, int]) -> None:
    for seed in range(30):
        altered, _ = RandAugment()(crop(size), UNKNOWN, np.random.default_rng(seed))
        assert min(altered.size) > 0
