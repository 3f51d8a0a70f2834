"""What a run trains and validates on, from its options."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import lightning
import numpy as np
from torch.utils.data import DataLoader, Dataset

from model.charsets import PRINTABLE
from model.data.alterations import Alterations, add_option
from model.data.archives import Archive, find_archives, find_lmdb, iterate_lmdb
from model.data.crops import Batch, Crops, read_crops, read_label_file, read_synthetic
from model.data.label_files import NAMES, find_label_files, named_otherwise, read_labels
from model.data.labels import LabelRules
from model.data.sources import AugmentedSource, MemorySource, RenderedCrops, RenderedSource, Source, join, leaves
from model.data.stored import StoredSource, open_stored
from model.data.stream import BatchStream, shares_of
from model.data.walk import files_below
from model.errors import DataError
from model.recognisers.interface import Config
from model.synth.corpus import DictionaryNotFoundError, NoWordsError
from model.synth.dataset import Recipe
from model.synth.fonts import FONT_FOLDERS, FontsNotFoundError
from model.synth.phrases import EXTRA_CHARACTERS
from model.training.rand_augment import RandAugment
from model.training.stopping import LoadingProcesses
from reading.pictures.crop_sets import SHARDS

HELD_OUT_EVERY = 10
"""Of real crops every tenth is for validation."""
VALIDATION_BATCH = 100
MEMORY_SHARE = 0.25
"""Of the machine's memory that decoded crops may fill."""
MOST_WORKERS = 4
RENDER = "render"


@dataclass(frozen=True, slots=True)
class Weighted:
    """A source and its weight in each batch."""

    source: Source
    weight: float


