from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifact.fit import fit
from model.charsets import DIGITS_AND_LOWERCASE, PRINTABLE
from model.data.archives import Archive, find_lmdb, iterate_lmdb
from model.data.crops import concatenate, read_lmdb, read_synthetic
from model.data.labels import LabelRules
from model.data.sources import StoredSource, stored_at
from model.data.stream import BatchStream
from model.errors import DataError
from tests.archives import crops, png, put, write_lmdb


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
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "data.mdb").write_bytes(b"junk" * 5000)
    with pytest.raises(DataError, match="damaged or no LMDB"):
        next(iterate_lmdb(tmp_path / "junk"))
    with pytest.raises(DataError, match="no usable crop"):
        read_lmdb(write_lmdb(tmp_path / "odd", [(png(1), "ж")]), (32, 128), PRINTABLE, 25)
    with pytest.raises(DataError, match="no rendered crops"):
        read_synthetic(tmp_path)


def test_crops_that_are_missing_or_have_no_label_that_can_be_read_are_left_out(tmp_path: Path) -> None:
    folder = write_lmdb(tmp_path / "set", [(png(index), f"w{index}") for index in range(5)], count=7)
    put(folder, image_000000001=None, label_000000003=None, label_000000004="é".encode("latin-1"))
    assert [label for _, label in iterate_lmdb(folder)] == ["w0", "w1", None, None, "w4", None, None]
    for keep_empty in (False, True):
        found, left_out = read_lmdb(folder, (32, 128), PRINTABLE, 25, keep_empty=keep_empty)
        assert (found.labels, left_out) == (["w1", "w4"], 5)
    # Decoded when needed: the label of the first is there, its image is found missing when it is asked for.
    source = StoredSource(*stored_at(folder), (32, 128), LabelRules(PRINTABLE, 25))
    assert len(source) == 3
    assert source.crops(np.array([0, 1, 2]), None, [()] * 3).labels == ["w1", "w1", "w4"]
    assert source.broken == 1


def test_an_archive_that_is_cut_short_is_told_and_kills_nobody(tmp_path: Path) -> None:
    crops = [(png(1) + bytes(5000), "a")] * 20
    folder = write_lmdb(tmp_path / "set", crops)
    data = (folder / "data.mdb").read_bytes()
    for share in (0.1, 0.5, 0.8):
        (folder / "data.mdb").write_bytes(data[: int(share * len(data))])
        with pytest.raises(DataError, match=rf"cut short: .* should have {len(data)}: copy it again"):
            Archive(folder)
    (folder / "data.mdb").write_bytes(data)
    assert len(Archive(folder)) == 20


@pytest.mark.parametrize("stored", [b" 2\n", b"2\r\n", b"\t2", b"000002", b"2", b"2\0"])
def test_the_count_of_crops_may_have_whitespace_around_it(tmp_path: Path, stored: bytes) -> None:
    folder = put(write_lmdb(tmp_path / "set", [(png(1), "a"), (png(2), "b")]), num_samples=stored)
    assert [label for _, label in iterate_lmdb(folder)] == ["a", "b"]


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (None, "no count at the key 'num-samples'"),
        (b"", "holds '', which is not a number of crops"),
        (b"-2", "holds '-2'"),
        (b"2.0", "holds '2.0'"),
        (b"two", "holds 'two'"),
        ("٢".encode(), r"holds '\\u0662'"),
        (b"\xff\x00\x1b[31m", "which is not a number of crops"),
        (b"\x02\0\0\0", "which is not a number of crops"),
        (b"x" * 9999, "holds 'xxxxxxxxxxxxxxxxxxxx'"),
        (b"999999999", "tells of 999999999 crops, but the archive has 5 entries"),
        (b"9" * 9999, "tells of 99999999999999999999... crops"),
    ],
)
def test_a_count_of_crops_that_is_none_is_told(tmp_path: Path, stored: bytes | None, told: str) -> None:
    folder = put(write_lmdb(tmp_path / "set", [(png(1), "a"), (png(2), "b")]), num_samples=stored)
    with pytest.raises(DataError, match=told) as raised:
        Archive(folder)
    assert str(raised.value).isascii()
    assert "\x1b" not in str(raised.value)


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
    assert np.array_equal(fit(image, 32, 128), expected)
