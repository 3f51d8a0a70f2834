"""What `split` does with rendered lines and long words: how many are read exactly, as a whole and in parts.

    python -m benchmarks.lines --count 80

Lines of 2 to 5 words, with gaps of .25, .5 and 1 em, and words of 15 to 25 letters, in many faces, sizes and colours, some of
them blurred or noisy. Of lines it is also printed in how many all words are read right when each is drawn alone, and how many
of these are read right as lines, which is what cutting can give.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from reading.readers.artifact import BUNDLED, ArtifactReader
from reading.readers.interface import Picture, Reader
from reading.readers.views import ViewsReader

FONT_FOLDERS = ("dejavu", "liberation", "lato", "roboto")
GAPS_EM = (0.25, 0.5, 1.0)
LONG = range(15, 26)
SHORT = range(2, 10)
SIZES_PX = (20, 28, 32, 40, 60)
LEAST_CONTRAST = 250


@lru_cache
def faces() -> tuple[Path, ...]:
    """Plain faces that are installed; none: Pillow's own is taken."""
    root = Path("/usr/share/fonts/truetype")
    return tuple(path for name in FONT_FOLDERS for path in sorted((root / name).rglob("*.ttf")))


class Hand:
    """One way of drawing: face, size, colours, margin, blur and noise."""

    def __init__(self, chance: random.Random) -> None:
        self.size_px = chance.choice(SIZES_PX)
        paths = faces()
        self._font = ImageFont.truetype(chance.choice(paths), self.size_px) if paths else ImageFont.load_default(self.size_px)
        self._colours = self._two_colours(chance)
        self._margin = chance.choice((1, 2, 4, self.size_px // 8))
        self._blur, self._noise = chance.choice((0, 0.5, 0.8)), chance.choice((0, 4, 10))
        self._seed = chance.randrange(2**30)

    @staticmethod
    def _two_colours(chance: random.Random) -> list[tuple[int, ...]]:
        while True:
            pair = [(plain,) * 3 if chance.random() < 0.5 else tuple(chance.choices(range(256), k=3)) for plain in (255, 0)]
            if abs(sum(pair[0]) - sum(pair[1])) > LEAST_CONTRAST:
                return pair

    def draw(self, words: list[str], gap_px: float = 0.0) -> Picture:
        """The words on one line, with gaps between them."""
        boxes = [self._font.getbbox(word) for word in words]
        top, bottom = min(box[1] for box in boxes), max(box[3] for box in boxes)
        lengths = [self._font.getlength(word) for word in words]
        width = sum(lengths) + gap_px * (len(words) - 1) + 2 * self._margin + 2
        image = Image.new("RGB", (int(width), int(bottom - top) + 2 * self._margin), self._colours[0])
        pen, x = ImageDraw.Draw(image), float(self._margin)
        for word, length in zip(words, lengths, strict=True):
            pen.text((x, self._margin - top), word, self._colours[1], self._font)
            x += length + gap_px
        pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(self._blur)), np.float64)
        pixels = pixels + np.random.default_rng(self._seed).normal(0, self._noise, pixels.shape)
        return Picture(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))


def texts(chance: random.Random, vocabulary: list[str], letters: range, n_words: int) -> list[str]:
    """Words in one case."""
    case = chance.choice((str.lower, str.capitalize, str.upper))
    fitting = [word for word in vocabulary if len(word) in letters]
    return [case(word) for word in chance.choices(fitting, k=n_words)]


def compare(reader: Reader, drawn: Iterator[tuple[list[str], Picture, list[Picture]]]) -> str:
    """Read what was drawn, and count what is right."""
    split = ViewsReader(reader, "upright", split=True)
    n = whole = parts = alone = both = 0
    for words, line, each in drawn:
        right = " ".join(words)
        words_right = [reading.text for reading in reader.read(each)] == words
        [of_parts] = split.read([line])
        n, whole, parts = n + 1, whole + (reader.read([line])[0].text == right), parts + (of_parts.text == right)
        alone, both = alone + words_right, both + (words_right and of_parts.text == right)
    return f"{n}: exact as a whole {whole}, with split {parts}; words alone right {alone}, of these lines right {both}"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, default=Path(BUNDLED))
    parser.add_argument("--words", type=Path, default=Path("/usr/share/dict/words"), help="a list of words, one a line")
    parser.add_argument("--count", type=int, default=80, help="lines of each gap, and long words")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    vocabulary = [word for word in arguments.words.read_text(encoding="utf-8").split() if word.isascii() and word.isalpha()]
    reader, chance = ArtifactReader(arguments.artifact, threads=1), random.Random(arguments.seed)

    def lines(gap_em: float) -> Iterator[tuple[list[str], Picture, list[Picture]]]:
        for _ in range(arguments.count):
            words, hand = texts(chance, vocabulary, SHORT, chance.randint(2, 5)), Hand(chance)
            yield words, hand.draw(words, gap_em * hand.size_px), [hand.draw([word]) for word in words]

    def long_words() -> Iterator[tuple[list[str], Picture, list[Picture]]]:
        for _ in range(arguments.count):
            words, hand = texts(chance, vocabulary, LONG, 1), Hand(chance)
            yield words, hand.draw(words), [hand.draw(words)]

    for gap_em in GAPS_EM:
        print(f"lines with gaps of {gap_em} em,", compare(reader, lines(gap_em)), flush=True)
    print("words of 15 to 25 letters,", compare(reader, long_words()), flush=True)


if __name__ == "__main__":
    main()
