"""What reads crops, what it is given, and what it raises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from artifact.allowed import Allowed, AllowedError, entries_of
from artifact.text import Reading


class ReaderError(ValueError):
    """A reader cannot be used, or has stopped answering; the message names the cause."""


def allowed_row(wanted: str, vocabulary: Sequence[str]) -> Allowed:
    """The entries of a vocabulary that may be read (`artifact.allowed.entries_of`).

    Raises:
        ReaderError: The vocabulary does not have what is asked for.
    """
    try:
        return entries_of(wanted, vocabulary)
    except AllowedError as error:
        raise ReaderError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Picture:
    """A crop to be read."""

    image: Image.Image
    """RGB, as it shall be seen."""
    file: bytes | None = None
    """The image file, where decoding it plainly gives `image`."""


class Reader(Protocol):
    """What reads crops: a network, an artifact, a service."""

    description: str
    """What it is, for reports."""
    charset: str
    """All characters that it can give."""
    max_label_length: int
    """The longest text that it can give, in characters."""
    refused: int
    """Number of crops so far that it would not take; they count as read with an empty text."""

    def read(self, pictures: Sequence[Picture]) -> list[Reading]:
        """A reading for each picture.

        Raises:
            ReaderError: It has stopped answering.
        """

    def close(self) -> None:
        """Let go of connections."""
