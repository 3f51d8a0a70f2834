from __future__ import annotations

import io
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from model.charsets import DIGITS_AND_LOWERCASE, PRINTABLE
from model.data import Crops, DataError, concatenate, find_lmdb, iterate_lmdb, read_lmdb, read_synthetic
from model.preprocess import resize
from model.stream import BatchStream


def png(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (colour, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_lmdb(folder: Path, samples: list[tuple[bytes, str]], count: int | None = None) -> Path:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 22) as archive, archive.begin(write=True) as transaction:
        transaction.put(b"num-samples", str(len(samples) if count is None else count).encode())
        for index, (image, label) in enumerate(samples, start=1):
            transaction.put(b"image-%09d" % index, image)
            transaction.put(b"label-%09d" % index, label.encode())
    return folder


def crops(size: int, first: int = 0) -> Crops:
    images = np.arange(first, first + size, dtype=np.uint8)[:, None, None, None].repeat(3, -1)
    return Crops(images, [str(first + i) for i in range(size)], np.zeros((size, 25, 2), np.float16))


def test_lmdb_labels_are_mapped_and_broken_crops_counted(tmp_path: Path) -> None:
    samples = [(png(10), "It's"), (b"no image", "abc"), (png(20), "!!"), (png(30), "a b"), (png(40), "toolong")]
    folder = write_lmdb(tmp_path / "set", samples)
    found, left_out = read_lmdb(folder, (32, 128), DIGITS_AND_LOWERCASE, 5)
    assert (found.labels, left_out) == (["its", "ab"], 3)
    assert found.images.shape == (2, 32, 128, 3)
    assert found.images[:, 0, 0, 0].tolist() == [10, 30]
    assert np.isnan(found.centers).all()


def test_crops_without_text_are_read_on_request(tmp_path: Path) -> None:
    folder = write_lmdb(tmp_path / "set", [(png(10), "one"), (png(20), ""), (png(30), "!!")])
    assert [label for _, label in iterate_lmdb(folder)] == ["one", "", "!!"]
    found, left_out = read_lmdb(folder, (32, 128), DIGITS_AND_LOWERCASE, 5, keep_empty=True)
    assert (found.labels, left_out) == (["one", ""], 1)
    assert found.images[:, 0, 0, 0].tolist() == [10, 20]
    found, left_out = read_lmdb(folder, (32, 128), DIGITS_AND_LOWERCASE, 5)
    assert (found.labels, left_out) == (["one"], 2)


def test_lmdb_errors_name_the_cause(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no data.mdb"):
        next(iterate_lmdb(tmp_path))
    with pytest.raises(DataError, match=r"no LMDB archive"):
        find_lmdb(tmp_path)
    folder = write_lmdb(tmp_path / "short", [(png(1), "a")], count=2)
    with pytest.raises(DataError, match="crop 2 of 2 is missing"):
        list(iterate_lmdb(folder))
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "data.mdb").write_bytes(b"junk" * 5000)
    with pytest.raises(DataError, match="damaged or no LMDB"):
        next(iterate_lmdb(tmp_path / "junk"))
    with pytest.raises(DataError, match="no usable crop"):
        read_lmdb(write_lmdb(tmp_path / "odd", [(png(1), "ж")]), (32, 128), PRINTABLE, 25)
    with pytest.raises(DataError, match="no rendered crops"):
        read_synthetic(tmp_path)


def test_archives_are_found_recursively(tmp_path: Path) -> None:
    first, second = write_lmdb(tmp_path / "a" / "x", []), write_lmdb(tmp_path / "b", [])
    assert find_lmdb(tmp_path) == [first, second]


def test_batches_keep_their_shares_and_epochs_are_complete() -> None:
    stream = BatchStream([(crops(6), 2), (crops(5, 100), 1)], seed=1)
    batches = [stream.batch(step) for step in range(3)]
    assert sorted(label for batch in batches for label in batch.labels[:2]) == list("012345")
    assert all(int(batch.labels[2]) >= 100 for batch in batches)
    assert all(batch.images[i, 0, 0, 0] == int(batch.labels[i]) for batch in batches for i in range(3))


def test_a_resumed_stream_goes_on_where_it_was() -> None:
    sources = [(crops(7), 3), (crops(4, 50), 1)]
    whole = iter(BatchStream(sources, seed=5))
    expected = [next(whole).labels for _ in range(9)][4:]
    resumed = iter(BatchStream(sources, seed=5, first_step=4))
    assert [next(resumed).labels for _ in range(5)] == expected
    other = iter(BatchStream(sources, seed=6, first_step=4))
    assert [next(other).labels for _ in range(5)] != expected


def test_concatenate_keeps_order() -> None:
    assert concatenate([crops(2), crops(2, 7)]).labels == ["0", "1", "7", "8"]


def test_resize_is_pillows_bicubic_on_rgb() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (50, 90, 4), np.uint8), "RGBA")
    expected = np.asarray(image.convert("RGB").resize((128, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(resize(image, (32, 128)), expected)
