"""Rendered crops by number, following a recipe; several processes write them as shards."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from artifact.files import write_whole
from artifact.fit import fit
from model.data.shards import MANIFEST, ShardError, read_array
from model.synth.lettering.fonts import DEFAULT_CACHE, FONT_FOLDERS, Face, FontsNotFoundError, load_faces, split_faces
from model.synth.render import CropRenderer, RenderedCrop
from model.synth.scene.blanks import draw_blank, slice_of
from model.synth.words.corpus import MAX_LENGTH, WIDE_KINDS, Corpus, TextKind, read_dictionary
from model.synth.words.split import Split

# One stream of random numbers for each split: the same seed never draws the same crop in both.
_STREAMS: Final[dict[Split, int]] = {"train": 0, "validation": 1}

WIDE_CURVED_SHARE: Final = 0.28
WIDE_BLANK_SHARE: Final = 0.08
SLICE_SHARE: Final = 0.2
"""Of the crops without text, those that show slivers of letters."""
CropSource = Callable[[int], RenderedCrop]


@dataclass(frozen=True)
class Recipe:
    """Everything that, together with the fonts installed, decides what crop `i` looks like."""

    split: Split
    seed: int
    font_folders: Sequence[Path] = FONT_FOLDERS
    cache: Path | None = DEFAULT_CACHE
    words: Path | None = None
    """A file of words to draw from, one a line, instead of the dictionaries."""
    curved: bool = False
    """Bend every word and add many effects, to test how a model reads such words."""
    wide: bool = False
    """Longer tails: unusual faces and letterings, hard light, wide bends, long texts, and crops without any text."""
    extra_characters: str = ""
    """What texts may hold beyond printable ASCII, of `phrases.EXTRA_CHARACTERS`; what no face has is not drawn."""
    only: TextKind | Literal["blank"] | None = None
    """Draw only this kind of text, or only crops without text: for test sets."""

    def source(self) -> CropSource:
        """A function from an index to its crop. Raises FontsNotFoundError or DictionaryNotFoundError."""
        faces = split_faces(load_faces(self.font_folders, self.cache), self.split)
        if not faces:
            raise FontsNotFoundError(self.font_folders, self.split)
        words = None if self.words is None else read_dictionary(self.words)
        kinds = {self.only: 1.0} if self.only and self.only != "blank" else WIDE_KINDS if self.wide else None
        drawable = set().union(*(face.characters for face in faces)) | {" "}
        extra = "".join(character for character in self.extra_characters if character in drawable)
        corpus = Corpus(self.split, words, words, kinds=kinds, extra=extra)
        return partial(render_indexed, corpus, self._renderer(faces), self)

    def _renderer(self, faces: Sequence[Face]) -> CropRenderer:
        if self.curved:
            return CropRenderer(faces, clean_share=0, curved_share=1)
        if self.wide:
            return CropRenderer(faces, clean_share=0.25, curved_share=WIDE_CURVED_SHARE, wide=True)
        return CropRenderer(faces)

    @property
    def blank_share(self) -> float:
        """The share of crops without text."""
        return 1.0 if self.only == "blank" else WIDE_BLANK_SHARE if self.wide and self.only is None else 0.0


@dataclass(frozen=True)
class ShardFormat:
    """How crops are stored: image (height, width) in pixels, and crops a shard."""

    image_size: tuple[int, int] = (32, 128)
    shard_size: int = 2000


def render_indexed(corpus: Corpus, renderer: CropRenderer, recipe: Recipe, index: int) -> RenderedCrop:
    """Crop number `index`: it depends on the recipe and the index alone."""
    rng = np.random.default_rng((recipe.seed, _STREAMS[recipe.split], index))
    if recipe.blank_share and rng.random() < recipe.blank_share:
        return _blank(corpus, renderer, rng)
    return renderer.render(corpus.sample(rng), rng)


def _blank(corpus: Corpus, renderer: CropRenderer, rng: np.random.Generator) -> RenderedCrop:
    """A crop without text: nothing at all, or what is left of letters that were cut."""
    image = draw_blank(rng)
    if rng.random() < SLICE_SHARE:
        text = corpus.sample(rng)
        if text.isalnum():
            image = slice_of(renderer.render(text, rng).image, rng)
    return RenderedCrop(image, "", np.empty((0, 2), np.float32))


def write_shards(
    output: Path,
    source: Callable[[], CropSource],
    count: int,
    shape: ShardFormat = ShardFormat(),
    *,
    workers: int = 1,
    name: str = "",
    progress: bool = False,
) -> int:
    """Write crops 0 to `count` - 1 as `shard-00000.npz`, ... into `output`; returns how many shards were new.

    `source` is called once in each process. Complete shards are kept, so that a stopped run resumes and a larger
    `count` extends it; a shard appears under its name only when it is whole. `name` says what is drawn. Raises
    ShardError when the folder holds shards of another name or format.
    """
    output.mkdir(parents=True, exist_ok=True)
    _claim(output, {"name": name, "image_size": list(shape.image_size), "shard_size": shape.shard_size})
    starts = range(0, count, shape.shard_size)
    jobs = [
        _Job(output / f"shard-{number:05d}.npz", start, min(start + shape.shard_size, count), shape.image_size)
        for number, start in enumerate(starts)
    ]
    missing = [job for job in jobs if not job.is_done()]
    with tqdm(total=sum(job.size for job in missing), unit="crop", disable=not progress) as bar:
        for written in _run(source, missing, workers):
            bar.update(written)
    return len(missing)


def resized(crop: RenderedCrop, image_size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """The crop as the model sees it: pixels uint8 (height, width, 3), centres float16 (25, 2) as fractions."""
    return fit(crop.image, *image_size), crop.relative_centers


@dataclass(frozen=True)
class _Job:
    path: Path
    start: int
    stop: int
    image_size: tuple[int, int]

    @property
    def size(self) -> int:
        return self.stop - self.start

    def is_done(self) -> bool:
        # The last shard of a smaller run is short: it is written again when the run is extended.
        return self.path.exists() and len(read_array(self.path, "labels")) >= self.size


def _write_shard(source: CropSource, job: _Job) -> int:
    images = np.empty((job.size, *job.image_size, 3), np.uint8)
    centers = np.empty((job.size, MAX_LENGTH, 2), np.float16)
    labels = []
    for row, index in enumerate(range(job.start, job.stop)):
        crop = source(index)
        images[row], centers[row] = resized(crop, job.image_size)
        labels.append(crop.text)
    buffer = io.BytesIO()
    np.savez(buffer, images=images, labels=np.array(labels), glyph_centers=centers)
    write_whole(job.path, buffer.getvalue())
    return job.size


def _claim(output: Path, wanted: dict[str, object]) -> None:
    """Note in the folder what it holds; refuse to mix."""
    manifest = output / MANIFEST
    if manifest.exists():
        found = json.loads(manifest.read_text(encoding="utf-8"))
        if found != wanted:
            raise ShardError(f"{output} holds other shards ({found}, not {wanted}): choose another folder")
        return
    write_whole(manifest, f"{json.dumps(wanted)}\n".encode())


def _run(source: Callable[[], CropSource], jobs: Sequence[_Job], workers: int) -> Iterator[int]:
    """Do the jobs here, or in as many processes as asked; yields the size of each when it is done."""
    workers = min(workers, len(jobs))
    if not jobs:
        return
    if workers == 1:
        yield from map(partial(_write_shard, source()), jobs)
        return
    # Spawned, not forked: the caller may run threads (torch does), whose locks a fork would copy as they are.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (source,))
    try:
        for future in as_completed([pool.submit(_work, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_worker_source: CropSource | None = None


def _start_worker(source: Callable[[], CropSource]) -> None:
    global _worker_source
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _worker_source = source()


def _leave_with_parent() -> None:
    """Workers wait for work for ever when their parent is killed: end with it instead."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: _Job) -> int:
    assert _worker_source is not None
    return _write_shard(_worker_source, job)
