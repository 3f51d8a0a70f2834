"""Sources of crops and their mixture: the same crops from memory, archive, folder or several processes."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from model.augmentation.rand_augment import RandAugment
from model.charsets import DIGITS_AND_LOWERCASE, PRINTABLE
from model.data.archives import Archive, find_lmdb
from model.data.crops import Batch, CropArrays, read_crops, read_lmdb, read_synthetic
from model.data.label_files import LabelledFiles
from model.data.labels import LabelRules
from model.data.sources import AugmentedSource, JoinedSource, MemorySource, Source, StoredSource, stored_at
from model.data.stream import BatchStream, shares_of
from model.errors import DataError
from model.synth.dataset import Recipe, render_indexed
from model.synth.lettering.fonts import embedded_face
from model.synth.render import CropRenderer
from model.synth.source import RenderedSource
from model.synth.words.corpus import Corpus
from model.synth.words.sign_words import SIGN_WORDS
from tests.archives import crops, picture, write_lmdb

SIZE = (32, 128)
RULES = LabelRules(PRINTABLE, 25)


def samples(count: int) -> list[tuple[bytes, str]]:
    return [(picture(i), f"w{i}") for i in range(count)]


def write_folder(folder: Path, content: list[tuple[bytes, str]]) -> Path:
    folder.mkdir()
    for index, (image, _) in enumerate(content):
        (folder / f"{index}.png").write_bytes(image)
    (folder / "labels.tsv").write_text("".join(f"{i}.png\t{label}\n" for i, (_, label) in enumerate(content)))
    return folder


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Of a renderer that needs neither fonts nor dictionaries."""
    corpus, renderer = Corpus("train", SIGN_WORDS, SIGN_WORDS), CropRenderer([embedded_face()])
    monkeypatch.setattr(Recipe, "source", lambda self: partial(render_indexed, corpus, renderer, self))
    return Recipe("train", 5)


def test_stored_crops_are_the_same_in_memory_and_on_demand(tmp_path: Path) -> None:
    content = [*samples(4), (picture(9), "!!"), (picture(8), "x" * 30)]
    archive, folder = write_lmdb(tmp_path / "lmdb", content), write_folder(tmp_path / "folder", content)
    held, left_out = read_lmdb(archive, SIZE, PRINTABLE, 25)
    assert (held.labels, left_out) == (["w0", "w1", "w2", "w3", "!!"], 1)
    numbers = np.array([3, 0, 4])
    expected, labels = held.take(numbers), folder / "labels.tsv"
    assert np.array_equal(read_crops(LabelledFiles(labels), SIZE, RULES, labels)[0].images, held.images)
    for source in (StoredSource(*stored_at(archive), SIZE, RULES), StoredSource(*stored_at(labels), SIZE, RULES)):
        assert len(source) == 5
        found = source.crops(numbers, None, [()] * 3)
        assert found.labels == expected.labels
        assert np.array_equal(found.images, expected.images)
        assert np.isnan(found.centers).all()


def test_broken_crops_are_skipped_and_counted_once(tmp_path: Path) -> None:
    content = samples(5)
    content[1] = (b"no picture", "w1")
    content[2] = (picture(2)[:-40], "w2")
    source = StoredSource(*stored_at(write_lmdb(tmp_path / "lmdb", content)), SIZE, RULES)
    for _ in range(2):
        assert source.crops(np.array([0, 1, 2, 4]), None, [()] * 4).labels == ["w0", "w3", "w3", "w4"]
    assert source.broken == 2
    missing = write_folder(tmp_path / "folder", samples(2))
    (missing / "1.png").unlink()
    assert read_crops(LabelledFiles(missing / "labels.tsv"), SIZE, RULES, missing)[1] == 1
    bad = write_lmdb(tmp_path / "bad", [(b"", "a"), (b"", "b")])
    with pytest.raises(DataError, match="no image in bad can be decoded"):
        StoredSource(*stored_at(bad), SIZE, RULES).crops(np.array([1]), None, [()])
    with pytest.raises(DataError, match="no usable crop in bad"):
        StoredSource(*stored_at(bad), SIZE, LabelRules("x", 25))


def test_broken_crops_are_counted_across_processes(tmp_path: Path) -> None:
    content = samples(6)
    content[3] = (b"no picture", "w3")
    source = StoredSource(*stored_at(write_lmdb(tmp_path / "lmdb", content)), SIZE, RULES)
    list(islice(DataLoader(BatchStream([(source, 6)], seed=0), batch_size=None, num_workers=2), 2))
    assert source.broken == 1


def test_links_to_archives_are_followed(tmp_path: Path) -> None:
    real = write_lmdb(tmp_path / "elsewhere" / "set", samples(1))
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "link").symlink_to(real.parent)
    assert find_lmdb(tmp_path / "train") == [tmp_path / "train" / "link" / "set"]
    # A folder that is linked into itself, also by way of another.
    (real.parent / "loop").symlink_to(real.parent)
    (real.parent / "back").symlink_to(tmp_path / "train")
    assert find_lmdb(tmp_path / "train") == [tmp_path / "train" / "link" / "set"]


def test_an_archive_can_be_opened_twice(tmp_path: Path) -> None:
    folder = write_lmdb(tmp_path / "set", samples(2))
    first, second = Archive(folder), Archive(folder)
    assert (first.label(0), second.label(1)) == ("w0", "w1")