class ValidationBatches(Dataset[Batch]):
    """All crops of a source once, in order."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.source) // VALIDATION_BATCH)

    def __getitem__(self, index: int) -> Batch:
        """Batch number `index`."""
        if index >= len(self):
            raise IndexError(index)
        numbers = np.arange(index * VALIDATION_BATCH, min((index + 1) * VALIDATION_BATCH, len(self.source)))
        return self.source.crops(numbers, None, [()] * len(numbers)).batch()


def validation_loader(
    crops: Crops | Source, workers: int = 0, processes: Callable[[int], None] | None = None
) -> DataLoader[Batch]:
    """All of `crops` once, in order, by `workers` processes that call `processes` when they start."""
    source = MemorySource("validation", crops) if isinstance(crops, Crops) else crops
    return DataLoader(ValidationBatches(source), batch_size=None, num_workers=workers, worker_init_fn=processes)


class TrainingData(lightning.LightningDataModule):
    """The stream of training batches and the validation loaders of a run."""

    def __init__(
        self, training: Sequence[Weighted], validation: dict[str, Source], args: argparse.Namespace, first_step: int
    ) -> None:
        super().__init__()
        self.training, self.validation = list(training), validation
        self.args, self.first_step = args, first_step
        self.augment = RandAugment() if args.augment == "reference" else None
        self.processes = LoadingProcesses()

    def __len__(self) -> int:
        """Crops of all sources that have an end."""
        return sum(len(part.source) for part in self.training if not part.source.endless)

    @property
    def workers(self) -> int:
        """Loading processes: as asked, or none where all is at hand."""
        if self.args.workers is not None:
            return int(self.args.workers)
        at_hand = not rand_augments(self.args) and all(in_memory(part.source) for part in self.training)
        return 0 if at_hand else min(MOST_WORKERS, os.cpu_count() or 1)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Called by Lightning, when it knows its processes."""
        trainer = self.trainer
        assert trainer is not None
        names = [part.source.name for part in self.training]
        shares = shares_of([part.weight for part in self.training], self.args.batch_size * trainer.world_size, names)
        stream = BatchStream(
            [(part.source, share) for part, share in zip(self.training, shares, strict=True)],
            self.args.seed,
            self.first_step * trainer.accumulate_grad_batches,
            augment=self.augment,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        return DataLoader(stream, batch_size=None, num_workers=self.workers, worker_init_fn=self.processes)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader for each validation set, in the order of `validation`."""
        return [
            validation_loader(source, 0 if in_memory(source) else self.workers, self.processes)
            for source in self.validation.values()
        ]

    def broken(self) -> dict[str, int]:
        """How many images could not be decoded, by source, of those that are decoded when needed."""
        found: dict[str, int] = {}
        for source in [part.source for part in self.training] + list(self.validation.values()):
            for part in leaves(source):
                if isinstance(part, StoredSource) and part.broken:
                    found[part.name] = found.get(part.name, 0) + part.broken
        return found


def rand_augments(args: argparse.Namespace) -> bool:
    """Whether any crop is augmented as the reference does it, which takes the crop itself and time."""
    return "reference" in (args.augment, args.augment_real)


def in_memory(source: Source) -> bool:
    """Whether all of a source's crops are decoded already."""
    return all(isinstance(part, MemorySource) for part in leaves(source))


class DataBuilder:
    """Opens what the options name."""

    def __init__(self, args: argparse.Namespace, config: Config) -> None:
        self.args, self.config = args, config
        self.rules = LabelRules(
            config.charset_train,
            config.max_label_length,
            args.normalise_unicode,
            args.keep_whitespace,
            keep_empty=args.keep_empty,
        )
        self.validation: dict[str, list[Source]] = {}
        root = args.data_root
        self.validation_folders: list[Path] = list(args.validation)
        if not self.validation_folders and root is not None and (root / "val").is_dir():
            self.validation_folders = [root / "val"]

    def build(self, first_step: int) -> TrainingData:
        """The data of the run.

        Raises:
            DataError: there is nothing to train on, or something is not what it should be.
        """
        training = self._mixed() if self.args.source or self.args.train_dir else self._by_kind()
        if not training:
            raise DataError("nothing to train on: give --source, --synthetic, --real, --render or --data-root with --train-dir")
        if self.args.synthetic_validation:
            self._validate_on("synthetic", self._rendered(self.args.synthetic_validation))
        for folder in self.validation_folders:
            for source in self._open(folder):
                self._validate_on("validation", source)
        # In the order that runs have always had.
        order: tuple[str, ...] = ("synthetic", "real", "validation")
        validation = {name: join(name, self.validation[name]) for name in order if name in self.validation}
        return TrainingData(training, validation, self.args, first_step)

    def _validate_on(self, name: str, source: Source) -> None:
        self.validation.setdefault(name, []).append(source)

    def _mixed(self) -> list[Weighted]:
        """What `--source` and `--train-dir` name."""
        args = self.args
        if args.synthetic or args.real or args.real_caseless or args.render:
            raise DataError("give --source and --train-dir, or --synthetic, --real and --render: not both")
        named = [split_weight(word) for word in args.source]
        if args.train_dir:
            if args.data_root is None:
                raise DataError("--train-dir names a folder in train/ of --data-root: give that too")
            named.append((str(args.data_root / "train" / args.train_dir), 1.0))
        mixed = []
        for name, weight in named:
            if name == RENDER:
                mixed.append(Weighted(self._renderer(), weight))
                continue
            parts = self._open(Path(name))
            if not self.validation_folders and not args.synthetic_validation:
                parts = self._hold_out(parts)
            mixed.append(Weighted(self._join(name, parts), weight))
        return mixed

    def _by_kind(self) -> list[Weighted]:
        """What `--synthetic`, `--render`, `--real` and `--real-caseless` name."""
        args = self.args
        rendered: list[Source] = [self._rendered(folder) for folder in args.synthetic]
        drawn: list[Source] = [join("synthetic", rendered)] if rendered else []
        drawn += [self._renderer()] if args.render else []
        real = [part for folder in args.real for part in self._stored(find_lmdb(folder), self.rules)]
        caseless = replace(self.rules, letters=False)
        real += [part for folder in args.real_caseless for part in self._stored(find_lmdb(folder), caseless)]
        real = self._hold_out(real)
        share = args.real_share if real else 0.0
        if not drawn:
            return [Weighted(self._join("real", real), 1.0)] if real else []
        mixed = [Weighted(source, (1 - share) / len(drawn)) for source in drawn if share < 1]
        return mixed + ([Weighted(self._join("real", real), share)] if share > 0 else [])

    def _join(self, name: str, parts: Sequence[Source]) -> Source:
        """One source, in which `--augment-real` holds for crops that are not rendered."""
        rendered = [part for part in parts if isinstance(part, RenderedCrops)]
        real = [part for part in parts if not isinstance(part, RenderedCrops)]
        if self.args.augment_real == "none" or not real:
            return join(name, parts)
        return join(name, [*rendered, AugmentedSource(name, real, RandAugment())])

    def _hold_out(self, parts: Sequence[Source]) -> list[Source]:
        """Keep every tenth crop of stored sources for validation; the rest."""
        rest: list[Source] = []
        for part in parts:
            numbers = np.arange(len(part))
            held, used = numbers[::HELD_OUT_EVERY], numbers[numbers % HELD_OUT_EVERY != 0]
            if isinstance(part, RenderedCrops) or not len(used):
                rest.append(part)
            elif isinstance(part, StoredSource):
                self._validate_on("real", part.part(held, part.name))
                rest.append(part.part(used, part.name))
            elif isinstance(part, MemorySource):
                self._validate_on("real", MemorySource(part.name, part.held.take(held)))
                rest.append(MemorySource(part.name, part.held.take(used)))
        return rest

    def _open(self, path: Path) -> list[Source]:
        """All crops of a file of labels, or at and below a folder, of whichever kind."""
        if path.is_file():
            return self._stored([path], self.rules)
        shards = sorted({found.parent for found in files_below(path) if fnmatch(found.name, SHARDS)})
        stored = find_archives(path) + find_label_files(path)
        if not shards and not stored:
            raise DataError(
                f"{path} holds no crops: no LMDB archive (data.mdb), rendered crops (shard-*.npz) or file of labels "
                f"({', '.join(NAMES)}), here or below{named_otherwise(path)}"
            )
        return [self._rendered(folder) for folder in shards] + self._stored(stored, self.rules)

    def _rendered(self, folder: Path) -> Source:
        alterations = Alterations()
        crops = read_synthetic(folder, self.rules, alterations)
        height, width = self.config.img_size
        if crops.images.shape[1:3] != (height, width):
            raise DataError(f"{folder} holds crops of another size: render with --image-size {height} {width}")
        print(f"{folder.name}: {len(crops)} rendered crops", file=sys.stderr)
        tell_alterations(folder.name, alterations)
        return RenderedCrops(folder.name, crops)

    def _renderer(self) -> Source:
        args = self.args
        recipe = Recipe(
            "train",
            args.seed,
            tuple(args.render_fonts) or FONT_FOLDERS,
            words=args.render_words,
            wide=args.render_wide,
            extra_characters="".join(c for c in EXTRA_CHARACTERS if c in self.config.charset_train),
        )
        lost = [character for character in PRINTABLE if not self.rules.spell(character)]
        if lost:
            told = f"draws characters that the charset has not, and their labels lack them: {''.join(lost)!r}"
            print(f"{RENDER}: {told}; to keep them: {add_option(lost)}", file=sys.stderr)
        try:
            return RenderedSource(recipe, self.config.img_size, self.rules)
        except (FontsNotFoundError, DictionaryNotFoundError, NoWordsError) as error:
            raise DataError(str(error)) from None

    def _stored(self, paths: Sequence[Path], rules: LabelRules) -> list[Source]:
        """LMDB archives and files of labels, in memory or not."""
        counts = [len(Archive(path)) if path.is_dir() else sum(1 for _ in read_labels(path)) for path in paths]
        lazy = self._lazy(sum(counts))
        found: list[Source] = []
        for path, count in zip(paths, counts, strict=True):
            alterations = Alterations()
            source = self._read(path, rules, alterations, lazy=lazy)
            how = ", decoded when needed" if lazy else ""
            print(f"{source.name}: {len(source)} crops, {count - len(source)} left out{how}", file=sys.stderr)
            tell_alterations(source.name, alterations)
            found.append(source)
        return found

    def _read(self, path: Path, rules: LabelRules, alterations: Alterations, *, lazy: bool) -> Source:
        size = self.config.img_size
        if lazy:
            return open_stored(path, size, rules, alterations)
        if path.is_dir():
            return MemorySource(path.name, read_crops(iterate_lmdb(path), size, rules, path, alterations)[0])
        return MemorySource(path.parent.name, read_label_file(path, size, rules, alterations)[0])

    def _lazy(self, crops: int) -> bool:
        if self.args.lazy is not None:
            return bool(self.args.lazy)
        height, width = self.config.img_size
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return rand_augments(self.args) or crops * height * width * 3 > MEMORY_SHARE * memory


def tell_alterations(name: str, alterations: Alterations) -> None:
    """Tell what the labels of a source lose to the charset, if anything, and how to keep it."""
    if told := str(alterations):
        print(f"{name}: {told}; to keep them: {add_option(alterations.characters())}", file=sys.stderr)


def split_weight(word: str) -> tuple[str, float]:
    """`WHAT=WEIGHT`, or `WHAT` alone with weight 1; a path may hold `=` itself."""
    name, _, weight = word.rpartition("=")
    if name:
        try:
            return name, float(weight)
        except ValueError:
            pass
    return word, 1.0
