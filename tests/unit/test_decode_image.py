from __future__ import annotations

import base64
import contextlib
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from artifact.fit import fit
from service import errors
from service.errors import Kind, Problem
from service.images.decode import QUICK_BYTES, TRANSPOSES, decode_base64, decode_image, may_be_quick
from service.images.limits import FORMATS, ImageLimits
from tests.images import encode, gradient

LIMITS = ImageLimits(max_pixels=10_000)
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {}}


def decoded(data: bytes) -> np.ndarray:
    image = decode_image(data, LIMITS)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def problem_of(data: bytes, limits: ImageLimits = LIMITS) -> Problem:
    with pytest.raises(Problem) as caught:
        decode_image(data, limits)
    return caught.value


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_is_read(format_: str) -> None:
    pixels = decoded(encode(gradient(), format_, **LOSSLESS.get(format_, {})))
    tolerance = 0 if format_ in LOSSLESS else 24
    assert np.abs(pixels - np.asarray(gradient()).astype(int)).max() <= tolerance


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format_: str, orientation: int) -> None:
    upright = gradient()
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    stored = upright if orientation == 1 else upright.transpose(TRANSPOSES[inverse])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = LOSSLESS.get(format_, {"quality": 98, "subsampling": 0})
    pixels = decoded(encode(stored, format_, exif=exif, **options))
    assert np.abs(pixels - np.asarray(upright).astype(int)).max() <= (0 if format_ in LOSSLESS else 12)


def test_broken_exif_means_no_orientation() -> None:
    assert decoded(encode(gradient(), "JPEG", exif=b"Exif\x00\x00garbage")).shape == (10, 24, 3)


def test_transparency_is_laid_on_white_and_opaque_pixels_are_untouched() -> None:
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, :] = (10, 20, 30, 255)
    pixels[1, :] = (0, 0, 0, 0)
    pixels[1, 2] = (0, 0, 0, 128)
    result = decoded(encode(Image.fromarray(pixels), "PNG"))
    assert (result[0] == (10, 20, 30)).all()
    assert (result[1, :2] == 255).all()
    assert (result[1, 2] == 127).all()


def test_light_letters_cut_out_are_laid_on_black() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[3] = (250, 250, 250, 255)
    result = decoded(encode(Image.fromarray(pixels), "PNG"))
    assert (result[3] == 250).all()
    assert (np.delete(result, 3, axis=0) == 0).all()
    # A light sign with a transparent rim is no cut-out: what is opaque has its own ground.
    pixels[1:7] = (250, 250, 250, 255)
    assert (decoded(encode(Image.fromarray(pixels), "PNG"))[0] == 255).all()


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    noise[..., 3] = 255
    image = Image.fromarray(noise)
    assert (decoded(encode(image, "PNG")) == np.asarray(image.convert("RGB"))).all()


def test_transparent_palettes_and_keys_are_laid_on_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.putdata([0, 1])
    for options in ({"transparency": 0}, {"transparency": bytes([0, 255])}):
        assert decoded(encode(palette, "PNG", **options)).tolist() == [[[255] * 3, [9, 8, 7]]]
    assert decoded(encode(palette, "GIF", transparency=0)).tolist() == [[[255] * 3, [9, 8, 7]]]
    keyed = Image.new("RGB", (2, 1), (1, 2, 3))
    keyed.putpixel((1, 0), (9, 8, 7))
    assert decoded(encode(keyed, "PNG", transparency=(1, 2, 3))).tolist() == [[[255] * 3, [9, 8, 7]]]


def test_where_nothing_is_visible_the_colours_underneath_are_read() -> None:
    image = Image.new("RGBA", (2, 1), (5, 6, 7, 0))
    assert decoded(encode(image, "PNG")).tolist() == [[[5, 6, 7]] * 2]


def test_pixels_that_are_not_numbers_are_unreadable() -> None:
    image = Image.fromarray(np.full((4, 4), np.nan, np.float32))
    with pytest.raises(Problem, match="damaged"):
        decoded(encode(image, "TIFF"))