def test_joined_sources_keep_the_order_asked_for() -> None:
    joined = JoinedSource("all", [MemorySource("a", crops(3)), MemorySource("b", crops(4, 10))])
    assert len(joined) == 7
    found = joined.crops(np.array([6, 0, 3, 2]), None, [()] * 4)
    assert found.labels == ["13", "0", "10", "2"]
    assert found.images[:, 0, 0, 0].tolist() == [13, 0, 10, 2]


def test_rendered_crops_follow_the_charset(recipe: Recipe) -> None:
    source = RenderedSource(recipe, SIZE, LabelRules(DIGITS_AND_LOWERCASE, 6))
    found = source.crops(np.arange(40), None, [()] * 40)
    assert all(0 < len(label) <= 6 and set(label) <= set(DIGITS_AND_LOWERCASE) for label in found.labels)
    known = ~np.isnan(found.centers).any(-1)
    assert known.sum(1).tolist() == [len(label) for label in found.labels]
    again = RenderedSource(recipe, SIZE, LabelRules(DIGITS_AND_LOWERCASE, 6)).crops(np.array([7]), None, [()])
    assert np.array_equal(again.images[0], found.images[7])


def test_rendered_shards_follow_the_charset(tmp_path: Path) -> None:
    centers = np.full((3, 25, 2), np.nan, np.float16)
    for row, label in zip(centers, ("It's", "!!", "ab"), strict=True):
        row[: len(label)] = np.arange(len(label))[:, None] / 8
    images = np.arange(3, dtype=np.uint8)[:, None, None, None].repeat(3, -1)
    np.savez(tmp_path / "shard-00000.npz", images=images, labels=np.array(["It's", "!!", "ab"]), glyph_centers=centers)
    found = read_synthetic(tmp_path, LabelRules(DIGITS_AND_LOWERCASE, 25))
    assert found.labels == ["its", "ab"]
    assert found.images[:, 0, 0, 0].tolist() == [0, 2]
    assert found.centers[0, :4, 0].tolist()[:3] == [0, 1 / 8, 3 / 8]
    assert np.isnan(found.centers[0, 3:]).all()
    with pytest.raises(DataError, match="no usable crop"):
        read_synthetic(tmp_path, LabelRules("ж", 25))


def mixture(tmp_path: Path, recipe: Recipe) -> list[tuple[CropArrays | Source, int]]:
    archive = tmp_path / "lmdb"
    if not archive.exists():
        write_lmdb(archive, samples(5))
    memory, _ = read_lmdb(archive, SIZE, PRINTABLE, 25)
    return [(memory, 2), (StoredSource(*stored_at(archive), SIZE, RULES), 3), (RenderedSource(recipe, SIZE, RULES), 3)]


def same(left: Batch, right: Batch) -> bool:
    return (
        left.labels == right.labels
        and left.images.equal(right.images)
        and np.array_equal(left.centers.numpy(), right.centers.numpy(), equal_nan=True)
    )


def test_any_number_of_processes_gives_the_same_augmented_batches(tmp_path: Path, recipe: Recipe) -> None:
    stream = BatchStream(mixture(tmp_path, recipe), seed=3, augment=RandAugment())
    expected = [stream.batch(step) for step in range(5)]
    plain = BatchStream(mixture(tmp_path, recipe), seed=3).batch(0)
    assert plain.labels == expected[0].labels
    assert not plain.images.equal(expected[0].images)
    for workers, first in ((1, 0), (2, 2)):
        stream = BatchStream(mixture(tmp_path, recipe), seed=3, first_step=first, augment=RandAugment())
        found = list(islice(DataLoader(stream, batch_size=None, num_workers=workers), 5 - first))
        assert all(same(left, right) for left, right in zip(found, expected[first:], strict=True))


def test_a_source_can_be_augmented_in_a_way_of_its_own(tmp_path: Path, recipe: Recipe) -> None:
    (memory, _), (stored, _), _ = mixture(tmp_path, recipe)
    assert isinstance(memory, CropArrays)
    assert isinstance(stored, StoredSource)
    plain = BatchStream([(memory, 3), (stored, 4)], seed=3).batch(0)
    altered = BatchStream([(memory, 3), (AugmentedSource("real", [stored], RandAugment()), 4)], seed=3).batch(0)
    wholly = BatchStream([(memory, 3), (stored, 4)], seed=3, augment=RandAugment()).batch(0)
    assert plain.labels == altered.labels == wholly.labels
    assert altered.images[:3].equal(plain.images[:3])
    assert altered.images[3:].equal(wholly.images[3:])
    assert not altered.images[3:].equal(plain.images[3:])


def test_training_processes_share_the_batch_of_one(tmp_path: Path, recipe: Recipe) -> None:
    sources = mixture(tmp_path, recipe)
    whole = BatchStream(sources, seed=3, augment=RandAugment()).batch(4)
    for rank in range(2):
        part = BatchStream(sources, seed=3, augment=RandAugment(), rank=rank, world_size=2).batch(4)
        assert part.labels == whole.labels[rank::2]
        assert part.images.equal(whole.images[rank::2])


def test_shares_follow_the_weights() -> None:
    assert shares_of([0.84, 0.16], 64, ["a", "b"]) == [54, 10]
    assert shares_of([1, 1, 1], 8, ["a", "b", "c"]) == [3, 3, 2]
    assert shares_of([3], 5, ["a"]) == [5]
    with pytest.raises(DataError, match="the weight of b is too small for one crop in a batch of 8"):
        shares_of([100, 1], 8, ["a", "b"])
    for weight in (0, -1, float("nan"), float("inf")):
        with pytest.raises(DataError, match="the weight of b must be a number greater than 0"):
            shares_of([1, weight], 8, ["a", "b"])
