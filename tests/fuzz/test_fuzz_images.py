"""A sample of `make fuzz`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.config import BUNDLED_ARTIFACT
from service.images.structure import format_of
from tests.fuzz import __main__ as fuzz_main
from tests.fuzz import in_process
from tests.fuzz.in_process import read_all
from tests.fuzz.mutate import Mutator, seed_corpus
from tests.fuzz.over_http import post_all
from tests.integration.server import ROOT, running

SEED = int(os.environ.get("PARSEQ_TEST_SEED", "0"))
FILES = 2000
HTTP_FILES = 150


@pytest.fixture(scope="module")
def mutator() -> Mutator:
    return Mutator(SEED)


def test_two_thousand_broken_files_crash_nothing() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--decode", "--files", str(FILES), "--seed", str(SEED)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert f"{FILES} files" in done.stdout
    for outcome in ("read", "unreadable-image", "image-too-large", "image-too-complex"):
        assert f"{outcome} " in done.stdout


def test_a_server_answers_broken_files_and_what_is_beside_them(tmp_path: Path, mutator: Mutator) -> None:
    with running(BUNDLED_ARTIFACT, tmp_path / "log", forked=True) as server:
        log = server.log.read_text()
        answers, _ = post_all(server, range(HTTP_FILES), mutator.file)
        assert server.log.read_text() == log
        assert server.terminate() == 0
    assert answers.total() == HTTP_FILES
    assert answers["read"] > 0
    assert answers["unreadable-image"] > 0


def test_the_files_of_a_folder_are_read_to_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for number, data in enumerate(seed_corpus()[:3]):
        (tmp_path / "a" / "b" / f"{number}.png").write_bytes(data)
    (tmp_path / "empty.jpg").touch()
    command = [sys.executable, "-m", "tests.fuzz", "--decode", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 files: read 3, unreadable-image 1" in done.stdout


def test_what_a_decoder_writes_to_standard_error_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = [sys.executable, "-c", "import sys; sys.stderr.write('libtiff: bad code')"]
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _command, **options: run(loud, **options))
    assert fuzz_main._run_decoder([]) == 1
    assert "17 bytes to standard error\nlibtiff: bad code" in capsys.readouterr().out


def test_a_file_can_be_had_again_by_its_number(mutator: Mutator) -> None:
    assert [mutator.file(number) for number in range(50)] == [Mutator(SEED).file(number) for number in range(50)]
    assert len({mutator.file(number) for number in range(50)}) > 45


def test_every_format_is_among_the_seeds() -> None:
    assert {format_of(data) for data in seed_corpus()} >= {"JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"}


def test_a_decoder_that_fails_in_an_unknown_way_is_noticed(mutator: Mutator, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(in_process, "decode_image", broken)
    with pytest.raises(KeyError) as caught:
        read_all([7], mutator.file)
    assert caught.value.__notes__ == ["file number 7"]
