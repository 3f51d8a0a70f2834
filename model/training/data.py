"""What a run trains and validates on, from its options."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import lightning
import numpy as np
from torch.utils.data import DataLoader, Dataset

from model.augmentation.rand_augment import RandAugment
from model.data.crops import Batch, CropArrays
from model.data.labels import LabelRules
from model.data.sources import MemorySource, Source, StoredSource, join, leaves
from model.data.stream import BatchStream, shares_of
from model.errors import DataError
from model.recognisers.interface import Config
from model.synth.dataset import Recipe
from model.synth.lettering.fonts import FONT_FOLDERS
from model.synth.words.phrases import EXTRA_CHARACTERS
from model.training.opening import CropLocation, SourceOpener, SourceSpec
from model.training.options import TrainOptions
from model.training.stopping import LoadingProcesses

VALIDATION_BATCH: Final = 100
VALIDATION_ORDER: Final[tuple[str, ...]] = ("synthetic", "real", "validation")
"""The order of validation sets; earlier runs have it too."""
MOST_WORKERS: Final = 4
RENDER: Final = "render"


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
        return -(-len(self.source) // VALIDATION_BATCH)

    def __getitem__(self, index: int) -> Batch:
        if index >= len(self):
            raise IndexError(index)
        numbers = np.arange(index * VALIDATION_BATCH, min((index + 1) * VALIDATION_BATCH, len(self.source)))
        return self.source.crops(numbers, None, [()] * len(numbers)).batch()


def validation_loader(
    crops: CropArrays | Source, workers: int = 0, processes: Callable[[int], None] | None = None
) -> DataLoader[Batch]:
    """All of `crops` once, in order, by `workers` processes that call `processes` when they start."""
    source = MemorySource("validation", crops) if isinstance(crops, CropArrays) else crops
    return DataLoader(ValidationBatches(source), batch_size=None, num_workers=workers, worker_init_fn=processes)


class TrainingData(lightning.LightningDataModule):
    """The stream of training batches and the validation loaders of a run."""

    def __init__(
        self, training: Sequence[Weighted], validation: dict[str, Source], options: TrainOptions, first_step: int
    ) -> None:
        super().__init__()
        self.training, self.validation = list(training), validation
        self.options, self.first_step = options, first_step
        self.augment = RandAugment() if options.augment == "reference" else None
        self.processes = LoadingProcesses()

    def __len__(self) -> int:
        """Crops of all sources that have an end."""
        return sum(len(part.source) for part in self.training if not part.source.endless)

    @property
    def workers(self) -> int:
        """Number of loading processes: as asked, or none if all crops are in memory."""
        if self.options.workers is not None:
            return self.options.workers
        at_hand = not self.options.rand_augments and all(in_memory(part.source) for part in self.training)
        return 0 if at_hand else min(MOST_WORKERS, os.cpu_count() or 1)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Called by Lightning, when it knows its processes."""
        trainer = self.trainer
        assert trainer is not None
        names = [part.source.name for part in self.training]
        shares = shares_of([part.weight for part in self.training], self.options.batch_size * trainer.world_size, names)
        stream = BatchStream(
            [(part.source, share) for part, share in zip(self.training, shares, strict=True)],
            self.options.seed,
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
        """By source, how many images could not be decoded, of sources that decode them when needed."""
        found: dict[str, int] = {}
        for source in [part.source for part in self.training] + list(self.validation.values()):
            for part in leaves(source):
                if isinstance(part, StoredSource) and part.broken:
                    found[part.name] = found.get(part.name, 0) + part.broken
        return found


def in_memory(source: Source) -> bool:
    """Whether all of a source's crops are decoded already."""
    return all(isinstance(part, MemorySource) for part in leaves(source))


def build_data(options: TrainOptions, config: Config, first_step: int) -> TrainingData:
    """The data of a run whose network has `config`; its stream begins with the batch of `first_step`.

    Raises:
        DataError: There is nothing to train on, or a source cannot be used.
    """
    rules = LabelRules(
        config.charset_train,
        config.max_label_length,
        options.normalise_unicode,
        options.keep_whitespace,
        keep_empty=options.keep_empty,
    )
    lazy = True if options.lazy is None and options.rand_augments else options.lazy
    opener = SourceOpener(config.img_size, rules, renderer_recipe(options, config.charset_train), lazy=lazy)
    places = validation_places(options, rules)
    training, validation = [], dict[str, list[Source]]()
    for spec in source_specs(options, rules, validates=bool(places)):
        source, held = opener.source(spec)
        if held:
            validation.setdefault("real", []).extend(held)
        if spec.weight is not None:
            training.append(Weighted(source, spec.weight))
    if not training:
        raise DataError("nothing to train on: give --source, --synthetic, --real, --render or --data-root with --train-dir")
    for name, place in places:
        validation.setdefault(name, []).extend(opener.open(place))
    joined = {name: join(name, validation[name]) for name in VALIDATION_ORDER if name in validation}
    return TrainingData(training, joined, options, first_step)


def renderer_recipe(options: TrainOptions, charset: str) -> Recipe:
    """What `--render` draws."""
    return Recipe(
        "train",
        options.seed,
        tuple(options.render_fonts) or FONT_FOLDERS,
        words=options.render_words,
        wide=options.render_wide,
        extra_characters="".join(character for character in EXTRA_CHARACTERS if character in charset),
    )


def validation_places(options: TrainOptions, rules: LabelRules) -> list[tuple[str, CropLocation]]:
    """The validation sets by name, besides crops that are held out of training."""
    folders = list(options.validation)
    if not folders and options.data_root is not None and (options.data_root / "val").is_dir():
        folders = [options.data_root / "val"]
    rendered = options.synthetic_validation
    synthetic = [] if rendered is None else [("synthetic", CropLocation(rendered, rules, "shards"))]
    return [*synthetic, *(("validation", CropLocation(folder, rules)) for folder in folders)]


def source_specs(options: TrainOptions, rules: LabelRules, *, validates: bool) -> list[SourceSpec]:
    """The sources that the options name; if no validation crops are given, some are held out of them.

    Raises:
        DataError: The options contradict each other.
    """
    if options.source or options.train_dir:
        return _mixed(options, rules, validates=validates)
    return _by_kind(options, rules)


def _mixed(options: TrainOptions, rules: LabelRules, *, validates: bool) -> list[SourceSpec]:
    """The sources that `--source` and `--train-dir` name."""
    if options.synthetic or options.real or options.real_caseless or options.render:
        raise DataError("give --source and --train-dir, or --synthetic, --real and --render: not both")
    named = [split_weight(word) for word in options.source]
    if options.train_dir:
        if options.data_root is None:
            raise DataError("--train-dir names a folder in train/ of --data-root: give that too")
        named.append((str(options.data_root / "train" / options.train_dir), 1.0))
    augment = _augment_real(options)
    return [
        SourceSpec(name, () if name == RENDER else (CropLocation(Path(name), rules),), weight, augment, hold_out=not validates)
        for name, weight in named
    ]


def _by_kind(options: TrainOptions, rules: LabelRules) -> list[SourceSpec]:
    """The sources that `--synthetic`, `--render`, `--real` and `--real-caseless` name."""
    rendered = tuple(CropLocation(folder, rules, "shards") for folder in options.synthetic)
    drawn = [("synthetic", rendered)] if rendered else []
    drawn += [(RENDER, ())] if options.render else []
    caseless = replace(rules, letters=False)
    real = tuple(CropLocation(folder, rules, "archives") for folder in options.real)
    real += tuple(CropLocation(folder, caseless, "archives") for folder in options.real_caseless)
    share = 0.0 if not real else options.real_share if drawn else 1.0
    specs = [SourceSpec(name, places, (1 - share) / len(drawn) if share < 1 else None) for name, places in drawn]
    if real:
        specs.append(SourceSpec("real", real, share if share > 0 else None, _augment_real(options), hold_out=True))
    return specs


def _augment_real(options: TrainOptions) -> RandAugment | None:
    return RandAugment() if options.augment_real == "reference" else None


def split_weight(word: str) -> tuple[str, float]:
    """`WHAT=WEIGHT`, or `WHAT` alone with weight 1; a path may hold `=` itself."""
    name, _, weight = word.rpartition("=")
    if name:
        try:
            return name, float(weight)
        except ValueError:
            pass
    return word, 1.0
