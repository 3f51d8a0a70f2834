"""Keeps libtiff from writing to standard error.

Pillow turns off its warnings, but not its errors: for a damaged file of 142 bytes it writes a megabyte, a line for each row of
pixels, past the log and in no form that a reader of the log knows. Nothing is lost with them: a file that cannot be read is
answered to whoever sent it.
"""

from __future__ import annotations

import ctypes
from typing import Final

from PIL import _imaging


def _silence() -> bool:
    try:
        # A symbol is also looked for in the libraries that Pillow's own is linked with, wherever they lie.
        set_error_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
    except (OSError, AttributeError):
        return False
    set_error_handler.argtypes, set_error_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
    set_error_handler(None)  # of the whole process, for ever; no thread decodes yet
    return True


LIBTIFF_IS_SILENT: Final = _silence()
"""False where its functions cannot be found, as in Pillow's own builds for Windows, which have libtiff linked in."""
