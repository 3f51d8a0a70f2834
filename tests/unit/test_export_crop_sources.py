"""Crops from archives, for calibration and for the parity gate."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from export import __main__ as cli
from export.gate.crop_sources import CropSourceError, calibration_crops, parity_data
from tests.export_models import small_model


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "words"
    folder.mkdir()
    rng = np.random.default_rng(0)
    with lmdb.open(str(folder), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"num-samples", b"5")
        for number in range(1, 6):
            content = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (20, 60, 3), dtype=np.uint8)).save(content, "PNG")
            transaction.put(b"image-%09d" % number, content.getvalue())
            transaction.put(b"label-%09d" % number, b"word%d" % number)
    return folder


def test_an_archive_is_resized_and_named(archive: Path) -> None:
    config = small_model().config
    pixels, said = calibration_crops([archive], config)
    assert (pixels.shape, pixels.dtype) == ((5, 16, 64, 3), np.uint8)
    assert said == "5 crops of words"
    crops = parity_data(archive.parent, config)
    assert crops[0].description == f"1 of {archive.parent.name}, label 'word1'"
    assert len(crops) == 5


def test_labelled_image_files_are_taken_too(tmp_path: Path) -> None:
    (words := tmp_path / "words").mkdir()
    for number in range(3):
        Image.new("RGB", (60, 20), (number, 0, 0)).save(words / f"{number}.png")
    labels = words / "labels.tsv"
    labels.write_text("0.png\tone\n1.png\ttwo\n2.png\t\n", encoding="utf-8")
    for given in (tmp_path, words, labels):
        pixels, said = calibration_crops([given], small_model().config)
        assert (len(pixels), said) == (3, f"3 crops of {given.name}")
        assert sorted(pixels[:, 0, 0, 0].tolist()) == [0, 1, 2]


def test_a_folder_without_crops_is_told_with_what_may_be_in_it(tmp_path: Path) -> None:
    with pytest.raises(
        CropSourceError, match=r"holds no crops: no LMDB archive \(data.mdb\), rendered crops .* or file of labels"
    ):
        calibration_crops([tmp_path], small_model().config)


def test_several_folders_give_the_same_share_and_crops_without_a_text_count(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lmdb.open(str(archive), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        for number in range(1, 6):
            transaction.put(b"label-%09d" % number, b"")
    other = tmp_path / "other"
    shutil.copytree(archive, other)
    monkeypatch.setattr("export.gate.crop_sources.CALIBRATION_CROPS", 7)
    pixels, said = calibration_crops([archive, other], small_model().config)
    assert (len(pixels), said) == (7, "3 crops of words and 4 crops of other")


def test_a_damaged_archive(tmp_path: Path) -> None:
    (tmp_path / "shards.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CropSourceError):
        calibration_crops([tmp_path], small_model().config)


def test_calibration_is_for_int8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", "parseq", "--output", str(tmp_path / "a.onnx"), "--calibration", str(tmp_path)]
    assert cli.main(arguments) == 2
    assert "--calibration is for --precision int8" in capsys.readouterr().err
