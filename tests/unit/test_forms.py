"""What is an image of a form and what is not: nothing that was sent may be lost without a word."""

from __future__ import annotations

import base64
import json
import struct
import time
import zlib
from typing import Any

import httpx
import pytest

from service import errors
from service.errors import Kind
from service.http.bodies.content_disposition import Disposition, parse_disposition
from service.http.bodies.form_parts import MAX_TEXT_BYTES
from service.http.bodies.media_types import BINARY_TYPES
from service.http.bodies.multipart import MAX_TEXT_AROUND_BYTES, PIECE_BYTES
from tests.fakes import request, toy_runtime
from tests.images import encode, gradient
from tests.toy_artifact import png_of
from tests.yardstick import costs_little

FORM = {"content-type": "multipart/form-data; boundary=XbX"}
FILE = 'Content-Disposition: form-data; name="f"; filename="a.png"'
NAME = 'Content-Disposition: form-data; name="f"'
CLOSE = b"--XbX--\r\n"
BASE64 = base64.b64encode(png_of("b"))


def part(head: str, content: bytes) -> bytes:
    return b"--XbX\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def post(body: bytes, **settings: Any) -> httpx.Response:
    return request(toy_runtime(**settings), "POST", "/v1/recognize", content=body, headers=FORM)


def texts(response: httpx.Response) -> list[tuple[str | None, Any]]:
    """Id and text, or the slug of the problem, of each result."""
    answer = response.json()
    results = answer.get("results", [answer])
    return [
        (result.get("id"), result["text"] if "text" in result else result["error"]["type"].rpartition(":")[2])
        for result in results
    ]


def expect(response: httpx.Response, kind: Kind, *words: str) -> None:
    assert (response.json()["type"], response.status_code) == (kind.type, kind.status), response.text
    for word in words:
        assert word in response.json()["detail"]


IMAGE_PARTS = [
    f"{NAME}\r\nContent-Type: image/png",
    f"{NAME}\r\nContent-Type: IMAGE/X-ANYTHING; q=1",
    *(f"{NAME}\r\nContent-Type: {media_type}" for media_type in BINARY_TYPES),
    NAME,
    f"{NAME}\r\nContent-Type: text/plain; charset=utf-8",
    f"{NAME}\r\nContent-Type: application/json",
    f"{NAME}\r\nContent-Transfer-Encoding: binary",
    'Content-Disposition: form-data; name="f"; filename=""',
    "Content-Type: image/png",
    "X-Nothing: else",
]


FOLDED_HEADS = [
    'Content-Disposition: form-data;\r\n filename="b.png"\r\nContent-Type: image/png',
    'Content-Disposition: form-data;\r\n\tname="f";\r\n   filename="b.png"\r\nContent-Type:\r\n image/png',
    'Content-Type: image/png;\r\n name=x\r\nContent-Disposition: form-data; filename="b.png"',
]


@pytest.mark.parametrize("head", FOLDED_HEADS)
def test_headers_of_a_part_may_go_on_in_the_next_line(head: str) -> None:
    """As libraries for e-mail write them; wherever in the body the line ends, and whatever the image holds."""
    fold = part(head, b"").index(b"\r\n", 9)
    for lies_at in (400, PIECE_BYTES - 2, PIECE_BYTES - 1, PIECE_BYTES):
        before = png_of("a") + b"\r\n x\r\n\r\n\r\n\t"
        before += bytes(lies_at - fold - len(part(FILE, before)))
        assert texts(post(part(FILE, before) + part(head, png_of("b")) + CLOSE)) == [("a.png", "a"), ("b.png", "b")]


@pytest.mark.parametrize("head", [b"", b"Content-Type: image/png\r\n"])
def test_what_looks_like_a_folded_line_in_an_image_stays(head: bytes) -> None:
    signature, rest = png_of("b")[:33], png_of("b")[33:]  # with the first chunk
    text = b"tEXt" + b"Comment\0a\r\n b\r\n\r\n c"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    content = signature + chunk + rest
    assert texts(post(b"--XbX\r\n" + head + b"\r\n" + content + b"\r\n" + CLOSE)) == [(None, "b")]


