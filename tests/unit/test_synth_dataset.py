"""Shards: their content, resuming, and reading while they are written."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.data.shards import ShardError, load_shards
from model.synth import __main__ as cli
from model.synth.dataset import Recipe, ShardFormat, render_indexed, resized, write_shards
from model.synth.lettering.fonts import embedded_face
from model.synth.render import CropRenderer, RenderedCrop
from model.synth.words.corpus import Corpus
from model.synth.words.sign_words import SIGN_WORDS

SMALL = ShardFormat((16, 64), shard_size=4)


def source(seed: int = 5):
    corpus, renderer = Corpus("train", SIGN_WORDS, SIGN_WORDS), CropRenderer([embedded_face()])
    return lambda index: render_indexed(corpus, renderer, Recipe("train", seed), index)


def failing_at(bad: int):
    good = source()

    def crop(index: int) -> RenderedCrop:
        if index == bad:
            raise RuntimeError("the power went out")
        return good(index)

    return lambda: crop


def test_a_crop_depends_on_seed_split_and_index_alone():
    first = source()(17)
    again = source()
    for index in (3, 17, 4):
        crop = again(index)
    assert again(17).image.tobytes() == first.image.tobytes()
    assert source(6)(17).image.tobytes() != first.image.tobytes()
    assert crop.text == source()(4).text


def test_what_is_written_is_read_back(tmp_path: Path):
    assert write_shards(tmp_path, source, 10, SMALL) == 3
    images, labels, centers = load_shards(tmp_path)
    assert images.shape == (10, 16, 64, 3)
    assert images.dtype == np.uint8
    assert centers.shape == (10, 25, 2)
    assert centers.dtype == np.float16
    for index, crop in enumerate(map(source(), range(10))):
        assert labels[index] == crop.text
        assert (images[index] == np.asarray(crop.image.resize((64, 16), Image.Resampling.BICUBIC))).all()
        length = len(crop.text)
        assert centers[index, :length] == pytest.approx(crop.glyph_centers / crop.image.size, abs=1e-3)
        assert ((centers[index, :length] >= 0) & (centers[index, :length] <= 1)).all()
        assert np.isnan(centers[index, length:]).all()


def test_several_workers_write_the_same_shards_as_one(tmp_path: Path):
    write_shards(tmp_path / "one", source, 8, SMALL)
    write_shards(tmp_path / "two", source, 8, SMALL, workers=2)
    one, two = load_shards(tmp_path / "one"), load_shards(tmp_path / "two")
    assert (one.images == two.images).all()
    assert one.labels == two.labels


def test_a_stopped_run_leaves_whole_shards_and_resumes(tmp_path: Path):
    with pytest.raises(RuntimeError, match="power"):
        write_shards(tmp_path, failing_at(6), 12, SMALL)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["shard-00000.npz", "shards.json"]
    kept = (tmp_path / "shard-00000.npz").stat().st_mtime_ns
    assert write_shards(tmp_path, source, 12, SMALL) == 2
    assert (tmp_path / "shard-00000.npz").stat().st_mtime_ns == kept
    assert load_shards(tmp_path).labels == [source()(index).text for index in range(12)]
    assert write_shards(tmp_path, lambda: pytest.fail("nothing is left to draw"), 12, SMALL) == 0


def test_a_larger_count_completes_the_short_last_shard(tmp_path: Path):
    write_shards(tmp_path, source, 6, SMALL)
    assert write_shards(tmp_path, source, 9, SMALL) == 2
    assert len(load_shards(tmp_path).labels) == 9


def test_shards_of_another_kind_are_not_mixed(tmp_path: Path):
    write_shards(tmp_path, source, 2, SMALL, name="train, seed 1")
    for shape, name in ((ShardFormat((16, 64), 5), "train, seed 1"), (SMALL, "train, seed 2")):
        with pytest.raises(ShardError, match="another folder"):
            write_shards(tmp_path, source, 4, shape, name=name)


def test_a_half_written_shard_is_not_read(tmp_path: Path):
    write_shards(tmp_path, source, 4, SMALL)
    (tmp_path / ".shard-00001.npz.123.tmp").write_bytes(b"PK half")
    assert len(load_shards(tmp_path).labels) == 4


def test_a_damaged_shard_is_named(tmp_path: Path):
    write_shards(tmp_path, source, 4, SMALL)
    (tmp_path / "shard-00001.npz").write_bytes(b"PK damaged")
    with pytest.raises(ShardError, match=r"shard-00001\.npz"):
        load_shards(tmp_path)


def test_shards_of_different_sizes_do_not_load(tmp_path: Path):
    write_shards(tmp_path, source, 4, SMALL)
    write_shards(tmp_path / "other", source, 4, ShardFormat((8, 32), 4))
    (tmp_path / "other/shard-00000.npz").rename(tmp_path / "shard-00001.npz")
    with pytest.raises(ShardError, match="shape"):
        load_shards(tmp_path)


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"python -m model\.synth"):
        load_shards(tmp_path)


def test_centers_are_fractions_of_the_crop():
    crop = RenderedCrop(Image.new("RGB", (40, 20)), "ab", np.array([[10, 10], [30, 5]], np.float32))
    _, centers = resized(crop, (32, 128))
    assert centers[:2].tolist() == [[0.25, 0.5], [0.75, 0.25]]


@pytest.fixture
def drawable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line that needs neither fonts nor dictionaries."""
    monkeypatch.setattr(Recipe, "source", lambda recipe: source(recipe.seed))


@pytest.mark.usefixtures("drawable")
def test_the_command_line_writes_shards_and_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output, sheet = tmp_path / "crops", tmp_path / "sheet.png"
    arguments = ["--output", str(output), "--count", "3", "--shard-size", "2", "--image-size", "16", "64"]
    assert cli.main([*arguments, "--sheet", str(sheet), "--sheet-crops", "5", "--dots"]) == 0
    assert load_shards(output).images.shape == (3, 16, 64, 3)
    assert json.loads((output / "shards.json").read_text())["image_size"] == [16, 64]
    with Image.open(sheet) as image:
        assert image.width > image.height > 0
    assert "2 new shards" in capsys.readouterr().out
    assert cli.main([*arguments, "--seed", "1"]) == 2
    assert "choose another folder" in capsys.readouterr().err


def test_the_command_line_without_fonts_fails_with_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--sheet", "x.png", "--fonts", str(tmp_path), "--cache", str(tmp_path / "cache")]) == 2
    assert "model/synth/debian_packages.txt" in capsys.readouterr().err


def test_the_command_line_wants_something_to_do(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main([])
    assert "--output" in capsys.readouterr().err
