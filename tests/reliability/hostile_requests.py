"""Requests made to hurt a server, each with the problems it may be told."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass

import numpy as np

from service import errors
from service.errors import Kind
from tests.hostile_images import MEBI, REFUSED

NOISE_BYTES = 10 * MEBI
IMAGES = (
    "bomb.png", "bomb.gif", "frame-bomb.gif", "bomb.tiff", "bomb.webp", "large-tile.tiff", "strips.tiff",
    "shared-strips.tiff", "high-strip.tiff", "groups.webp", "scans.jpg", "padding.jpg", "chunks.png", "text-bomb.png",
    "icc-bomb.png", "blocks.gif", "run-lengths.bmp",
)  # fmt: skip
FORM = "multipart/form-data; boundary=cut"


@dataclass(frozen=True)
class HostileRequest:
    """One request; what is told of it is one of `kinds`."""

    name: str
    content_type: str
    body: bytes
    kinds: tuple[Kind, ...]
    headers: str = ""

    def encoded(self) -> bytes:
        head = f"POST /v1/recognize HTTP/1.1\r\nHost: localhost\r\nContent-Type: {self.content_type}\r\n{self.headers}"
        length = "" if "Content-Length" in self.headers else f"Content-Length: {len(self.body)}\r\n"
        return f"{head}{length}\r\n".encode() + self.body


def part(content: bytes, name: str = "a", more: str = "") -> bytes:
    disposition = f'Content-Disposition: form-data; name="f"; filename="{name}"\r\n{more}\r\n'
    return b"--cut\r\n" + disposition.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--cut--\r\n"


def hostile_requests() -> list[HostileRequest]:
    """All of them."""
    files = {name: make() for name, (make, _) in REFUSED.items()}
    noise = np.random.default_rng(0).bytes(NOISE_BYTES)
    bomb = files["bomb.png"]
    octets, as_json = "application/octet-stream", "application/json"
    many = json.dumps({"images": [{"content": base64.b64encode(bomb).decode()}] * 100}).encode()
    nested = part(form(part(bomb)), more="Content-Type: multipart/mixed; boundary=cut2\r\n")
    too_large, unreadable, malformed = errors.IMAGE_TOO_LARGE, errors.UNREADABLE_IMAGE, errors.MALFORMED_REQUEST
    archive, packed, ends = part(files["word.zip"], "word.zip"), zlib.compress(bytes(50 * MEBI)), part(b"\r\n--cut\r" * MEBI)
    lists = b"[" + b"[]," * (4 * MEBI) + b"1]"
    return [
        *(HostileRequest(name, octets, files[name], (REFUSED[name][1],)) for name in IMAGES),
        HostileRequest("100 bombs in JSON", as_json, many, (too_large,)),
        HostileRequest("form with an archive", FORM, form(archive), (errors.UNSUPPORTED_IMAGE_FORMAT,)),
        HostileRequest("form within a form", FORM, form(nested), (malformed,)),
        HostileRequest("packed zeros", FORM, packed, (errors.UNSUPPORTED_MEDIA_TYPE,), "Content-Encoding: deflate\r\n"),
        HostileRequest("10,000 tiny files", FORM, form(*[part(b"x")] * 10_000), (errors.TOO_MANY_CROPS,)),
        HostileRequest("8 MiB of false ends of a form", FORM, ends, (malformed,)),
        HostileRequest("10 MiB of noise", octets, noise, (unreadable,)),
        HostileRequest("10 MiB of noise in a form", FORM, form(part(noise)), (unreadable,)),
        HostileRequest("10 MiB of noise as JSON", as_json, noise, (malformed, errors.TOO_MANY_CROPS)),
        HostileRequest("JSON, 100,000 deep", as_json, b"[" * 100_000 + b"]" * 100_000, (errors.JSON_TOO_DEEP,)),
        HostileRequest("JSON of 4 million lists", as_json, lists, (errors.TOO_MANY_CROPS,)),
        HostileRequest("200 MB announced", octets, b"", (errors.BODY_TOO_LARGE,), "Content-Length: 200000000\r\n"),
        HostileRequest("5,000 headers", octets, b"x", (errors.HEAD_TOO_LARGE,), "X: y\r\n" * 5000),
    ]