@pytest.mark.parametrize("head", IMAGE_PARTS)
def test_an_image_without_a_filename_is_an_image(head: str) -> None:
    alone = post(part(head, png_of("b")) + CLOSE)
    assert texts(alone) == [(None, "b")]
    mixed = post(part(FILE, png_of("a")) + part(head, png_of("b")) + part(head, png_of("c")) + CLOSE)
    assert texts(mixed) == [("a.png", "a"), ("1", "b"), ("2", "c")]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_format_is_known_by_its_bytes(format_: str) -> None:
    whole = encode(gradient(), format_)
    for content in (whole, whole[:200], base64.b64encode(whole), base64.urlsafe_b64encode(whole).rstrip(b"=")):
        answer = post(part(FILE, png_of("a")) + part(NAME.replace('"f"', '"g"'), content) + CLOSE).json()
        assert len(answer["results"]) == 2


@pytest.mark.parametrize(
    ("content", "slug"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported-image-format"),
        (b"%PDF-1.7 \n", "unsupported-image-format"),
        (b"  <svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported-image-format"),
        (b'<?xml version="1.0"?>\n<!-- x -->\n<!DOCTYPE svg>\n<svg/>', "unsupported-image-format"),
        (b"\x01\x02 no image at all", "unreadable-image"),
        (png_of("b")[20:], "unreadable-image"),
        (base64.b64encode(b"\0\0\0\x18ftypavif\0\0\0\0mif1miafMA1B"), "unsupported-image-format"),
        (b"data:image/png;base64," + BASE64[:40] + b"***", "invalid-base64"),
        (BASE64 + b"," + BASE64, "invalid-base64"),
    ],
)
def test_what_is_like_an_image_fails_rather_than_vanishes(content: bytes, slug: str) -> None:
    name = NAME.replace('"f"', '"g"')
    assert texts(post(part(FILE, png_of("a")) + part(name, content) + CLOSE)) == [("a.png", "a"), ("1", slug)]
    assert post(part(name, content) + CLOSE).json()["type"].endswith(slug)


def test_an_empty_image_is_told() -> None:
    assert texts(post(part(FILE, png_of("a")) + part("Content-Type: image/png", b"") + CLOSE))[1] == ("1", "unreadable-image")
    assert texts(post(part(FILE, png_of("a")) + part(FILE, b"") + CLOSE))[1] == ("a.png", "unreadable-image")
    left_empty = 'Content-Disposition: form-data; name="f"; filename=""\r\nContent-Type: application/octet-stream'
    assert texts(post(part(FILE, png_of("a")) + part(left_empty, b"") + CLOSE)) == [("a.png", "a")]
    expect(post(part(left_empty, b"") + CLOSE), errors.NO_FILE)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"word.png",
        b"BMW 320i",
        b"BM",
        "Stra\u00dfe".encode("latin-1"),
        "\u5358\u8a9e".encode("shift-jis"),
        "\u5358\u8a9e".encode("iso2022-jp"),
        b"IjE4ZTRh.aGk0Zg.Qk1nAAAAtoken/9j/" + b"x" * 40,
        b'{"lang": "en", "path": "http://x/9j/iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"}',
        b"<?xml version='1.0'?><order/>",
        b"x" * MAX_TEXT_BYTES,
    ],
)
def test_a_field_of_text_is_ignored(content: bytes) -> None:
    field = part(NAME.replace('"f"', '"token"'), content)
    assert texts(post(field + part(FILE, png_of("a")) + field + CLOSE)) == [("a.png", "a")]
    expect(post(field + CLOSE), errors.NO_FILE, "@")


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"images": [{"content": BASE64.decode()}]}).encode(),
        json.dumps({"images": [{"content": base64.b64encode(encode(gradient(), "JPEG")).decode()}]})
        .replace("/", "\\/")
        .encode(),
        b"image=" + BASE64,
        b"<img src='data:image/bmp;base64," + base64.b64encode(encode(gradient(), "BMP")),
        b"x" * (MAX_TEXT_BYTES + 1),
        b" " * 1_000_000,
    ],
)
def test_a_text_with_an_image_in_it_is_refused(content: bytes) -> None:
    field = part(NAME.replace('"f"', '"token"'), content)
    for body in (field + part(FILE, png_of("a")) + CLOSE, field + CLOSE):
        response = post(body)
        expect(response, errors.INVALID_REQUEST, "'token'")
        assert response.json()["errors"][0]["location"] == "form.token"


def test_a_text_beside_files_of_the_same_field_is_refused() -> None:
    """As `curl -F f=@a.png -F f=b.png` sends it."""
    response = post(part(FILE, png_of("a")) + part(NAME, b"b.png") + CLOSE)
    expect(response, errors.INVALID_REQUEST, "@")
    assert response.json()["errors"][0]["location"] == "form.f"
    # Some web frameworks send an empty one along with each file input.
    assert texts(post(part(NAME, b"") + part(FILE, png_of("a")) + CLOSE)) == [("a.png", "a")]


