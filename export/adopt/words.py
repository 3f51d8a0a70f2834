"""Drawn words, whose text is known, and how likely a recogniser finds that text.

Shapes: N crops, T steps or columns, K tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

from artifact.fit import fit_for
from artifact.metadata import ArtifactMetadata
from export.adopt.description import Decoding
from export.adopt.scores import Scores
from export.gate.crops import FONT_PX, Font, paint
from export.graphs.interface import ExportError, Ids

SEED: Final = 20220705
WORDS: Final = re.findall(
    r"\w+",
    "Harbour garden 2024 WINDOW paper 7350 Yellow STREET kitchen 968 Bakery quiet MARKET jacket 415 Victory zebra FLOWER "
    "thunder 1286 Exit BRIDGE music 57 Hotel kingdom QUICK wash 3048 Platform SCHOOL January mixture 629 GARAGE vapour Jump "
    "CINEMA doctor 1739 Oxygen POLICE frozen 80 Welcome PHARMACY hazard 4652 Zone",
)
"""Contain all letters of both cases and all digits; real words, because some recognisers know a language."""
COUNT: Final = 160
FAINT_CONTRAST: Final = (45, 76)
FAINT_NOISE: Final = 20.0
MIDDLE: Final = 128
FLOOR: Final = -12.0
"""Lower bound of the logarithm of a word's probability, also for an impossible word."""
MIN_CHARACTERS: Final = 10
"""Characters of the charset that must be drawable for words to be made of them."""
MAX_LENGTH: Final = 8
UNDEFINED: Final = "\U0010ffff"
"""A character that no font has, to see how missing characters are drawn."""


@dataclass(frozen=True, slots=True)
class Words:
    """Crops and their texts."""

    texts: list[str]
    pixels: NDArray[np.uint8]
    """`(N, H, W, 3)`, as the artifact would get them."""


def open_font(path: Path | None) -> Font:
    """A font file, or Pillow's own font.

    Raises:
        ExportError: It is not a font file.
    """
    if path is None:
        return ImageFont.load_default(size=FONT_PX)
    try:
        return ImageFont.truetype(path, FONT_PX)
    except OSError as error:
        raise ExportError(f"{path} is no font that can be used: give --font a TrueType or OpenType file") from error


def texts_for(entries: Sequence[str], max_length: int, count: int, font: Path | None) -> list[str]:
    """Words that a recogniser can read.

    Args:
        entries: Its charset.
        max_length: Longest text that it can give.
        count: How many; words are repeated.
        font: With a font of the user's, random words of all characters of the charset that it has; without one, those of
            `WORDS` that the charset can spell, in its case.

    Raises:
        ExportError: There are too few drawable characters.
    """
    known = {entry for entry in entries if len(entry) == 1}
    rng = np.random.default_rng(SEED)
    limit = min(max_length, MAX_LENGTH)
    if font is None:
        cased = (next((form for form in (word, word.lower(), word.upper()) if set(form) <= known), "") for word in WORDS)
        found = [word for word in cased if 0 < len(word) <= limit]
        if len(set("".join(found))) >= MIN_CHARACTERS:
            return [found[number % len(found)] for number in range(count)]
        alphabet = sorted(known & set("".join(WORDS)))
    else:
        opened = open_font(font)
        missing = bytes(opened.getmask(UNDEFINED))
        alphabet = sorted(c for c in known if not c.isspace() and bytes(opened.getmask(c)) not in (missing, b""))
    if len(alphabet) < MIN_CHARACTERS:
        raise ExportError(
            f"only {len(alphabet)} characters of the charset can be drawn, so nothing can show that the description is right: "
            "give --font FILE, a font that has the charset's characters; or --without-words, to do without that"
        )
    lengths = rng.integers(min(3, limit), limit + 1, count)
    return ["".join(rng.choice(alphabet, length)) for length in lengths]


