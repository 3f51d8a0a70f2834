"""Shards of rendered crops as `python -m model.synth` writes them: `shard-00000.npz`, ... in a folder.

Each holds `images` uint8 `(n, height, width, 3)`, `labels` and `glyph_centers` float16 `(n, 25, 2)`.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.data.walk import files_below
from model.errors import DataError

SHARDS: Final = "shard-*.npz"
MANIFEST: Final = "shards.json"
"""Beside them: what they were rendered with."""


class ShardError(DataError):
    """Shards do not fit together, or a file is not a shard."""


class Shards(NamedTuple):
    """All crops of a folder."""

    images: NDArray[np.uint8]
    """`(n, height, width, 3)`, RGB."""
    labels: list[str]
    glyph_centers: NDArray[np.float16]
    """`(n, 25, 2)`: x and y as fractions of width and height, NaN after a label's end."""


def find_shards(folder: Path) -> list[Path]:
    """The folders of shards at and below `folder`, sorted."""
    return sorted({path.parent for path in files_below(folder) if fnmatch(path.name, SHARDS)})


def load_shards(folder: Path) -> Shards:
    """Load every complete shard of `folder` in order, also while a writer is adding more.

    Raises:
        FileNotFoundError: There is none yet.
        ShardError: A file is damaged, or image sizes differ.
    """
    # Listed once: what a writer adds from here on is for the next call.
    paths = sorted(folder.glob(SHARDS))
    if not paths:
        raise FileNotFoundError(f"no shards in {folder}: write some with `python -m model.synth --output {folder}`")
    labels = [read_array(path, "labels") for path in paths]
    ends = np.cumsum([len(part) for part in labels])
    first = read_array(paths[0], "images")
    # Filled in place: the parts and their concatenation together would need twice the memory.
    images = np.empty((int(ends[-1]), *first.shape[1:]), np.uint8)
    for path, end, part in zip(paths, ends, labels, strict=True):
        pixels = read_array(path, "images")
        if pixels.shape != (len(part), *first.shape[1:]):
            raise ShardError(f"{path} holds images of shape {pixels.shape}, other shards of {first.shape}")
        images[end - len(part) : end] = pixels
    centers = np.concatenate([read_array(path, "glyph_centers") for path in paths])
    return Shards(images, [str(label) for part in labels for label in part], centers)


def read_array(path: Path, name: str) -> NDArray[Any]:
    """One of a shard's arrays.

    Raises:
        ShardError: The file is not a shard.
    """
    try:
        with np.load(path) as shard:
            return np.asarray(shard[name])
    except Exception as error:  # as many kinds as there are ways to be no archive of arrays
        raise ShardError(f"{path} is not a shard of crops: delete it and render again") from error
