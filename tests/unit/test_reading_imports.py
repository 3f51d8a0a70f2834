"""Who reads with an artifact or a service needs neither torch nor anything else that only checkpoints and training do."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.toy_artifact import png_of, write_artifact

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LEAN = {"numpy", "PIL", "onnxruntime", "tqdm"}
CPU = {canonicalize_name(Requirement(each).name) for each in PROJECT["optional-dependencies"]["cpu"]}
"""Packages that the extra `cpu` adds to the base; they are imported by these names."""
# Run as an installed script is, where nothing but the standard library and what is allowed can be imported.
SCRIPT = """
import importlib.abc, json, sys

allowed = {*sys.stdlib_module_names, *json.loads(sys.argv.pop(1)), "artifact", "model", "export", "reading"}

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        # The standard library has one module that is named after the machine.
        if name.partition(".")[0] not in allowed and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
from reading import entry
sys.exit(getattr(entry, sys.argv.pop(1))())
"""


def run(command: str, *arguments: object, allowed: set[str]) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", SCRIPT, json.dumps(sorted(allowed)), command, *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A folder of two word crops with a file of labels."""
    folder = tmp_path / "words"
    folder.mkdir()
    for text in ("kiosk", "42"):
        (folder / f"{text}.png").write_bytes(png_of(text))
    (folder / "labels.tsv").write_text("kiosk.png\tkiosk\n42.png\t43\n")
    return folder


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "toy.onnx")


def test_an_artifact_reads_words(words: Path, artifact: Path) -> None:
    done = run("read", "--artifact", artifact, words, allowed=LEAN)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["42", "kiosk"]


def test_an_artifact_is_scored_on_labelled_words(words: Path, artifact: Path) -> None:
    done = run("evaluate", "--artifact", artifact, "--data", words, allowed={*LEAN, "lmdb", "rapidfuzz"})
    assert done.returncode == 0, done.stderr
    assert "| words    |         2 |    50.00 |" in done.stdout


def test_the_extra_for_a_cpu_is_enough_to_read_score_and_read_in_bulk(words: Path, artifact: Path, tmp_path: Path) -> None:
    assert {"torch", "httpx", "fsspec", "ray"}.isdisjoint(CPU)
    allowed = {"numpy", "PIL", *CPU}
    assert run("read", "--artifact", artifact, words, allowed=allowed).returncode == 0
    assert run("evaluate", "--artifact", artifact, "--data", words, allowed=allowed).returncode == 0
    done = run("bulk", words, "--artifact", artifact, "--output", tmp_path / "out", "--dry-run", allowed=allowed)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 crops in 1 parts" in done.stdout


def test_ray_says_what_it_needs(words: Path, artifact: Path, tmp_path: Path) -> None:
    options = ("--artifact", artifact, "--output", tmp_path / "out", "--engine", "ray")
    done = run("bulk", words, *options, allowed={"numpy", "PIL", *CPU})
    assert done.returncode == 2
    assert "the package 'ray' is not installed" in done.stderr
    assert "`ray`" in done.stderr


def test_the_bundled_artifact_needs_no_name(words: Path) -> None:
    done = run("read", "--artifact", "bundled", words, allowed=LEAN)
    assert (done.returncode, done.stdout.count("\n")) == (0, 2)


def test_a_service_is_asked_for_scores(words: Path) -> None:
    allowed = {"numpy", "PIL", "tqdm", "lmdb", "rapidfuzz", "httpx", "httpcore", "anyio", "certifi", "idna", "h11", "sniffio"}
    done = run("evaluate", "--url", "http://127.0.0.1:9", "--data", words, allowed=allowed | {"onnxruntime"})
    assert done.returncode == 2
    assert done.stderr.startswith("parseq-evaluate: no answer from http://127.0.0.1:9")


def test_an_artifact_is_measured(artifact: Path) -> None:
    done = run("benchmark", "--artifact", artifact, "--batch", 1, "--length", 2, "--repeats", 1, allowed=LEAN)
    assert done.returncode == 0, done.stderr
    assert "ONNX Runtime toy.onnx" in done.stdout


@pytest.mark.parametrize("command", ["read", "benchmark"])
def test_a_checkpoint_says_what_it_needs(command: str, words: Path) -> None:
    arguments = [words] if command == "read" else []
    done = run(command, *arguments, allowed=LEAN)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "`train`" in done.stderr
    assert "the package 'torch' is not installed" in done.stderr


def test_a_plot_that_cannot_be_drawn_is_told_before_anything_is_read(words: Path, artifact: Path) -> None:
    options = ("--artifact", artifact, "--data", words, "--reliability", words / "r.png")
    done = run("evaluate", *options, allowed={*LEAN, "lmdb", "rapidfuzz"})
    assert (done.returncode, done.stdout) == (2, "")
    assert "the package 'matplotlib' is not installed" in done.stderr
