"""How many fields a message has, told without parsing it; and parsing those that do not have too many.

Two bytes on the wire are an empty tensor, which takes a hundred bytes in memory: a message of 32 MiB could become gigabytes.
Encoding: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import DecodeError

from service.errors import MALFORMED_REQUEST, TOO_MANY_CROPS, Problem

MAX_FIELDS: Final = 1000
"""Beside those of the images, for parameters and fields that we do not know."""
FIELDS_PER_IMAGE: Final = 2
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_VARINT_BITS: Final = 63

Outline = dict[int, Any]
"""By number: the outline of a message, or `None` for numbers that may be packed. Fields that are neither are not in it."""


def outline_of(descriptor: Any) -> Outline:
    """Which fields of a message hold others, or numbers."""
    found: Outline = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            found[field.number] = outline_of(field.message_type)
        elif field.type not in (field.TYPE_STRING, field.TYPE_BYTES):
            found[field.number] = None
    return found


class Parser:
    """Of one kind of message.

    Args:
        message: The class.
        max_crops: Of a request.
    """

    def __init__(self, message: Any, max_crops: int) -> None:
        self._message = message
        self._outline = outline_of(message.DESCRIPTOR)
        self._max_crops = max_crops
        self._most = MAX_FIELDS + FIELDS_PER_IMAGE * max_crops

    def parse(self, data: bytes) -> Any:
        """The message.

        Raises:
            Problem: It is none, or has far more fields and numbers than images need.
        """
        try:
            if _left_after(data, 0, len(data), self._outline, self._most) >= 0:
                return self._message.FromString(data)
        except (_BrokenError, DecodeError):
            detail = f"The message is no {self._message.DESCRIPTOR.full_name}, or it is broken."
            raise Problem(MALFORMED_REQUEST, detail) from None
        raise Problem(
            TOO_MANY_CROPS,
            f"The message has far more fields than {self._max_crops} images need (PARSEQ_MAX_CROPS_PER_REQUEST). Pixels are "
            "sent in raw_input_contents.",
        )


class _BrokenError(Exception):
    """Not what the encoding allows."""


def _left_after(data: bytes, at: int, end: int, outline: Outline, left: int) -> int:
    """So many fields fewer as there are, each number of a packed field for one; below 0: too many, however many."""
    while at < end and left >= 0:
        left -= 1
        tag, at = _varint(data, at, end)
        wire_type = tag & 7
        if wire_type == LENGTH:
            size, at = _varint(data, at, end)
            stop = at + size
            if stop > end:
                raise _BrokenError
            number = tag >> 3
            if number in outline:
                inner = outline[number]
                left = left - size if inner is None else _left_after(data, at, stop, inner, left)
            at = stop
        elif wire_type == VARINT:
            _, at = _varint(data, at, end)
        elif wire_type in (FIXED64, FIXED32):
            at += 8 if wire_type == FIXED64 else 4
        else:
            raise _BrokenError
    if at > end:
        raise _BrokenError
    return left


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift <= MAX_VARINT_BITS:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise _BrokenError
