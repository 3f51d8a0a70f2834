"""From what a run is told to train on to sources of crops: archives, files of labels, rendered crops and the renderer."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from model.charsets import PRINTABLE
from model.data.alterations import Alterations, add_option
from model.data.archives import find_archives, find_lmdb
from model.data.crops import Stored, read_crops, read_synthetic
from model.data.label_files import NAMES, find_label_files, named_otherwise
from model.data.labels import LabelRules
from model.data.shards import SHARDS, find_shards
from model.data.sources import Augment, AugmentedSource, MemorySource, RenderedCrops, Source, StoredSource, join, stored_at
from model.errors import DataError
from model.synth.dataset import Recipe
from model.synth.lettering.fonts import FontsNotFoundError
from model.synth.source import RenderedSource
from model.synth.words.corpus import DictionaryNotFoundError, NoWordsError

HELD_OUT_EVERY: Final = 10
"""Every tenth real crop is for validation."""
MEMORY_SHARE: Final = 0.25
"""Share of the machine's memory that decoded crops may fill."""


@dataclass(frozen=True, slots=True)
class CropLocation:
    """A path with crops, and how they are used."""

    path: Path
    rules: LabelRules
    kind: Literal["any", "shards", "archives"] = "any"
    """What is read: `any` crops at the path and below; the `shards` of this folder only; the `archives` there and below."""


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source of training crops before it is opened."""

    name: str
    places: tuple[CropLocation, ...]
    """Locations that are drawn from as one, each crop equally often. Empty: the renderer."""
    weight: float | None
    """Its weight, in proportion to which it has a share of each batch; None: only crops held out of it are used."""
    augment: Augment | None = None
    """Alters its crops that are not rendered, in addition to what is done to all crops."""
    hold_out: bool = False
    """Keep every tenth of its crops that are not rendered for validation."""


class SourceOpener:
    """Opens sources, and reports on standard error what is in them."""

    def __init__(self, img_size: tuple[int, int], rules: LabelRules, recipe: Recipe, *, lazy: bool | None) -> None:
        """Prepare to open.

        Args:
            img_size: Height and width in pixels to which crops are resized.
            rules: Which rendered labels are used.
            recipe: Of the renderer.
            lazy: Decode stored crops when they are needed, not now; None: where they would fill the memory.
        """
        self.img_size, self.rules, self.recipe, self.lazy = img_size, rules, recipe, lazy

    def source(self, spec: SourceSpec) -> tuple[Source, list[Source]]:
        """The source that is specified, and what is held out of it.

        Raises:
            DataError: Something is not what it should be.
        """
        if not spec.places:
            return self._renderer(), []
        parts = [part for place in spec.places for part in self.open(place)]
        parts, held = hold_out(parts) if spec.hold_out else (parts, [])
        real = [part for part in parts if not isinstance(part, RenderedCrops)]
        if spec.augment is not None and real:
            rendered = [part for part in parts if isinstance(part, RenderedCrops)]
            parts = [*rendered, AugmentedSource(spec.name, real, spec.augment)]
        return join(spec.name, parts), held

    def open(self, place: CropLocation) -> list[Source]:
        """All crops of a place, a source for each archive, file of labels and folder of shards.

        Raises:
            DataError: There are none, or something is not what it should be.
        """
        path = place.path
        if place.kind == "shards":
            return [self._rendered(path, place.rules)]
        if place.kind == "archives":
            return self._stored(find_lmdb(path), place.rules)
        if path.is_file():
            return self._stored([path], place.rules)
        shards, stored = find_shards(path), find_archives(path) + find_label_files(path)
        if not shards and not stored:
            raise DataError(
                f"{path} holds no crops: no LMDB archive (data.mdb), rendered crops ({SHARDS}) or file of labels "
                f"({', '.join(NAMES)}), here or below{named_otherwise(path)}"
            )
        return [self._rendered(folder, place.rules) for folder in shards] + self._stored(stored, place.rules)

    def _rendered(self, folder: Path, rules: LabelRules) -> Source:
        alterations = Alterations()
        crops = read_synthetic(folder, rules, alterations)
        height, width = self.img_size
        if crops.images.shape[1:3] != (height, width):
            raise DataError(f"{folder} holds crops of another size: render with --image-size {height} {width}")
        tell(f"{folder.name}: {len(crops)} rendered crops")
        tell_alterations(folder.name, alterations)
        return RenderedCrops(folder.name, crops)

    def _renderer(self) -> Source:
        lost = [character for character in PRINTABLE if not self.rules.spell(character)]
        if lost:
            told = f"draws characters that the charset has not, and their labels lack them: {''.join(lost)!r}"
            tell(f"{RenderedSource.name}: {told}; to keep them: {add_option(lost)}")
        try:
            return RenderedSource(self.recipe, self.img_size, self.rules)
        except (FontsNotFoundError, DictionaryNotFoundError, NoWordsError) as error:
            raise DataError(str(error)) from None

    def _stored(self, paths: Sequence[Path], rules: LabelRules) -> list[Source]:
        """LMDB archives and files of labels, in memory or not."""
        opened = [(path, *stored_at(path)) for path in paths]
        lazy = self._is_lazy(sum(len(stored) for _, _, stored in opened))
        found: list[Source] = []
        for path, name, stored in opened:
            alterations = Alterations()
            source = self._read(path, name, stored, rules, alterations, lazy=lazy)
            how = ", decoded when needed" if lazy else ""
            tell(f"{name}: {len(source)} crops, {len(stored) - len(source)} left out{how}")
            tell_alterations(name, alterations)
            found.append(source)
        return found

    def _read(
        self, path: Path, name: str, stored: Stored, rules: LabelRules, alterations: Alterations, *, lazy: bool
    ) -> Source:
        if lazy:
            return StoredSource(name, stored, self.img_size, rules, alterations=alterations)
        return MemorySource(name, read_crops(stored, self.img_size, rules, path, alterations)[0])

    def _is_lazy(self, crops: int) -> bool:
        if self.lazy is not None:
            return self.lazy
        height, width = self.img_size
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return crops * height * width * 3 > MEMORY_SHARE * memory_bytes


def hold_out(parts: Sequence[Source]) -> tuple[list[Source], list[Source]]:
    """Every tenth crop of each part that is not rendered is held out: the rest of all, and what is held out."""
    rest: list[Source] = []
    held: list[Source] = []
    for part in parts:
        numbers = np.arange(len(part))
        used = numbers[numbers % HELD_OUT_EVERY != 0]
        if isinstance(part, StoredSource | MemorySource) and not isinstance(part, RenderedCrops) and len(used):
            held.append(part.part(numbers[::HELD_OUT_EVERY]))
            rest.append(part.part(used))
        else:
            rest.append(part)
    return rest, held


def tell(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr)


def tell_alterations(name: str, alterations: Alterations) -> None:
    """Report what the labels of a source lose to the charset, if anything, and how to keep it."""
    if told := str(alterations):
        tell(f"{name}: {told}; to keep them: {add_option(alterations.characters())}")