def draw_words(entries: Sequence[str], metadata: ArtifactMetadata, font: Path | None) -> Words:
    """Draw words that the artifact can read: half of them plain, half of them faint, differing from their ground only in red.

    Only such words show the order of colours, since most recognisers read a word in any colours. Those that have learned from
    photographs rely on red more than on blue, in which the eye sees little and cameras and JPEG keep little (ADR 0012).

    Args:
        entries: Its charset.
        metadata: Of the artifact: how long texts may be, and how pictures come to its size.
        font: What to draw them with; see `texts_for`.

    Raises:
        ExportError: There are too few drawable characters.
    """
    texts = texts_for(entries, metadata.max_label_length, COUNT, font)
    opened = open_font(font)
    rng = np.random.default_rng(SEED)
    pixels = []
    for number, text in enumerate(texts):
        margin = int(rng.integers(2, 12))
        ink, paper, noise = _faint(rng) if number % 2 else _plain(rng)
        pixels.append(fit_for(metadata, paint(text, ink, paper, margin, noise, rng, opened)))
    return Words(texts, np.stack(pixels))


def _plain(rng: np.random.Generator) -> tuple[Ids, Ids, float]:
    """Random ink, paper and noise."""
    dark, light = rng.integers(0, 110, 3), rng.integers(145, 256, 3)
    ink, paper = (dark, light) if rng.random() < 0.5 else (light, dark)
    return ink, paper, float(rng.uniform(0, 12))


def _faint(rng: np.random.Generator) -> tuple[Ids, Ids, float]:
    contrast = rng.integers(*FAINT_CONTRAST) * rng.choice([-1, 1])
    ink, paper = np.full(3, MIDDLE), np.full(3, MIDDLE)
    ink[0] += contrast // 2
    paper[0] -= contrast // 2
    return ink, paper, FAINT_NOISE


def log_likelihood(scores: Scores, wanted: Sequence[Sequence[int]], special: int, decoding: Decoding) -> NDArray[np.float64]:
    """The logarithm of the probability of a text, for each crop, but at least `FLOOR`.

    Args:
        scores: The scores of the classes.
        wanted: The classes of the texts' characters; -1 for a character without a class.
        special: The class of the blank or the end.
        decoding: With `ctc` all ways to spread a text over the columns are summed.
    """
    longest = max(map(len, wanted))
    lengths = np.array([len(classes) for classes in wanted])
    if decoding == "steps":
        states = np.full((len(wanted), longest + 1), special)
        for row, classes in enumerate(wanted):
            states[row, : len(classes)] = classes
        steps = np.arange(longest + 1)
        logs = _logs(scores, states)[:, steps, steps] if scores.steps > longest else np.full(states.shape, -np.inf)
        return np.asarray(np.maximum(np.where(steps <= lengths[:, None], logs, 0).sum(1), FLOOR), np.float64)
    # A blank before, between and after the characters: state 2k + 1 is character k.
    states = np.full((len(wanted), 2 * longest + 1), special)
    for row, classes in enumerate(wanted):
        states[row, 1 : 2 * len(classes) : 2] = classes
    emitted = _logs(scores, states)
    skips = np.zeros(states.shape, bool)
    skips[:, 2:] = (states[:, 2:] != special) & (states[:, 2:] != states[:, :-2])
    alpha = np.full(states.shape, -np.inf)
    alpha[:, :2] = emitted[:, 0, :2]
    for column in range(1, scores.steps):
        from_one = np.pad(alpha, ((0, 0), (1, 0)), constant_values=-np.inf)[:, :-1]
        from_two = np.where(skips, np.pad(alpha, ((0, 0), (2, 0)), constant_values=-np.inf)[:, :-2], -np.inf)
        alpha = np.logaddexp(np.logaddexp(alpha, from_one), from_two) + emitted[:, column]
    rows = np.arange(len(wanted))
    found = np.logaddexp(alpha[rows, 2 * lengths], alpha[rows, np.maximum(2 * lengths - 1, 0)])
    return np.asarray(np.maximum(found, FLOOR), np.float64)


def _logs(scores: Scores, classes: Ids) -> NDArray[np.float64]:
    """The logarithms of the probabilities of classes `(N, S)`, which differ by crop: `(N, T, S)`."""
    possible = np.maximum(classes, 0)[:, None, :].repeat(scores.steps, 1)
    return np.asarray(np.where(classes[:, None, :] >= 0, scores.logs(possible), -np.inf), np.float64)
