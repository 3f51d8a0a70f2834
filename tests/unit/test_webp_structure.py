"""A WebP file costs what its pixels do: how many prefix codes its lossless parts ask for is known before it is decoded."""

from __future__ import annotations

import contextlib
import io
import random
import struct

import numpy as np
import pytest
from PIL import Image, ImageDraw

from service import errors
from service.errors import Problem
from service.images.limits import ImageLimits
from service.images.webp import MAX_WEBP_CHUNKS, MAX_WEBP_GROUPS, MAX_WEBP_STREAMS, check_webp_structure
from tests.hostile_images import (
    animation,
    lossless_head,
    lossless_of_groups,
    lossless_webp_of_groups,
    lossy_webp_with_alpha,
    webp,
    webp_header,
)
from tests.images import encode, gradient

MOST_OF_THE_ENCODER = 2600
SIDE = 256
"""Of a square picture of 4,096 blocks."""
BOMB = lossless_of_groups(SIDE + 4, SIDE, MAX_WEBP_GROUPS + 1)
BOMB_SIZE = (SIDE + 4, SIDE)
BOMB_CHUNK = (b"VP8L", lossless_head(*BOMB_SIZE) + BOMB)
SMALL_CHUNK = (b"VP8L", encode(gradient(), "WEBP", lossless=True)[20:])
ANIMATED, ALPHA = 2, 0x10


def groups_of(data: bytes) -> int:
    return check_webp_structure(data, ImageLimits())


def refusal_of(data: bytes) -> str:
    with pytest.raises(Problem) as caught:
        groups_of(data)
    assert caught.value.kind is errors.IMAGE_TOO_COMPLEX
    return str(caught.value.detail)