def test_other_modes_become_rgb() -> None:
    gray = gradient().convert("L")
    wanted = np.asarray(gray.convert("RGB")).astype(int)
    assert (decoded(encode(gray, "PNG")) == wanted).all()
    assert (decoded(encode(gray.convert("LA"), "PNG")) == wanted).all()
    bits = gray.point(lambda value: 255 * (value > 90)).convert("1")
    assert (decoded(encode(bits, "PNG")) == np.asarray(bits.convert("RGB"))).all()
    assert (decoded(encode(gradient().quantize(16), "PNG")) == np.asarray(gradient().quantize(16).convert("RGB"))).all()
    cmyk = decoded(encode(gradient().convert("CMYK"), "JPEG", quality=98, subsampling=0))
    assert np.abs(cmyk - np.asarray(gradient()).astype(int)).max() <= 12


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16))
    for format_ in ("PNG", "TIFF"):
        assert decoded(encode(deep, format_))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_other_depths_are_stretched_from_darkest_to_brightest() -> None:
    for values in (np.array([[-5, 0, 5]], np.int32), np.array([[0.0, 0.5, 1.0]], np.float32)):
        assert decoded(encode(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    flat = Image.fromarray(np.full((2, 2), 7, np.int32))
    assert decoded(encode(flat, "TIFF")).shape == (2, 2, 3)


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime")]
    for format_ in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encode(frames[0], format_, save_all=True, append_images=frames[1:], **LOSSLESS.get(format_, {}))
        assert decoded(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes_become_a_crop(size: tuple[int, int]) -> None:
    crop = fit(decode_image(encode(Image.new("RGB", size), "PNG"), LIMITS), 32, 128)
    assert crop.shape == (32, 128, 3)
    assert crop.dtype == np.uint8


def test_too_many_pixels_are_refused_before_decoding() -> None:
    data = encode(Image.new("RGB", (200, 51)), "PNG")
    problem = problem_of(data[:60])  # the header alone: nothing could be decoded
    assert problem.kind is errors.IMAGE_TOO_LARGE
    assert "200 x 51" in problem.detail
    assert "PARSEQ_MAX_IMAGE_PIXELS" in problem.detail


@pytest.mark.parametrize("format_", FORMATS)
def test_truncated_files_are_unreadable(format_: str) -> None:
    data = encode(gradient(96, 96), format_)
    for length in (1, 10, len(data) // 2):
        assert problem_of(data[:length]).kind is errors.UNREADABLE_IMAGE


@pytest.mark.parametrize(
    ("data", "kind", "word"),
    [
        (b"", errors.UNREADABLE_IMAGE, "empty"),
        (b"hello, world", errors.UNREADABLE_IMAGE, "PNG"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(40), errors.UNSUPPORTED_IMAGE_FORMAT, "HEIC"),
        (b"\x00\x00\x00\x18ftypavif" + bytes(40), errors.UNSUPPORTED_IMAGE_FORMAT, "AVIF"),
        (b"%PDF-1.7 ...", errors.UNSUPPORTED_IMAGE_FORMAT, "PDF"),
        (b"\n <svg xmlns='...'/>", errors.UNSUPPORTED_IMAGE_FORMAT, "SVG"),
    ],
)
def test_what_is_not_an_image_is_told_apart(data: bytes, kind: Kind, word: str) -> None:
    problem = problem_of(data)
    assert problem.kind is kind
    assert word in problem.detail


def test_formats_outside_the_list_are_not_opened() -> None:
    assert problem_of(encode(gradient(), "PPM")).kind is errors.UNREADABLE_IMAGE
    assert problem_of(encode(gradient(), "ICO")).kind is errors.UNSUPPORTED_IMAGE_FORMAT


@settings(max_examples=150, deadline=None)
@given(format_=st.sampled_from(FORMATS), edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12))
def test_damaged_files_give_an_image_or_a_problem(format_: str, edits: list[tuple[float, int]]) -> None:
    data = bytearray(encode(gradient(), format_))
    for position, value in edits:
        data[int(position * (len(data) - 1))] = value
    with contextlib.suppress(Problem):  # anything else that is raised fails the test
        assert decode_image(bytes(data), LIMITS).mode == "RGB"


def test_base64_is_read_in_the_forms_people_send() -> None:
    data = bytes(range(256)) + b"\xfb\xff"
    plain = base64.b64encode(data).decode()
    wrapped = base64.encodebytes(data).decode()
    url_safe = base64.urlsafe_b64encode(data).decode().rstrip("=")
    escaped = plain.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    urls = [f"{scheme}image/png;base64,{text}" for scheme in ("data:", " DATA:", "\r\nData:") for text in (plain, escaped)]
    for text in (plain, wrapped, url_safe, *urls):
        assert decode_base64(text) == data


@pytest.mark.parametrize("text", ["***", "a", "ä" * 8, "====x"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        decode_base64(text)
    assert caught.value.kind is errors.INVALID_BASE64


def test_small_jpeg_and_png_files_without_tricks_may_be_quick() -> None:
    comment = PngInfo()
    comment.add_text("comment", "x" * 1000)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert may_be_quick(encode(gradient(), "PNG"))
    assert may_be_quick(encode(gradient().quantize(16), "PNG", transparency=0, pnginfo=comment))
    assert may_be_quick(encode(gradient(), "JPEG"))
    assert may_be_quick(encode(gradient().convert("L"), "JPEG", exif=exif, icc_profile=bytes(500)))


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file with more chunks before its pixels."""
    data = encode(gradient(), "PNG")
    more = [struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks]
    return data[:33] + b"".join(more) + data[33:]


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    """A JPEG file with more segments before its pixels."""
    data = encode(gradient(), "JPEG")
    more = [struct.pack(">HH", marker, len(body) + 2) + body for marker, body in segments]
    return data[:2] + b"".join(more) + data[2:]


@pytest.mark.parametrize(
    "data",
    [
        encode(gradient(), "WEBP"),
        encode(gradient(), "PNG") + bytes(QUICK_BYTES),
        encode(gradient(), "PNG")[:40],
        png_with((b"zTXt", b"k\0\0" + zlib.compress(bytes(1000)))),
        png_with((b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(1000)))),
        png_with((b"iCCP", b"k\0\0" + zlib.compress(bytes(1000)))),
        png_with((b"eXIf", b"MM\0*\0\0\0\x08\0\0")),
        png_with(*[(b"tEXt", b"k\0v")] * 50),
        encode(gradient(), "JPEG", progressive=True),
        encode(gradient(), "JPEG")[:40],
        jpeg_with((0xFFE1, b"Exif\0\0" + bytes(2000))),
        jpeg_with(*[(0xFFFE, b"comment")] * 50),
    ],
)
def test_what_may_take_long_is_not_quick(data: bytes) -> None:
    assert not may_be_quick(data)
    with contextlib.suppress(Problem):
        decode_image(data, LIMITS)