@pytest.mark.parametrize("content", [BASE64, base64.encodebytes(png_of("b")).replace(b"\n", b"\r\n"), png_of("b")])
def test_base64_of_a_part_is_decoded(content: bytes) -> None:
    for head in (FILE, f"{NAME}\r\nContent-Type: image/png"):
        assert texts(post(part(f"{head}\r\nContent-Transfer-Encoding: BASE64", content) + CLOSE))[0][1] == "b"


@pytest.mark.parametrize("content", [BASE64, b"data:image/png;base64," + BASE64, b" \r\nDATA:;base64," + BASE64])
def test_a_base64_text_is_an_image(content: bytes) -> None:
    assert texts(post(part(NAME, content) + CLOSE)) == [(None, "b")]
    assert texts(post(part(NAME, content) + part(FILE, png_of("a")) + CLOSE)) == [("0", "b"), ("a.png", "a")]


@pytest.mark.parametrize("encoding", ["quoted-printable", "x-uuencode", "gzip"])
@pytest.mark.parametrize("head", [FILE, NAME])
def test_other_encodings_of_a_part_are_refused(head: str, encoding: str) -> None:
    body = part(FILE, png_of("a")) + part(f"{head}\r\nContent-Transfer-Encoding: {encoding}", b"=89PNG") + CLOSE
    expect(post(body), errors.UNSUPPORTED_MEDIA_TYPE, "Content-Transfer-Encoding")


def test_a_form_within_the_form_is_refused() -> None:
    inner = b'--in\r\nContent-Disposition: file; filename="b.png"\r\n\r\n' + png_of("b") + b"\r\n--in--\r\n"
    nested = part(f"{NAME}\r\nContent-Type: multipart/mixed; boundary=in", inner)
    expect(post(part(FILE, png_of("a")) + nested + CLOSE), errors.UNSUPPORTED_MEDIA_TYPE, "multipart/mixed")
    # A client that gives its file the type of the whole form sends a file all the same.
    assert texts(post(part(f"{FILE}\r\nContent-Type: multipart/form-data", png_of("a")) + CLOSE)) == [("a.png", "a")]


def test_a_header_given_twice_is_refused() -> None:
    expect(post(part(f"{FILE}\r\n{NAME}", b"junk") + CLOSE), errors.MALFORMED_REQUEST, "twice")


A, B = part(FILE, png_of("a")), part(FILE.replace("a.png", "b.png"), png_of("b"))


@pytest.mark.parametrize(
    "body",
    [
        A + B,  # no end
        (A + B)[:-20],
        A + B + b"--XbX-",
        A + B[:-2] + CLOSE,  # no line end before the last delimiter
        A[:-2] + b"\n" + B + CLOSE,
        A[:-2] + B + CLOSE,
        A + B.replace(b"--XbX\r\n", b"--XbX\n") + CLOSE,
        A + CLOSE + B + CLOSE,
        A + b"--XbX--" + B,
        (A + B + CLOSE).replace(b"\r\n", b"\n"),
        A[len(b"--XbX\r\n") :] + B + CLOSE,  # the first delimiter forgotten
        png_of("a") + b"\r\n" + B + CLOSE,
        A + CLOSE + png_of("b"),
        A + CLOSE + BASE64,
        b"data:image/png;base64," + BASE64 + b"\r\n" + A + CLOSE,
        A + CLOSE + b"x" * MAX_TEXT_AROUND_BYTES,
        b"x" * MAX_TEXT_AROUND_BYTES + b"x\r\n" + A + CLOSE,
    ],
)
def test_no_part_is_lost_at_a_delimiter_that_is_none(body: bytes) -> None:
    expect(post(body), errors.MALFORMED_REQUEST)


@pytest.mark.parametrize(
    "body",
    [
        A + B + b"--XbX--",
        b"\r\n" + A + B + CLOSE + b"\r\n\r\n",
        b"This is a multi-part message\r\n" + A + B + CLOSE + b"bye",
        A + B.replace(b"--XbX\r\n", b"--XbX \t\r\n") + CLOSE,
        A.replace(png_of("a"), png_of("a") + b"--XbX\r--XbX-") + B + CLOSE,
    ],
)
def test_remarks_and_padding_are_permitted(body: bytes) -> None:
    assert texts(post(body)) == [("a.png", "a"), ("b.png", "b")]


