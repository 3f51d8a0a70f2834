"""Crops from folders, for calibration and for the parity gate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from export.gate.crops import GateCrop, word_crops
from model.recognisers.interface import Config

if TYPE_CHECKING:
    from model.data.crops import CropArrays

CALIBRATION_CROPS: Final = 256
"""Enough for the smallest and largest values to settle."""
SEED: Final = 20220702


class CropSourceError(ValueError):
    """A folder holds no crops that can be used; the message names the cause and the cure."""


def calibration_crops(folders: Sequence[Path], config: Config) -> tuple[NDArray[np.uint8], str]:
    """Crops to calibrate on, uint8 `(N, H, W, 3)`, and a description of them.

    Args:
        folders: Where they are, each giving the same share of them, if it has so many; none: they are drawn.
        config: The network's.

    Raises:
        CropSourceError: A folder has none that can be used.
    """
    if not folders:
        drawn = word_crops(config.img_size, config.charset_train, config.max_label_length, CALIBRATION_CROPS, SEED)
        return np.stack([crop.pixels for crop in drawn]), f"{len(drawn)} drawn crops"
    taken, said = [], []
    for number, folder in enumerate(folders):
        crops = _read(folder, config)
        share = CALIBRATION_CROPS * (number + 1) // len(folders) - CALIBRATION_CROPS * number // len(folders)
        chosen = np.random.default_rng(SEED).permutation(len(crops.labels))[:share]
        taken.append(crops.images[chosen])
        said.append(f"{len(chosen)} crops of {folder.resolve().name}")
    return np.concatenate(taken), " and ".join(said)


def parity_data(folder: Path, config: Config) -> list[GateCrop]:
    """All crops of a folder, for the parity gate."""
    crops = _read(folder, config)
    names = (f"{number} of {folder.resolve().name}, label {label!r}" for number, label in enumerate(crops.labels, start=1))
    return [GateCrop(name, image) for name, image in zip(names, crops.images, strict=True)]


def _read(folder: Path, config: Config) -> CropArrays:
    """Read rendered shards, or all LMDB archives and labelled image files in a folder.

    Raises:
        CropSourceError: There are no such crops, or they have another size.
    """
    try:
        from model.data.archives import find_archives
        from model.data.crops import concatenate, read_crops, read_synthetic
        from model.data.label_files import NAMES, find_label_files, named_otherwise
        from model.data.labels import LabelRules
        from model.data.shards import MANIFEST
        from model.data.sources import stored_at
        from model.errors import DataError
    except ModuleNotFoundError as error:
        raise CropSourceError(
            f"reading crops from {folder} needs the package {error.name}: pip install 'parseq-service[train]'"
        ) from error
    try:
        if (folder / MANIFEST).is_file():
            crops = read_synthetic(folder)
        else:
            found = [folder] if folder.is_file() else find_archives(folder) + find_label_files(folder)
            if not found:
                raise CropSourceError(
                    f"{folder} holds no crops: no LMDB archive (data.mdb), rendered crops ({MANIFEST}) or file of labels "
                    f"({', '.join(NAMES)}), here or below{named_otherwise(folder)}"
                )
            rules = LabelRules(config.charset_train, config.max_label_length, keep_empty=True)
            crops = concatenate([read_crops(stored_at(path)[1], config.img_size, rules, path)[0] for path in found])
    except DataError as error:
        raise CropSourceError(str(error)) from error
    if crops.images.shape[1:3] != config.img_size:
        size = "x".join(map(str, crops.images.shape[1:3]))
        raise CropSourceError(f"the crops in {folder} have {size} pixels, the network reads {config.img_size}: render others")
    return crops
