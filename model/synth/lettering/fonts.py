"""Discovery of font faces that can draw words, and their split into training and validation."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from PIL import ImageFont

from artifact.files import write_whole
from model.data.walk import files_below
from model.synth.lettering.glyphs import GlyphSheet
from model.synth.words.split import Split, is_validation

FONT_FOLDERS: Final = (Path("/usr/share/fonts"),)
FONT_SUFFIXES: Final = frozenset({".ttf", ".otf", ".ttc"})
WEB_FONT_SUFFIXES: Final = frozenset({".woff2"})
"""Read only in folders given by name: among installed fonts they would be duplicates."""
DEFAULT_CACHE: Final = Path(".cache")
EMBEDDED: Final = "pillow:default"
"""The path of the face that Pillow itself carries: no file is needed to draw with it."""

VALIDATION_PER_MILLE: Final = 40
# Faces below these thresholds are symbols, letters in boxes, foreign alphabets on Latin code points, or unreadable.
# A face of capitals needs less: its wilder half was not judged.
MIN_LEGIBILITY: Final = 0.5
MIN_LEGIBILITY_OF_CAPITALS: Final = 0.4
# A new number makes every cached scan stale: raise it whenever a verdict below may change.
_SCAN_VERSION: Final = 5


class FontsNotFoundError(RuntimeError):
    """No usable font face was found, or none that belongs to the wanted split."""

    def __init__(self, folders: Iterable[Path] = (), split: Split | None = None) -> None:
        places = ", ".join(str(folder) for folder in folders)
        super().__init__(
            "no usable font face"
            + (f" for {split}" if split else "")
            + (f" in {places}" if places else "")
            + ": install fonts, for instance with `apt-get install fonts-dejavu fonts-liberation fonts-aenigma`; "
            "the packages used for training are listed in model/synth/debian_packages.txt"
        )


@dataclass(frozen=True)
class Face:
    """One face of a font file.

    `characters` are those of `glyphs.DRAWABLE` that it truly draws (every face has a space besides). With `caps_only` its
    lower case looks like capitals (or is missing), so texts must be upper-cased before they are drawn. `legibility` in [0, 1]
    says how much its glyphs resemble plain lettering.
    """

    path: str
    index: int
    family: str
    style: str
    characters: str
    caps_only: bool
    legibility: float

    def font(self, size: int) -> ImageFont.FreeTypeFont:
        """The face at `size` pixels per em; opened once and kept for later calls."""
        return open_font(self.path, self.index, size)

    def spell(self, text: str) -> str:
        """`text` as this face would show it: upper-cased when there are only capitals."""
        return text.upper() if self.caps_only else text

    def can_draw(self, text: str) -> bool:
        """Whether every character of `text`, spelt for this face, has a glyph."""
        return set(self.spell(text)) - {" "} <= set(self.characters)


@lru_cache(maxsize=2048)
def open_font(path: str, index: int, size: int) -> ImageFont.FreeTypeFont:
    """Open a face with the basic layout engine: one character is one glyph, so that centres are well defined."""
    if path == EMBEDDED:
        embedded = ImageFont.load_default(size)
        assert isinstance(embedded, ImageFont.FreeTypeFont)
        return embedded.font_variant(layout_engine=ImageFont.Layout.BASIC)
    return ImageFont.truetype(path, size, index=index, layout_engine=ImageFont.Layout.BASIC)


@cache
def embedded_face() -> Face:
    """The face that Pillow carries: enough for tests and for machines without fonts."""
    face, _ = _inspect(EMBEDDED, 0)
    assert face is not None
    return face


def load_faces(folders: Sequence[Path] = FONT_FOLDERS, cache: Path | None = DEFAULT_CACHE) -> list[Face]:
    """All usable faces under `folders`, in a stable order, duplicates removed.

    The scan takes about 20 ms a file, so its result is kept as JSON under `cache` (None: no cache) until a file
    changes. Raises FontsNotFoundError when no face is usable.
    """
    paths = find_font_files(folders)
    store = None if cache is None else cache / f"fonts-{_fingerprint(paths)}.json"
    if store is not None and store.exists():
        faces = [Face(**entry) for entry in json.loads(store.read_text(encoding="utf-8"))]
    else:
        faces = _scan(paths)
        if store is not None:
            store.parent.mkdir(parents=True, exist_ok=True)
            write_whole(store, json.dumps([asdict(face) for face in faces], indent=0).encode())
    if not faces:
        raise FontsNotFoundError(folders)
    return faces


def split_faces(faces: Sequence[Face], split: Split) -> list[Face]:
    """The faces of one split. The family decides, so that a bold never leaks to where its regular is not."""
    wanted = split == "validation"
    return [face for face in faces if is_validation(face.family, VALIDATION_PER_MILLE) == wanted]


def find_font_files(folders: Sequence[Path]) -> list[Path]:
    """Font files below `folders`, sorted; links to folders are followed, folders that do not exist count as empty."""
    found = set()
    for folder in folders:
        wanted = FONT_SUFFIXES if folder in FONT_FOLDERS else FONT_SUFFIXES | WEB_FONT_SUFFIXES
        found |= {path for path in files_below(folder) if path.suffix.lower() in wanted}
    return sorted(found)


def _scan(paths: Sequence[Path]) -> list[Face]:
    faces: list[Face] = []
    seen: set[str] = set()
    for path in paths:
        face, digest = _inspect(str(path), 0)
        # The same drawings come under many names (one Latin for forty scripts): each counts once.
        if face is not None and digest not in seen:
            seen.add(digest)
            faces.append(face)
    return faces


def _inspect(path: str, index: int) -> tuple[Face | None, str]:
    """The face if it is usable, and a digest of its drawings."""
    try:
        font = open_font.__wrapped__(path, index, GlyphSheet.SIZE)
        family, style = font.getname()
        sheet = GlyphSheet(font)
    except (OSError, ValueError):
        return None, ""
    letters = set(sheet.characters)
    capitals = set(string.ascii_uppercase + string.digits)
    if not capitals <= letters or sheet.distinct(capitals) < len(capitals) - 3:
        return None, ""
    small = set(string.ascii_lowercase)
    has_small = small <= letters and sheet.distinct(small) >= len(small) - 2
    caps_only = not has_small or sheet.small_letters_are_capitals()
    legibility = sheet.legibility(with_small=not caps_only)
    if legibility < (MIN_LEGIBILITY_OF_CAPITALS if caps_only else MIN_LEGIBILITY):
        return None, ""
    # Some faces of one case have small letters only: their "capitals" would be labelled wrongly.
    if not sheet.capitals_are_capitals():
        return None, ""
    drawable = "".join(c for c in sheet.characters if not (caps_only and c in small))
    name = family or Path(path).stem
    return Face(path, index, name, style or "", drawable, caps_only, round(legibility, 3)), sheet.digest()


def _fingerprint(paths: Sequence[Path]) -> str:
    parts = [str(_SCAN_VERSION)]
    for path in paths:
        stat = path.stat()
        parts.append(f"{path}:{stat.st_size}:{int(stat.st_mtime)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