def test_the_full_number_of_parts_is_read_and_what_follows_is_seen() -> None:
    limits = {"max_crops_per_request": 2, "max_form_fields": 1}
    whole = part(NAME.replace('"f"', '"g"'), b"text") + A + B + CLOSE
    assert texts(post(whole, **limits)) == [("a.png", "a"), ("b.png", "b")]
    expect(post(whole + b"\r\n" + B + CLOSE, **limits), errors.MALFORMED_REQUEST)
    expect(post(A + B + part(NAME, png_of("c")) + CLOSE, **limits), errors.TOO_MANY_CROPS)


@pytest.mark.parametrize(
    "body",
    [
        part(FILE, b"--XbX" * 5_000_000) + CLOSE,
        part(NAME, b"x" * 2**24) + CLOSE,
        part(NAME, b" " * 2**24) + CLOSE,
        part(NAME, b"<!>" * 2**22) + CLOSE,
        b"\r\n" * 2**23 + CLOSE,
        CLOSE + b"\r\n" * 2**23,
        part(NAME.replace("; name", ';a="' * 900 + "; name"), b"x") * 64 + CLOSE,
        part(NAME + ";filename*=" + "''" * 1500, b"x") * 64 + CLOSE,
        (b"--XbX\r\nA: b" + b"\r\n " * 1300 + b"\r\n\r\n") * 64 + CLOSE,
        (part(NAME, b"AAAA\\/9j" * (MAX_TEXT_BYTES // 8))) * 64 + CLOSE,
    ],
    ids=["boundaries", "text", "blanks", "comments", "before", "after", "quotes", "extended", "folds", "texts"],
)
def test_hostile_forms_cost_little(body: bytes) -> None:
    runtime, started_s = toy_runtime(), time.process_time()
    response = request(runtime, "POST", "/v1/recognize", content=body, headers=FORM)
    assert response.status_code < 500
    assert costs_little(started_s)


@pytest.mark.parametrize(
    ("header", "filename"),
    [
        ('form-data; name="f"', None),
        ('form-data; name="f"; filename="a.png"', "a.png"),
        ("form-data; name=f; filename=a.png", "a.png"),
        ('form-data; name="f"; filename="\u5358.png"', "\u5358.png"),
        ("form-data; name=\"f\"; filename*=UTF-8''%E5%8D%98.png", "\u5358.png"),
        ("form-data; name=\"f\"; FILENAME* = utf-8'en'%E5%8D%98.png", "\u5358.png"),
        ('form-data; name="f"; filename*="utf-8\'\'%E5%8D%98.png"', "\u5358.png"),
        ("form-data; name=\"f\"; filename*=iso-8859-1'de'%FC.png", "\u00fc.png"),
        ("form-data; name=f; filename=\"=?utf-8?B?5Y2V?=\"; filename*=utf-8''%E5%8D%95.png", "\u5355.png"),
        ("form-data; name=f; filename*=utf-8''%E5%8D%95.png; filename=x.png", "\u5355.png"),
        ("form-data; name=f; filename=\"x.png\"; filename*=utf-8''%FF%FE", "x.png"),  # not what it says
        ("form-data; name=f; filename=\"x.png\"; filename*=idna''%41", "x.png"),
        ('form-data; name=f; filename="x.png"; filename*=nonsense', "x.png"),
        ("form-data; name=f; filename=\"x.png\"; filename*=UTF-8''", "x.png"),
        ("form-data; name=f; filename=\"\"; filename*=UTF-8''", ""),
        ("form-data; name=f; filename*=UTF-8''", ""),
        ("form-data; name=f; filename*=koi8-r''%C1", "koi8-r''%C1"),
        ("form-data; name=f; filename*0*=UTF-8''%E5%8D; filename*1*=%95; filename*2=.png", "\u5355.png"),
        ('form-data; name=f; filename*1=".png"; filename*0="word"', "word.png"),
        ("form-data; name=\"f; filename*=UTF-8''evil.png\"", None),
        ('form-data; name="f; filename*=UTF-8\'\'evil.png"; filename="a*.png"', "a*.png"),
        ('form-data; name="f"; filename=""', ""),
    ],
)
def test_the_name_of_a_file(header: str, filename: str | None) -> None:
    assert parse_disposition(header.encode()).filename == filename


def test_a_header_of_very_many_parameters_is_refused() -> None:
    assert texts(post(part(FILE.replace("a.png", ";" * 60), png_of("a")) + CLOSE)) == [(";" * 60, "a")]
    expect(post(part(NAME + ";a=b" * 900, b"x") + CLOSE), errors.MALFORMED_REQUEST, "parameters")


def test_names_of_fields() -> None:
    assert parse_disposition(b"") == Disposition("", None)
    assert parse_disposition(b'form-data; name="a[]"') == Disposition("a[]", None)
