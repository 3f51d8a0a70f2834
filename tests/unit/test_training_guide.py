"""The example that docs/training.md begins with, in the small: what it says is what happens."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from model.checkpoints.loading import load
from model.training.train import main
from reading import evaluate
from tests.training_runs import ROOT

GUIDE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def commands(name: str) -> list[list[str]]:
    """The arguments of the guide's first example's calls of a command."""
    example = GUIDE.partition("## Fine-tune")[2].partition("\n## ")[0].replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in example.splitlines() if line.strip().startswith(f"{name} -")]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the guide, with its two labels."""
    folder = tmp_path / "words"
    (folder / "img").mkdir(parents=True)
    lines = re.findall(r"(img/\S+)<TAB>(\S+)", GUIDE)
    assert [label for _, label in lines] == ["HARBOUR", "₹12.50"]
    for (path, _), sample in zip(lines, ("harbour", "price"), strict=True):
        shutil.copy(ROOT / "docs" / "samples" / f"{sample}.png", folder / path)
    (folder / "labels.tsv").write_text("".join(f"{path}\t{label}\n" for path, label in lines), encoding="utf-8")
    shutil.copytree(folder, tmp_path / "test-words")
    monkeypatch.chdir(tmp_path)


def short(options: list[str], output: Path) -> list[str]:
    few = {"--steps": "2", "--warmup-steps": "1", "--validate-every": "1", "--batch-size": "2", "--threads": "1"}
    quiet = {"--trainer.enable_progress_bar": "false", "--output": str(output)}
    return [*options, *(word for pair in {**few, **quiet}.items() for word in pair)]


@pytest.mark.usefixtures("words", "no_pictures")
def test_the_example_keeps_every_character(capsys: pytest.CaptureFixture[str]) -> None:
    [options] = commands("parseq-train")
    output = Path(options[options.index("--output") + 1])
    assert main(short(options, output)) == 0
    told = capsys.readouterr().err
    assert "words: 2 crops, 0 left out" in told
    assert "lost" not in told
    assert "1 new ones begin at random: '₹'" in told
    assert load(weights=output / "best.ckpt").config.charset_train.endswith("₹")
    [options] = commands("parseq-evaluate")
    assert evaluate.main([*options, "--json", "scores.json", "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert "lost" not in captured.err
    row = next(line for line in captured.out.splitlines() if line.startswith("| test-words"))
    assert row.split("|")[2].strip() == "2"
    assert row.split("|")[-2].strip() == "0"


@pytest.mark.usefixtures("words", "no_pictures")
def test_without_the_character_it_is_told_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [options] = commands("parseq-train")
    at = options.index("--add-characters")
    options[at : at + 2] = []
    assert main(short(options, tmp_path / "without")) == 0
    lost = "words: 1 label lost characters that the charset has not: '₹' U+20B9 INDIAN RUPEE SIGN once"
    loss = f"{lost}; to keep them: --add-characters '₹'"
    assert loss in capsys.readouterr().err.splitlines()
    # However the crops are kept, and with crops to validate on besides.
    assert main(short([*options, "--validation", "test-words", "--lazy"], tmp_path / "lazy")) == 0
    assert loss in capsys.readouterr().err.splitlines()
