"""Every odd or hostile file has the answer that docs/api.md gives, and none costs much."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import GifImagePlugin, Image, ImageFile, PngImagePlugin

from artifact.fit import fit
from service import errors
from service.config import DEFAULT_MAX_IMAGE_PIXELS
from service.errors import Problem
from service.images import decode as module
from service.images import tiff as tiff_structure
from service.images.decode import decode_image
from service.images.jpeg import MAX_FULL_SCANS, SEARCH_BYTES
from service.images.limits import FORMATS, ImageLimits
from service.images.structure import format_of
from service.images.tags import MAX_EXIF_BYTES
from tests.hostile_images import (
    LARGEST,
    READ,
    REFUSED,
    animation,
    arithmetic_jpeg,
    bmp,
    chunk,
    exif_as_text,
    exif_of,
    gif_claiming,
    gif_of_a_large_frame,
    gray_tiff,
    ifd_of_shared_bytes,
    jpeg_with,
    loud_tiff,
    png,
    scan_bomb,
    segment,
    tiff,
    tiff_of_a_high_strip,
    tiff_of_jpeg,
    tiff_of_one_tile,
    tiff_of_shared_strips,
    tiff_of_wide_tiles,
    webp_claiming,
)
from tests.images import encode, gradient
from tests.yardstick import costs_little

# As in the service, where Pillow's remarks about odd files are nobody's; for pytest all warnings are errors.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

MAX_GROWTH_KIB = 100 * 1024
MIN_GROWTH_KIB = 1024
"""Less would say that nothing was measured."""
MEASURE = """
import os, resource, sys
from service.images.decode import decode_image
from service.images.limits import ImageLimits
from artifact.fit import fit
from tests.images import encode, gradient
fit(decode_image(encode(gradient(), "PNG"), ImageLimits()), 32, 128)
for path in sys.argv[1:]:
    if not os.fork():
        data = open(path, "rb").read()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fit(decode_image(data, ImageLimits()), 32, 128)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""
"""Each file in a process of its own, forked from one that has imported what is needed and decoded nothing large."""


def problem_of(data: bytes, **limits: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        decode_image(data, ImageLimits(**limits))
    return caught.value


@pytest.mark.parametrize("name", READ)
def test_odd_images_are_read(name: str) -> None:
    data, started_s = READ[name](), time.process_time()
    crop = fit(decode_image(data, ImageLimits()), 32, 128)
    assert crop.shape == (32, 128, 3)
    assert costs_little(started_s)


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_images_are_refused_for_little(name: str) -> None:
    make, kind = REFUSED[name]
    data, started_s = make(), time.process_time()
    problem = problem_of(data)
    assert problem.kind is kind, problem.detail
    assert costs_little(started_s)


@pytest.mark.parametrize("name", [name for name, (_, kind) in REFUSED.items() if kind is errors.IMAGE_TOO_COMPLEX])
def test_no_decoder_sees_a_file_of_too_many_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_args, **_options: pytest.fail("opened"))
    assert problem_of(REFUSED[name][0]()).kind is errors.IMAGE_TOO_COMPLEX


