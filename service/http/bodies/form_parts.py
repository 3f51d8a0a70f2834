"""What a part of a form is: an image, or another field, which is ignored.

Clients send files in different ways, so the name of the file, the content type and the bytes are all considered. A part that
may have been meant as an image is read as one, or refused with the reason; only plain text is ever ignored.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from service.errors import INVALID_REQUEST, UNSUPPORTED_MEDIA_TYPE, Problem
from service.http.bodies.content_disposition import Disposition, parse_disposition
from service.http.bodies.media_types import announces_image, media_type_of
from service.images.structure import format_of

MAX_TEXT_BYTES: Final = 2**16
"""Bytes of a field that is ignored: all of it is searched for images."""
MAX_TOLD_CHARACTERS: Final = 60

_PLAIN_ENCODINGS: Final = (b"", b"7bit", b"8bit", b"binary")
_CONTROLS: Final = bytes(byte for byte in range(32) if byte not in b"\t\n\f\r\x1b") + b"\x7f"
"""Control characters, which no text has and nearly every image does. (Escape is left out: Japanese encodings use it.)"""
_HEAD_BYTES: Final = 4096
_TEXTUAL_IMAGE: Final = re.compile(rb"%PDF-|(?:<[?!][^>]*>\s*){0,9}<svg\b", re.I)
"""Formats like images that consist of text (PDF, SVG): not ignored as text, but refused by name when they are decoded."""
_BASE64_IMAGE: Final = (
    rb"(?:iVBORw0KGgo"  # PNG
    rb"|(?:\\?/|_)9j(?:\\?/|_)"  # JPEG, in both alphabets, and as JSON may escape it
    rb"|UklGR|R0lGOD[dl]h|SUkqA|TU0AK"  # WebP, GIF, TIFF in both byte orders
    rb"|Qk[\w+/-]{6}AAAA"  # BMP, with its four bytes of zeros
    rb"|AAAA[\w+/-]{2}Z0eXB|JVBERi0)"  # HEIC and AVIF, PDF
    rb"[\w+/\\-]{20}"
)
_IS_BASE64_IMAGE: Final = re.compile(rb"(?:(?i:data):[^,]{0,200},)?" + _BASE64_IMAGE)
_HOLDS_BASE64_IMAGE: Final = re.compile(rb"(?<![\w+/-])" + _BASE64_IMAGE)


@dataclass(slots=True)
class FilePart:
    """One image of a form."""

    name: str
    """Name of the form's field; may be empty."""
    filename: str
    """Name of the file; may be empty."""
    content: bytes | str
    """The file itself, or base64 text."""


@dataclass(slots=True)
class TextPart:
    """A field that is not an image."""

    name: str
    empty: bool
    content: bytes = b""
    """Kept only of a field that was asked for."""


def read_part(headers: dict[bytes, bytes], content: bytes, texts: Collection[str] = ()) -> FilePart | TextPart:
    """Tell whether a part is an image or text.

    Args:
        headers: Headers of the part, by name in lower case.
        content: The whole part.
        texts: Names of fields that are texts whatever they look like, with or without the name of a file.

    Raises:
        Problem: The part is encoded in a way that is not supported, or holds images in a way that is not.
    """
    disposition = parse_disposition(headers.get(b"content-disposition", b""))
    media_type = media_type_of(headers.get(b"content-type", b""))
    base64 = _is_base64(headers.get(b"content-transfer-encoding", b""))
    if disposition.name in texts:
        if base64:
            raise Problem(UNSUPPORTED_MEDIA_TYPE, f"{_told(disposition)} is in base64. Send it as it is.")
        return TextPart(disposition.name, not content.strip(), content)
    if not content and not disposition.filename and (disposition.filename is not None or not announces_image(media_type)):
        return TextPart(disposition.name, empty=True)  # a file input that was left empty has an empty filename
    known = format_of(content) is not None
    if media_type.startswith("multipart/") and not known:
        raise Problem(UNSUPPORTED_MEDIA_TYPE, f"{_told(disposition)} is a {media_type} of its own: send each file as a part.")
    filename = disposition.filename or ""
    if disposition.filename is not None or announces_image(media_type) or is_binary(content[:MAX_TEXT_BYTES]):
        return FilePart(disposition.name, filename, content.decode("latin-1") if base64 and not known else content)
    head = content[:_HEAD_BYTES].lstrip()
    if _IS_BASE64_IMAGE.match(head):
        return FilePart(disposition.name, filename, content.decode("latin-1"))
    if _TEXTUAL_IMAGE.match(head):
        return FilePart(disposition.name, filename, content)
    _check_text(disposition, content)
    return TextPart(disposition.name, empty=not content.strip())


def is_binary(content: bytes) -> bool:
    """Whether the bytes cannot be text of any encoding."""
    return len(content.translate(None, _CONTROLS)) < len(content)


def holds_base64_image(text: bytes) -> bool:
    """Whether an image file begins somewhere in this text, in base64."""
    return _HOLDS_BASE64_IMAGE.search(text) is not None


def form_problem(name: str, detail: str) -> Problem:
    """The problem of a form that can be parsed but has a field that is not as it should be."""
    location = f"form.{name[:MAX_TOLD_CHARACTERS]}"
    return Problem(INVALID_REQUEST, detail, extra={"errors": [{"location": location, "message": detail}]})


def _is_base64(encoding: bytes) -> bool:
    encoding = encoding.strip().lower()
    if encoding not in (*_PLAIN_ENCODINGS, b"base64"):
        detail = "A part of the form has a Content-Transfer-Encoding that is not supported. Send it as it is."
        raise Problem(UNSUPPORTED_MEDIA_TYPE, detail)
    return encoding == b"base64"


def _check_text(disposition: Disposition, content: bytes) -> None:
    if len(content) > MAX_TEXT_BYTES:
        detail = f"{_told(disposition)} is no image, and has more than {MAX_TEXT_BYTES} bytes: such fields are not ignored."
        raise form_problem(disposition.name, detail)
    if holds_base64_image(content):
        detail = f"{_told(disposition)} holds an image within a text: send it as a file, or the whole request as JSON."
        raise form_problem(disposition.name, detail)


def _told(disposition: Disposition) -> str:
    return f"The field {disposition.name[:MAX_TOLD_CHARACTERS]!r} of the form"
