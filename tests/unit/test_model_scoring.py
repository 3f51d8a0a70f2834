"""Scores by hand, and the reading and scoring commands in the small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from model import evaluate, read
from model.charsets import CHARSETS
from model.configs import config_from_mapping
from model.evaluate import Score, combine, score, table
from model.parseq import PARSeq
from model.reader import Reading
from tests.unit.test_model_data import png, write_lmdb
from tests.unit.test_model_training import TINY


@pytest.fixture
def network_options(tmp_path: Path) -> list[str]:
    torch.manual_seed(0)
    network = PARSeq(config_from_mapping(TINY))
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "c.json").write_text(json.dumps(TINY))
    return ["--config", str(tmp_path / "c.json"), "--weights", str(tmp_path / "w.safetensors")]


def test_scores_by_hand() -> None:
    readings = [Reading("Word", 0.5), Reading("it's", 0.9), Reading("cat", 0.4), Reading("", 0.2)]
    labels = ["WORD", "its", "cart", "ab"]
    insensitive = score("set", readings, labels, CHARSETS["36"])
    assert insensitive == Score("set", 4, 50.0, pytest.approx(100 * (1 + 1 + 0.75 + 0) / 4), pytest.approx(50.0), 3.25)
    assert score("set", readings, labels, CHARSETS["94"]).accuracy == 0.0


def test_data_sets_are_combined_by_their_crops() -> None:
    combined = combine([Score("a", 1, 100.0, 100.0, 90.0, 4.0), Score("b", 3, 0.0, 40.0, 10.0, 8.0)])
    assert combined == Score("combined", 4, 25.0, 55.0, 30.0, 7.0)
    assert "| combined |     4 |    25.00 |" in table([combined])


def test_evaluate_command(tmp_path: Path, network_options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_lmdb(tmp_path / "data" / "one", [(png(1), "a"), (png(2), "!"), (png(3), "longer than the network can say")])
    write_lmdb(tmp_path / "data" / "two", [(png(1), "a")])
    output = tmp_path / "scores.json"
    assert evaluate.main(["--data", str(tmp_path / "data"), "--json", str(output), *network_options]) == 0
    scores = json.loads(output.read_text())
    # A label too long for the network stays and counts as an error; one without a scored character cannot be scored.
    assert [(entry["dataset"], entry["crops"]) for entry in scores] == [("one", 2), ("two", 1), ("combined", 3)]
    captured = capsys.readouterr()
    assert "one: 1 crops left out" in captured.err
    assert captured.out.startswith("| dataset ")


def test_evaluate_errors_are_one_line(tmp_path: Path, network_options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--data", str(tmp_path / "none"), *network_options]) == 2
    assert capsys.readouterr().err.startswith("parseq-evaluate: no LMDB archive")
    assert evaluate.main(["--data", str(tmp_path), "--model", "nope"]) == 2
    assert "unknown model 'nope'" in capsys.readouterr().err


def test_pictures_are_read_as_a_viewer_shows_them() -> None:
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    assert read.as_seen(image).convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    photo = Image.new("RGB", (4, 2), "red")
    photo.getexif()[0x0112] = 6
    assert read.as_seen(photo).size == (2, 4)


def test_read_command(tmp_path: Path, network_options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGB", (60, 20), "white").save(good)
    bad.write_bytes(b"no image")
    assert read.main([str(bad), str(good), "--json", *network_options]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["file"] == str(good)
    assert captured.err == f"parseq-read: {bad}: not a readable image\n"
    assert read.main([str(good), "--decode", "nar", "--refine-iters", "2", *network_options]) == 0
    assert capsys.readouterr().out.startswith(f"{good}: ")
    assert read.main([str(good), "--weights", str(bad)]) == 2
    assert "bad.png" in capsys.readouterr().err
