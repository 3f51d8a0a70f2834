"""From pictures to an artifact by the documented commands: rendering, training, a kill, fine-tuning, export, scores."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from export.__main__ import main as export
from export.inspect import inspect_artifact
from model.data.convert import main as convert
from model.synth.__main__ import main as render
from model.training.train import main as train
from reading.evaluate import main as evaluate
from tests.training_runs import ROOT, environment, fonts_at_hand, words, write_config

WORDS = ["exit", "open", "shop", "street", "bread", "milk", "one", "two", "three", "four", "five", "six", "seven", "eight"]
ACCENTED = ["café", "crème", "né", "thé"] * 5


def write_pictures(folder: Path, texts: list[str]) -> Path:
    """A folder of one's own: pictures, and a labels.tsv."""
    folder.mkdir()
    font = ImageFont.load_default(20)
    for index, text in enumerate(texts):
        image = Image.new("RGB", (96, 32), "white")
        ImageDraw.Draw(image).text((4, 4), text, "black", font)
        image.save(folder / f"{index}.png")
    lines = [f"{index}.png\t{text}\n" for index, text in enumerate(texts)]
    (folder / "labels.tsv").write_text("".join(lines), encoding="utf-8")
    return folder


def steps_of(run: Path) -> int:
    return int(torch.load(run / "last.ckpt", weights_only=True)["global_step"])


@pytest.mark.usefixtures("small_gate", "few_batches", "no_pictures")
def test_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    fonts = {"--fonts": fonts_at_hand(), "--words": tmp_path / "words.txt", "--cache": tmp_path / "cache"}
    assert render(words({**fonts, "--output": tmp_path / "crops", "--count": 20})) == 0
    pictures = write_pictures(tmp_path / "pictures", WORDS * 2)
    archive = tmp_path / "data" / "train" / "real" / "mine"
    assert convert([str(pictures), str(archive)]) == 0

    first = {
        "--config": write_config(tmp_path / "tiny.json", max_label_length=10),
        "--source": [f"{tmp_path / 'crops'}=1", f"{archive.parent}=1", "render=1"],
        "--render-fonts": fonts["--fonts"],
        "--render-words": fonts["--words"],
        "--output": tmp_path / "first",
        "--batch-size": 6,
        "--steps": 6,
        "--checkpoint-every": 2,
        "--validate-every": 6,
        "--workers": 1,
        "--threads": 1,
        "--trainer.enable_progress_bar": "false",
    }
    kill = {"--trainer.callbacks": json.dumps({"class_path": "tests.training_runs.KillAfter", "init_args": {"step": 2}})}
    arguments = " ".join(f"'{word}'" for word in words({**first, **kill}))
    command = ["make", "train", "DEV_READY=", f"DEV_BIN={Path(sys.executable).parent}", f"ARGS={arguments}"]
    killed = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert killed.returncode != 0
    assert "Killed" in killed.stderr, killed.stderr
    assert steps_of(tmp_path / "first") == 2
    assert train(words({**first, "--resume": True})) == 0
    assert steps_of(tmp_path / "first") == 6

    second = {
        "--weights": tmp_path / "first" / "last.ckpt",
        "--add-characters": "éè",
        "--max-label-length": 12,
        "--source": write_pictures(tmp_path / "accented", ACCENTED),
        "--output": tmp_path / "second",
        "--lr": 1e-4,
        "--steps": 2,
        **{name: first[name] for name in ("--batch-size", "--validate-every", "--threads", "--trainer.enable_progress_bar")},
    }
    capsys.readouterr()
    assert train(words(second)) == 0
    told = capsys.readouterr().err
    assert "94 characters keep their rows of the embedding and the head; 2 new ones begin at random: 'éè'" in told
    assert "11 positions are kept; 2 new ones begin at random" in told

    weights, scores = tmp_path / "second" / "weights.safetensors", []
    assert export(["--weights", str(weights), "--output", str(tmp_path / "mine.onnx"), "--name", "mine"]) == 0
    metadata = inspect_artifact(tmp_path / "mine.onnx", timing=False).metadata
    assert (metadata.charset[-2:], metadata.max_label_length) == ("éè", 12)
    for model in (["--weights", str(weights)], ["--artifact", str(tmp_path / "mine.onnx")]):
        table = tmp_path / "scores.csv"
        options = ["--data", str(tmp_path / "accented"), "--charset", "model", "--threads", "1", "--csv", str(table)]
        assert evaluate([*model, *options]) == 0
        with table.open() as file:
            scores.append([(row["dataset"], row["crops"], row["accuracy"]) for row in csv.DictReader(file)])
    assert scores[0] == scores[1]
    assert scores[0][0][1] == "20"
