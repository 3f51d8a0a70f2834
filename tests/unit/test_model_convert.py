"""Files of labels, and the archives made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import convert
from model.archives import iterate_lmdb
from model.charsets import PRINTABLE
from model.data import read_lmdb
from model.errors import DataError
from model.label_files import find_label_files, read_labels
from tests.unit.test_model_data import png


def folder_of_crops(folder: Path, lines: str, name: str = "labels.tsv") -> Path:
    (folder / "crops").mkdir(parents=True)
    for number in (1, 2, 3):
        (folder / "crops" / f"{number}.png").write_bytes(png(number))
    (folder / "crops" / "broken.png").write_bytes(png(4)[:40])
    (folder / "crops" / "empty.png").write_bytes(b"")
    (folder / name).write_text(lines, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("labels.tsv", "a.png\tone\n\nb c.png\t two\tthree \nd.png\n"),
        ("labels.tsv", "\ufefffilename\twords\na.png\tone\nb c.png\t two\tthree \r\nd.png\t\n"),
        ("labels.csv", 'file,text\r\na.png,one\r\nb c.png," two\tthree "\r\nd.png\r\n'),
    ],
)
def test_labels_are_read_as_they_stand(tmp_path: Path, name: str, lines: str) -> None:
    (tmp_path / name).write_text(lines, encoding="utf-8", newline="")
    found = [(file.path.relative_to(tmp_path).as_posix(), file.label) for file in read_labels(tmp_path / name)]
    assert found == [("a.png", "one"), ("b c.png", " two\tthree "), ("d.png", "")]
    assert find_label_files(tmp_path) == [tmp_path / name]


def test_text_files_may_have_the_forms_of_others(tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    path.write_text('word_1.png, "Say ""cheese, please"\nsub/2.png   two words\nx y.png\ttab wins, "ha"\nlone.png\n')
    found = [(file.path.as_posix(), file.label) for file in read_labels(path, Path("/images"))]
    assert found == [
        ("/images/word_1.png", 'Say ""cheese, please'),
        ("/images/sub/2.png", "two words"),
        ("/images/x y.png", 'tab wins, "ha"'),
        ("/images/lone.png", ""),
    ]


def test_labels_that_are_not_utf8_are_told(tmp_path: Path) -> None:
    (tmp_path / "gt.txt").write_bytes(b"a.png \xe9\n")
    with pytest.raises(DataError, match="not UTF-8"):
        list(read_labels(tmp_path / "gt.txt"))


def test_a_folder_becomes_an_archive_that_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (
        "crops/1.png\tone\ncrops/none.png\tx\ncrops/2.png\tzwei é\ncrops/broken.png\tx\ncrops/empty.png\tx\ncrops/3.png\t \n"
    )
    folder = folder_of_crops(tmp_path / "in", lines)
    output = tmp_path / "deep" / "out"
    assert convert.main([str(folder), str(output)]) == 0
    assert list(iterate_lmdb(output)) == [(png(1), "one"), (png(2), "zwei é")]
    crops, left_out = read_lmdb(output, (32, 128), PRINTABLE, 25)
    assert (len(crops), left_out) == (2, 0)
    captured = capsys.readouterr()
    assert captured.out == f"wrote 2 crops to {output}\n"
    told = [line for line in captured.err.splitlines() if line.startswith("skipped")]
    assert len(told) == 4
    for reason in ("there is no such file", "not a readable image", "an empty file", "no label"):
        assert any(line.startswith(f"skipped 1: {reason} (first: {folder}") for line in told)
    assert sorted(path.name for path in output.iterdir()) == ["data.mdb"]


def test_without_check_broken_images_are_kept(tmp_path: Path) -> None:
    folder = folder_of_crops(tmp_path / "in", "crops/broken.png\tx\ncrops/empty.png\tx\n")
    assert convert.main([str(folder / "labels.tsv"), str(tmp_path / "out"), "--no-check"]) == 0
    assert [label for _, label in iterate_lmdb(tmp_path / "out")] == ["x"]


def test_images_without_text_are_kept_on_request(tmp_path: Path) -> None:
    folder = folder_of_crops(tmp_path / "in", "crops/1.png\tone\ncrops/2.png\t\n")
    assert convert.main([str(folder), str(tmp_path / "out"), "--keep-empty"]) == 0
    assert list(iterate_lmdb(tmp_path / "out")) == [(png(1), "one"), (png(2), "")]


def test_an_archive_grows_beyond_its_first_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "FIRST_MAP_BYTES", 2**16)
    monkeypatch.setattr(convert, "BATCH_BYTES", 2**17)
    crops = [(bytes([number]) * 50_000, str(number)) for number in range(20)]
    assert convert.write_lmdb(tmp_path / "out", crops) == 20
    assert list(iterate_lmdb(tmp_path / "out")) == crops


def test_an_archive_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def crops():  # type: ignore[no-untyped-def]
        yield b"x", "x"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert.write_lmdb(tmp_path / "out", crops())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "data.mdb").write_bytes(b"what a killed run left behind")
    assert convert.write_lmdb(tmp_path / "out", [(b"x", "x")]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_is_replaced_by_accident(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of_crops(tmp_path / "in", "crops/1.png\tone\n")
    output = tmp_path / "out"
    assert convert.write_lmdb(output, [(b"x", "old")]) == 1
    assert convert.main([str(folder), str(output)]) == 2
    assert "--force" in capsys.readouterr().err
    assert convert.main([str(folder), str(output), "--force"]) == 0
    assert [label for _, label in iterate_lmdb(output)] == ["one"]
    assert convert.main([str(folder), str(folder), "--force"]) == 2
    assert "not replaced" in capsys.readouterr().err
    assert (folder / "crops" / "1.png").is_file()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: folder / "none", "no file or folder"),
        (lambda folder: folder, "no file of labels"),
        (lambda folder: folder_of_crops(folder / "a", "crops/none.png\tx\n"), "no usable crop"),
    ],
)
def test_errors_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], make, told: str) -> None:  # type: ignore[no-untyped-def]
    assert convert.main([str(make(tmp_path)), str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
