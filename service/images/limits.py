"""The limits of an image, and the refusals of one that exceeds them; decided from its size in bytes and its header."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from service.config import (
    DEFAULT_MAX_IMAGE_BYTES,
    DEFAULT_MAX_IMAGE_PIXELS,
    DEFAULT_MAX_IMAGE_SIDE_PIXELS,
    DEFAULT_MAX_PAGE_PIXELS,
    DEFAULT_MAX_REQUEST_PIXELS,
    Settings,
)
from service.errors import (
    IMAGE_FILE_TOO_LARGE,
    IMAGE_TOO_COMPLEX,
    IMAGE_TOO_LARGE,
    SEVERAL_FRAMES,
    UNSUPPORTED_IMAGE_FORMAT,
    Problem,
)

FORMAT_NAMES: Final = {"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "BMP": "BMP", "GIF": "GIF", "TIFF": "TIFF"}
FORMATS: Final = tuple(FORMAT_NAMES)
"""Pillow's names of the formats that can be read; all others are refused."""

CROP_OF_WORD: Final = "Send a crop of the word."
SMALLER_PAGE: Final = "Send a smaller copy of the page, or parts of it."


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The limits of one image."""

    max_pixels: int = DEFAULT_MAX_IMAGE_PIXELS
    max_request_pixels: int = DEFAULT_MAX_REQUEST_PIXELS
    max_side: int = DEFAULT_MAX_IMAGE_SIDE_PIXELS
    max_bytes: int = DEFAULT_MAX_IMAGE_BYTES
    formats: tuple[str, ...] = FORMATS
    refuse_several_frames: bool = False
    max_page_pixels: int = DEFAULT_MAX_PAGE_PIXELS
    of_page: bool = False
    """Whether these are the limits of a page, of which regions are read."""

    @classmethod
    def of(cls, settings: Settings) -> ImageLimits:
        """The limits that the settings give."""
        return cls(
            settings.max_image_pixels,
            settings.max_request_pixels,
            settings.max_image_side_pixels,
            settings.max_image_bytes,
            tuple(name.upper() for name in settings.image_formats.split(",")),
            settings.several_frames == "refuse",
            settings.max_page_pixels,
        )

    def for_page(self) -> ImageLimits:
        """The limits of a page."""
        return replace(self, max_pixels=self.max_page_pixels, of_page=True)

    def check_bytes(self, n_bytes: int) -> None:
        """Raise a `Problem` for a file that is too large."""
        if n_bytes > self.max_bytes:
            raise image_file_too_large(self.max_bytes, self._advice())

    def check_base64(self, n_characters: int) -> None:
        """Raise a `Problem` for a base64 text whose file must be too large, even if part of the text is line breaks."""
        if n_characters > 2 * self.max_bytes + 1024:
            raise image_file_too_large(self.max_bytes, self._advice())

    def check_format(self, format_: str) -> None:
        """Raise a `Problem` for a format that the settings do not allow."""
        if format_ not in self.formats:
            detail = f"{FORMAT_NAMES[format_]} is not accepted here (PARSEQ_IMAGE_FORMATS); {self.spoken_formats()}."
            raise Problem(UNSUPPORTED_IMAGE_FORMAT, detail)

    def check_size(self, width: int, height: int) -> None:
        """Raise a `Problem` for too many pixels."""
        if width * height > self.max_pixels:
            limit = self._spoken_pixels()
        elif max(width, height) > self.max_side:
            limit = f"each side may have {self.max_side} at most (PARSEQ_MAX_IMAGE_SIDE_PIXELS)"
        else:
            return
        raise Problem(IMAGE_TOO_LARGE, f"The image is {width} x {height} pixels; {limit}. {self._advice()}")

    def far_too_many_pixels(self) -> Problem:
        """The refusal of a file that Pillow did not open for its size, without telling width and height."""
        return Problem(IMAGE_TOO_LARGE, f"The image has far too many pixels; {self._spoken_pixels()}. {self._advice()}")

    def _spoken_pixels(self) -> str:
        setting = "PARSEQ_MAX_PAGE_PIXELS" if self.of_page else "PARSEQ_MAX_IMAGE_PIXELS"
        return f"it may have {self.max_pixels} at most ({setting})"

    def _advice(self) -> str:
        return SMALLER_PAGE if self.of_page else CROP_OF_WORD

    def spoken_formats(self) -> str:
        """The formats that are accepted, as a clause."""
        *names, last = [FORMAT_NAMES[format_] for format_ in self.formats]
        return f"{', '.join(names)} and {last} are" if names else f"only {last} is"


class PixelAccount:
    """The pixels that the images of one request may still have together: a small request may hold minutes of decoding.

    Not exact when several threads use it at once: an image or two too many may pass then.
    """

    __slots__ = ("_left", "_limit")

    def __init__(self, limits: ImageLimits) -> None:
        self._left = self._limit = limits.max_request_pixels

    def charge(self, width: int, height: int) -> None:
        """Take an image's pixels from what is left; raise a `Problem` when they are too many."""
        if width * height > self._left:
            limit = f"together they may have {self._limit} pixels (PARSEQ_MAX_REQUEST_PIXELS)"
            detail = f"This image of {width} x {height} and those of the request before it are too many; {limit}."
            raise Problem(IMAGE_TOO_LARGE, f"{detail} Send crops of the words, or fewer images in a request.")
        self._left -= width * height


def image_file_too_large(limit_bytes: int, advice: str = CROP_OF_WORD) -> Problem:
    """The file of one image exceeds the limit; the detail names it and its setting."""
    detail = f"An image file may have {limit_bytes} bytes at most (PARSEQ_MAX_IMAGE_BYTES). {advice}"
    return Problem(IMAGE_FILE_TOO_LARGE, detail)


def too_complex(what: str) -> Problem:
    """The refusal of a file whose parts would take far more time or memory than its pixels do."""
    return Problem(IMAGE_TOO_COMPLEX, f"The image file has {what}. Save it again with common settings.")


def several_frames() -> Problem:
    """The refusal of an animation or a file of several pages."""
    return Problem(SEVERAL_FRAMES, "The image has several frames, which is not accepted here (PARSEQ_SEVERAL_FRAMES).")
