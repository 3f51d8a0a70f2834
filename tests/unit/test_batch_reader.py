from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reading.batch_reader import BatchReader
from reading.readers.artifact import BUNDLED_FILE
from reading.readers.interface import ReaderError
from tests.toy_artifact import confidence_of, pixels_of, png_of, write_artifact


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("artifact") / "toy.onnx")


def objects(*values: object) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def test_a_batch_gets_three_columns(artifact: Path) -> None:
    batch = {"key": np.array([1, 2]), "image": objects(png_of("kiosk"), png_of("42"))}
    read = pickle.loads(pickle.dumps(BatchReader(artifact)))(batch)
    assert list(read) == ["key", "image", "text", "confidence", "error"]
    assert read["text"].tolist() == ["kiosk", "42"]
    assert read["confidence"] == pytest.approx([confidence_of("kiosk"), confidence_of("42")])
    assert read["error"].tolist() == [None, None]
    assert list(batch) == ["key", "image"]


def test_crops_in_all_forms(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_of("a"))
    crops = [
        png_of("a"),
        memoryview(png_of("a")),
        pixels_of("a"),
        {"bytes": png_of("a"), "path": None},
        {"bytes": None, "path": str(tmp_path / "a.png")},
        str(tmp_path / "a.png"),
        Image.open(io.BytesIO(png_of("a"))),
    ]
    read = BatchReader(artifact)({"image": crops})
    assert read["text"].tolist() == ["a"] * len(crops)
    assert BatchReader(artifact)({"image": np.stack([pixels_of("a")] * 2)})["text"].tolist() == ["a", "a"]


def test_what_cannot_be_read_costs_no_other_crop(artifact: Path) -> None:
    crops = [png_of("a"), None, b"", b"nonsense", "none.png", np.zeros((2, 2, 7)), png_of("b", poisoned=True), png_of("c")]
    read = BatchReader(artifact)({"image": crops})
    assert read["text"].tolist() == ["a", None, None, None, None, None, None, "c"]
    assert [error is None for error in read["error"]] == [True, False, False, False, False, False, False, True]
    assert np.isnan(read["confidence"][1:7]).all()
    assert BatchReader(artifact)({"image": []})["text"].tolist() == []


def test_columns_are_not_overwritten(artifact: Path) -> None:
    batch = {"crop": [png_of("a")], "text": ["label"]}
    with pytest.raises(ValueError, match="has a column 'text' already"):
        BatchReader(artifact, "crop")(batch)
    assert BatchReader(artifact, "crop", prefix="read_")(batch)["read_text"].tolist() == ["a"]
    with pytest.raises(ValueError, match="has no column 'image': it has crop, text"):
        BatchReader(artifact)(batch)


def test_an_artifact_that_is_not_there_is_told_when_it_reads(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match="there is no artifact"):
        BatchReader(tmp_path / "none.onnx")({"image": [png_of("a")]})
    assert BatchReader("bundled").options.artifact == BUNDLED_FILE