def decode(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def frame(width: int, height: int, *chunks: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    sizes = b"".join(struct.pack("<I", number)[:3] for number in (0, 0, width - 1, height - 1, 100))
    return b"ANMF", sizes + b"\0" + webp(*chunks)[12:]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


def graphics(width: int, height: int, seed: int = 0) -> Image.Image:
    image, rng = Image.new("RGB", (width, height), "white"), random.Random(seed)
    draw = ImageDraw.Draw(image)
    for _ in range(width * height // 500 + 1):
        x, y = rng.randrange(width), rng.randrange(height)
        draw.rectangle((x, y, x + rng.randrange(40), y + rng.randrange(40)), fill=f"#{rng.randrange(2**24):06x}")
    return image


def transparent(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(gradient(*image.size).convert("L"))
    return image


PICTURES = {
    "noise": noise,
    "graphics": graphics,
    "gradient": gradient,
    "palette": lambda width, height: graphics(width, height).quantize(13),
    "two colours": lambda width, height: graphics(width, height).convert("1").convert("RGB"),
    "one colour": lambda width, height: Image.new("RGB", (width, height), (9, 99, 199)),
    "transparent": lambda width, height: transparent(graphics(width, height)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_ordinary_files_are_accepted(name: str) -> None:
    for index, (width, height) in enumerate([(1, 1), (24, 10), (200, 60), (37, 301)]):
        image = PICTURES[name](width, height)
        for method in range(7):
            data = encode(image, "WEBP", lossless=True, method=method, quality=(0, 50, 75, 100)[(index + method) % 4])
            assert 1 <= groups_of(data) <= MOST_OF_THE_ENCODER
            lossy = groups_of(encode(image, "WEBP", method=method))
            assert lossy == 0 if name != "transparent" or width == 1 else 1 <= lossy <= MOST_OF_THE_ENCODER


@pytest.mark.parametrize("name", ["noise", "graphics", "transparent"])
def test_large_files_of_the_encoder_are_accepted(name: str) -> None:
    data = encode(PICTURES[name](700, 700), "WEBP", lossless=True, method=3, quality=30)
    assert 1 <= groups_of(data) <= MOST_OF_THE_ENCODER


def test_pictures_of_several_groups_are_among_those_of_the_encoder() -> None:
    half = Image.new("RGB", (512, 256))
    half.paste(noise(256, 256))
    half.paste(graphics(256, 256), (256, 0))
    assert groups_of(encode(half, "WEBP", lossless=True, method=4, quality=100)) > 1


@pytest.mark.parametrize("lossless", [False, True])
def test_animations_are_accepted(lossless: bool) -> None:
    assert groups_of(animation("WEBP", 20, lossless=lossless)) == lossless
    frames = [transparent(noise(40, 20, seed)) for seed in range(5)]
    assert groups_of(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=lossless)) >= 1


@pytest.mark.parametrize("n_groups", [1, 2, 300, MAX_WEBP_GROUPS])
def test_groups_are_counted(n_groups: int) -> None:
    data = lossless_webp_of_groups(SIDE, SIDE, n_groups)
    decode(data)
    assert groups_of(data) == n_groups
    alpha = lossy_webp_with_alpha(SIDE, SIDE, lossless_of_groups(SIDE, SIDE, n_groups))
    decode(alpha)
    assert groups_of(alpha) == n_groups


@pytest.mark.parametrize(
    "data",
    [
        webp(BOMB_CHUNK),
        webp(webp_header(*BOMB_SIZE, 0), (b"ICCP", b"odd"), BOMB_CHUNK),
        lossy_webp_with_alpha(*BOMB_SIZE, BOMB),
        webp(webp_header(*BOMB_SIZE, ANIMATED), (b"ANIM", bytes(6)), frame(*BOMB_SIZE, BOMB_CHUNK)),
    ],
    ids=["simple", "extended", "alpha", "frame"],
)
def test_one_group_too_many_is_refused(data: bytes) -> None:
    decode(data)
    assert str(MAX_WEBP_GROUPS) in refusal_of(data)


def test_the_alpha_of_a_frame_is_looked_at() -> None:
    lossy = (b"VP8 ", encode(Image.new("RGB", BOMB_SIZE), "WEBP")[20:])
    first = frame(*BOMB_SIZE, (b"ALPH", b"\1" + BOMB), lossy)
    data = webp(webp_header(*BOMB_SIZE, ANIMATED | ALPHA), (b"ANIM", bytes(6)), first)
    decode(data)
    assert str(MAX_WEBP_GROUPS) in refusal_of(data)


def test_frames_after_the_first_are_not_looked_at() -> None:
    frames = (frame(24, 10, SMALL_CHUNK), frame(*BOMB_SIZE, BOMB_CHUNK))
    data = webp(webp_header(*BOMB_SIZE, ANIMATED), (b"ANIM", bytes(6)), *frames)
    decode(data)
    assert groups_of(data) == 1


def test_the_picture_after_frames_that_do_not_count_is_looked_at() -> None:
    data = webp(webp_header(*BOMB_SIZE, 0), frame(24, 10, SMALL_CHUNK), BOMB_CHUNK)
    assert str(MAX_WEBP_GROUPS) in refusal_of(data)


def test_only_so_many_streams_are_looked_at() -> None:
    data = webp(webp_header(24, 10, 0), *[frame(24, 10, SMALL_CHUNK)] * (MAX_WEBP_STREAMS + 1))
    assert "lossless parts" in refusal_of(data)


def test_chunks_within_frames_are_counted() -> None:
    frames = [frame(24, 10, SMALL_CHUNK)] * (MAX_WEBP_CHUNKS // 2)
    assert "chunks" in refusal_of(webp(webp_header(24, 10, ANIMATED), (b"ANIM", bytes(6)), *frames))
    assert groups_of(webp(webp_header(24, 10, ANIMATED), (b"ANIM", bytes(6)), *frames[:-2])) == 1


def test_a_picture_may_have_more_blocks_where_it_may_have_more_pixels() -> None:
    data = lossless_webp_of_groups(1024, 1024, 5)
    assert "blocks" in refusal_of(data)
    assert check_webp_structure(data, ImageLimits(max_pixels=2**23)) == 5


def test_damaged_files_are_left_to_the_decoder() -> None:
    groups = webp(BOMB_CHUNK)
    for data in (groups[:12], groups[:20], groups[:25], groups[:26], groups[:100], groups[:5000]):
        assert groups_of(data) == 0
    for wrong in (b"\x2e", b"\x2f" + b"\xff" * 4, b"\x2f\0\0\0\0" + b"\xff" * 40, b"\x2f\0\0\0\0" + bytes(40), b""):
        assert groups_of(webp((b"VP8L", wrong))) in (0, 1)
    assert groups_of(lossy_webp_with_alpha(24, 10, b"")) in (0, 1)


def test_a_picture_without_pixels_is_left_to_the_decoder() -> None:
    lossy = bytes(6) + bytes(4)
    assert groups_of(webp(webp_header(24, 10, ALPHA), (b"ALPH", b"\1" + lossless_of_groups(4, 4, 1)), (b"VP8 ", lossy))) <= 1


def test_whatever_the_bits_nothing_but_a_problem_is_raised() -> None:
    rng = random.Random(0)
    sound = [
        encode(picture(60, 40), "WEBP", lossless=True, method=method, quality=100)
        for picture in PICTURES.values()
        for method in (0, 4)
    ]
    sound += [encode(transparent(noise(60, 40)), "WEBP"), animation("WEBP", lossless=True), lossless_webp_of_groups(64, 64, 9)]
    for data in sound:
        for _ in range(40):
            broken = bytearray(data)
            for _ in range(rng.randrange(1, 8)):
                broken[rng.randrange(4, min(len(data), 200))] ^= 1 << rng.randrange(8)
            check(bytes(broken))
            check(data[: rng.randrange(12, len(data))])
    for _ in range(200):
        check(webp((b"VP8L", lossless_head(60, 40) + rng.randbytes(300))))


def check(data: bytes) -> None:
    with contextlib.suppress(Problem):
        assert groups_of(data) <= MAX_WEBP_GROUPS


def test_what_the_decoder_accepts_is_never_called_damaged() -> None:
    rng, accepted = random.Random(1), 0
    for picture in PICTURES.values():
        data = encode(picture(60, 40), "WEBP", lossless=True, quality=100)
        for _ in range(60):
            broken = bytearray(data)
            broken[rng.randrange(25, len(data))] ^= 1 << rng.randrange(8)
            try:
                decode(bytes(broken))
            except (OSError, EOFError):
                continue
            accepted += 1
            assert groups_of(bytes(broken)) >= 1
    assert accepted > 50
