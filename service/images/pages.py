"""A page of which regions are read: decoded once, its regions cut out one by one, and freed as soon as the last one is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from artifact.regions import Page, RegionError, corners_of
from service.errors import INTERNAL, INVALID_REGION, Problem
from service.images.decode import decode_base64, decode_image
from service.images.limits import ImageLimits

logger = logging.getLogger(__name__)


class EncodedPage:
    """A page as it arrived, then decoded.

    Args:
        content: The image file, or base64 text.
        n_regions: How many regions are cut from it.
    """

    def __init__(self, content: bytes | str, n_regions: int) -> None:
        self.problem: Problem | None = None
        """Why it cannot be decoded; `None`: it was decoded, or was not tried yet."""
        self._content: bytes | str = content
        self._page: Page | None = None
        self._n_left = n_regions
        self._lock = threading.Lock()

    def open(self, limits: ImageLimits, height: int, width: int) -> None:
        """Decode the page; if that fails, `problem` says why, and so does every region.

        Args:
            limits: Of a page.
            height: Of the pictures that the network takes, in pixels.
            width: The same.
        """
        content, self._content = self._content, b""
        try:
            if isinstance(content, str):
                limits.check_base64(len(content))
                content = decode_base64(content)
            self._page = Page(decode_image(content, limits), height, width)
        except Problem as problem:
            self.problem = problem.bare()
        except Exception:
            logger.exception("a page could not be decoded")
            self.problem = Problem(INTERNAL, "The server failed on this page.")

    def cut(self, region: PageRegion) -> Image.Image:
        """A region of the page, upright, RGB. Once for each region.

        Raises:
            Problem: The page could not be decoded, or the region cannot be cut out.
        """
        page = self._page
        with self._lock:
            self._n_left -= 1
            if not self._n_left:
                self._page = None
        if self.problem is not None:
            raise Problem(self.problem.kind, self.problem.detail)
        if page is None:
            raise ValueError("the page has not been opened, or has been cut up")
        try:
            return page.cut(corners_of(region.points, region.box))
        except RegionError as error:
            raise Problem(INVALID_REGION, str(error)) from None


@dataclass(frozen=True, slots=True)
class PageRegion:
    """A region as it arrived; whether it makes sense is found out when it is cut out."""

    page: EncodedPage
    points: Sequence[Sequence[float]] | None
    """A quadrilateral: top left, top right, bottom right and bottom left of the text."""
    box: Sequence[float] | None
    """Left, top, right, bottom."""

    def picture(self, _limits: ImageLimits) -> Image.Image:
        """The same as `decode_image` gives for files.

        Raises:
            Problem: The page could not be decoded, or the region cannot be cut out.
        """
        return self.page.cut(self)