def test_the_largest_accepted_files_take_bounded_memory(tmp_path: Path) -> None:
    names = ["rgba.png", "rgba.webp", "groups.webp", "rgba.tiff", "strips.tiff"]
    for name in names:
        (tmp_path / name).write_bytes(LARGEST[name]())
    command = [sys.executable, "-c", MEASURE, *(str(tmp_path / name) for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    growth_kib = dict(zip(names, map(int, done.stdout.split()), strict=True))
    assert max(growth_kib.values()) < MAX_GROWTH_KIB, growth_kib
    assert min(growth_kib.values()) > MIN_GROWTH_KIB, growth_kib


def test_frames_after_the_first_are_never_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    seek = GifImagePlugin.GifImageFile._seek

    def first_only(self: Any, frame: int, *args: Any) -> None:
        assert frame == 0
        seek(self, frame, *args)

    monkeypatch.setattr(GifImagePlugin.GifImageFile, "_seek", first_only)
    assert decode_image(animation("GIF", 2000), ImageLimits()).size == (16, 8)


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames_can_be_refused(format_: str) -> None:
    problem = problem_of(animation(format_), refuse_several_frames=True)
    assert problem.kind is errors.SEVERAL_FRAMES
    assert "PARSEQ_SEVERAL_FRAMES" in problem.detail
    assert decode_image(encode(gradient(), format_), ImageLimits(refuse_several_frames=True)).size == (24, 10)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_format_that_is_not_allowed_is_not_opened(format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_args, **_options: pytest.fail("opened"))
    others = tuple(other for other in FORMATS if other != format_)
    problem = problem_of(encode(gradient(), format_), formats=others)
    assert problem.kind is errors.UNSUPPORTED_IMAGE_FORMAT
    assert "PARSEQ_IMAGE_FORMATS" in problem.detail


def test_every_limit_has_its_setting_in_the_refusal() -> None:
    data = encode(gradient(), "PNG")
    for limits, setting in (
        ({"max_bytes": len(data) - 1}, "PARSEQ_MAX_IMAGE_BYTES"),
        ({"max_pixels": 239}, "PARSEQ_MAX_IMAGE_PIXELS"),
        ({"max_side": 23}, "PARSEQ_MAX_IMAGE_SIDE_PIXELS"),
    ):
        problem = problem_of(data, **limits)
        assert (problem.kind.status, setting in problem.detail) == (413, True), problem.detail
    exact = ImageLimits(max_bytes=len(data), max_pixels=240, max_side=24)
    assert decode_image(data, exact).size == (24, 10)


def test_a_limit_above_the_default_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", DEFAULT_MAX_IMAGE_PIXELS)
    side = 3 * int(DEFAULT_MAX_IMAGE_PIXELS**0.5)
    data = encode(Image.new("1", (side, side)), "PNG")
    assert problem_of(data).kind is errors.IMAGE_TOO_LARGE
    assert decode_image(data, ImageLimits(max_pixels=side * side)).size == (side, side)


def test_no_picture_of_the_size_of_a_large_frame_is_allotted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = gif_of_a_large_frame(65_535, 65_535)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", DEFAULT_MAX_IMAGE_PIXELS)  # other tests may have raised it
    monkeypatch.setattr(Image.core, "fill", lambda *_args: pytest.fail("allotted"))
    assert "PARSEQ_MAX_IMAGE_PIXELS" in problem_of(data).detail


@pytest.mark.parametrize(
    "data",
    [
        arithmetic_jpeg(5000, 3000, 0xFFC0),
        tiff_of_jpeg(arithmetic_jpeg(5000, 3000, 0xFFC2), 64),
        png(5000, 3000),
        webp_claiming(5000, 3000),
        bmp(5000, 3000, b""),
        b"BM" + bytes(12) + b"\x0c\0\0\0\x88\x13\xb8\x0b\1\0\x18\0" + bytes(99),
        gif_claiming(5000, 3000),
        gif_of_a_large_frame(5000, 3000),
        gray_tiff(5000, 3000, b""),
    ],
    ids=lambda data: str(format_of(data)),
)
def test_a_refusal_for_the_size_tells_it_in_every_format(data: bytes) -> None:
    problem = problem_of(data)
    assert problem.kind is errors.IMAGE_TOO_LARGE
    assert "is 5000 x 3000 pixels" in problem.detail


@pytest.mark.parametrize("side", [64, 512])
def test_a_jpeg_file_may_have_more_scans_the_smaller_it_is(side: int) -> None:
    limits = ImageLimits(max_pixels=256 * 256)
    n_scans = 30
    assert n_scans > MAX_FULL_SCANS
    for data in (scan_bomb(n_scans, side), tiff_of_jpeg(scan_bomb(n_scans, side), side)):
        if side == 64:
            assert decode_image(data, limits).size == (side, side)
        else:
            assert problem_of(data, max_pixels=side * side).kind is errors.IMAGE_TOO_COMPLEX


def test_the_first_scan_is_found_wherever_it_begins_and_the_next_behind_many_pixels() -> None:
    data = scan_bomb(MAX_FULL_SCANS, 16)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2) - 40
    for n_bytes in (SEARCH_BYTES - 30, SEARCH_BYTES - 1, SEARCH_BYTES, 3 * SEARCH_BYTES):
        for shift in range(3):
            # What is left of a scan when its pixels are complete is passed over.
            long = data[:second] + data[second : second + 10] + bytes(n_bytes + shift) + data[second + 10 :]
            assert problem_of(long, max_pixels=256).kind is errors.IMAGE_TOO_COMPLEX


def test_arithmetic_coding_is_named() -> None:
    assert "Huffman" in problem_of(arithmetic_jpeg(24, 10)).detail


def test_scans_of_all_strips_count_together() -> None:
    strip = encode(Image.new("L", (64, 16)), "JPEG", progressive=True)

    def striped(n_strips: int) -> bytes:
        body = strip * n_strips
        places = b"".join(struct.pack("<I", 8 + index * len(strip)) for index in range(n_strips))
        sizes = struct.pack("<I", len(strip)) * n_strips
        tags = (273, 4, n_strips, 8 + len(body)), (278, 4, 1, 16), (279, 4, n_strips, 8 + len(body + places))
        return gray_tiff(64, 16 * n_strips, body + places + sizes, *tags, compression=7)

    assert decode_image(striped(4), ImageLimits(max_pixels=64 * 64)).size == (64, 64)
    strip = strip[:-2] + strip[strip.rfind(b"\xff\xda") : -2] * (MAX_FULL_SCANS - 2) + strip[-2:]
    assert problem_of(striped(4), max_pixels=64 * 64).kind is errors.IMAGE_TOO_COMPLEX


@pytest.mark.parametrize("exif", [ifd_of_shared_bytes(400, 60_000), exif_of(65_000)], ids=["shared", "many"])
@pytest.mark.parametrize("format_", ["PNG", "text", "WEBP", "JPEG"])
def test_tags_that_cost_much_are_not_parsed_in_any_format(exif: bytes, format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {
        "PNG": lambda: png(24, 10, chunk(b"eXIf", exif)),
        "text": lambda: exif_as_text(exif),
        "WEBP": lambda: encode(gradient(), "WEBP", exif=exif),
        "JPEG": lambda: jpeg_with(segment(0xFFE1, b"Exif\0\0" + exif)),
    }[format_]()
    monkeypatch.setattr(Image.Exif, "load", lambda *_args: pytest.fail("parsed"))
    assert problem_of(data).kind is errors.IMAGE_TOO_COMPLEX


def test_exif_in_a_text_is_applied_or_too_long_to_be_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode_image(READ["exif-as-text.png"](), ImageLimits()).size == (10, 24)
    monkeypatch.setattr(Image.Exif, "load", lambda *_args: pytest.fail("parsed"))
    assert decode_image(exif_as_text(exif_of(MAX_EXIF_BYTES + 1)), ImageLimits()).size == (24, 10)


@pytest.mark.parametrize("compression", [2, 3, 4, 5, 7, 8, 32773, 32946])
@pytest.mark.parametrize("packed", [b"\xaa" * 8, b"\0" * 100, bytes(range(256)) * 8, b"\xff\xd8\xff\xd9", b"\x78\x9c\xff"])
def test_no_decoder_writes_to_standard_error(compression: int, packed: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    for height in (64, 16_384):
        with contextlib.suppress(Problem):
            decode_image(loud_tiff(compression, packed, height=height), ImageLimits())
    assert capfd.readouterr().err == ""


def test_pillow_says_nothing_either(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    samples = (277, 4, 1, 2**28)
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), samples, (273, 4, 1, 8)]
    problem_of(tiff(tags, bytes(64)))
    assert (capfd.readouterr().err, caplog.text) == ("", "")


def test_where_libtiff_cannot_be_silenced_it_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_structure.ctypes, "CDLL", lambda _path: object())
    assert not tiff_structure._silence_libtiff()
    monkeypatch.setattr(tiff_structure, "LIBTIFF_IS_SILENT", False)
    assert problem_of(encode(gradient(), "TIFF", compression="tiff_lzw")).kind is errors.UNSUPPORTED_IMAGE_FORMAT
    assert decode_image(encode(gradient(), "TIFF"), ImageLimits()).size == (24, 10)


def test_base64_is_measured_before_it_is_decoded() -> None:
    limits = ImageLimits(max_bytes=1000)
    limits.check_base64(1500)
    with pytest.raises(Problem, match="PARSEQ_MAX_IMAGE_BYTES"):
        limits.check_base64(4000)


def test_a_tile_far_larger_than_its_image_is_measured() -> None:
    assert problem_of(tiff_of_one_tile(64), max_pixels=64 * 63).kind is errors.IMAGE_TOO_LARGE


@pytest.mark.parametrize(
    "layout",
    [
        {"n_strips": 500},
        {"n_strips": 500, "offsets_tag": 324},
        {"n_strips": 500, "n_offsets": 1},
        {"n_strips": 3, "sizes_type": 3},
        {"n_strips": 500, "sizes_type": 16},
    ],
)
def test_strips_that_share_their_bytes_are_found_however_they_are_written(layout: dict[str, int]) -> None:
    problem = problem_of(tiff_of_shared_strips(**layout))
    assert problem.kind is errors.IMAGE_TOO_COMPLEX
    assert "share their bytes" in problem.detail


def test_high_tiles_and_strips_of_few_pixels_are_read() -> None:
    assert decode_image(tiff_of_wide_tiles(4), ImageLimits()).size == (64, 1)
    assert decode_image(tiff_of_a_high_strip(16), ImageLimits()).size == (2048, 1)


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), OSError(), SystemError("from C"), ValueError()])
def test_whatever_a_decoder_raises_is_the_fault_of_its_image(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(module.Image, "open", fail)
    assert problem_of(encode(gradient(), "PNG")).kind is errors.UNREADABLE_IMAGE


def test_the_decoder_runs_as_it_is_meant_to() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert PngImagePlugin.MAX_TEXT_CHUNK <= 2**20
    assert PngImagePlugin.MAX_TEXT_MEMORY == 2**22
