"""Files of labels, and the archives made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.charsets import PRINTABLE
from model.data import convert
from model.data.archives import iterate_lmdb
from model.data.crops import read_lmdb
from model.data.label_files import count_labels, find_label_files, read_labels
from model.errors import DataError
from reading.pictures.crop_sets import crop_sets
from tests.archives import png


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


FORMS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("gt.txt", '\ufeffword.png, "(412\\")"\na.png, "Genaxis Show"\n', [("word.png", '(412")'), ("a.png", "Genaxis Show")]),
    ("gt.txt", r'a.png, "C:\\temp\new \"x\\\\y\""', [("a.png", r'C:\temp\new "x\\y"')]),
    ("gt.txt", 'a b.png, "\\\\"\nb.png, ""\n', [("a b.png", "\\"), ("b.png", "")]),
    ("gt.txt", 'a.png,"x"\na.png,  "y, \\"z"  \n', [("a.png", "x"), ("a.png", 'y, "z')]),
    ("gt.txt", "a.png, two words\nb.png,1,5\n", [("a.png", "two words"), ("b.png", "1,5")]),
    ("gt.txt", 'a.png,Latin,Hello\nb.png,Arabic,1,5\nc.png,None,"x"\n', [("a.png", "Hello"), ("b.png", "1,5"), ("c.png", "x")]),
    ("gt.txt", "a.png,Latin,Hello\nb.png,Greek,x\n", [("a.png", "Latin,Hello"), ("b.png", "Greek,x")]),
    ("gt.txt", "a b.png;two words;x\nb.JPG; 5\n", [("a b.png", "two words;x"), ("b.JPG", "5")]),
    ("gt.txt", 'filename;words\n"a.png";"say ""x"""\n', [("a.png", 'say "x"')]),
    ("gt.txt", "a.png|x\nb.png|y z\n", [("a.png", "x"), ("b.png", "y z")]),
    ("gt.txt", "a.png: x: y\nb.png:z\n", [("a.png", "x: y"), ("b.png", "z")]),
    ("gt.txt", "a.png::x\nb.png::y:\n", [("a.png", "x"), ("b.png", "y:")]),
    ("gt.txt", "a.png=x=y\n", [("a.png", "x=y")]),
    ("labels.tsv", "a.png;x\nb.png;y\n", [("a.png", "x"), ("b.png", "y")]),
    ("labels.tsv", "a.png two words\nb.png y\n", [("a.png", "two words"), ("b.png", "y")]),
    ("labels.tsv", "a.png,x\nb.png,y\n", [("a.png", "x"), ("b.png", "y")]),
    ("rec_gt.txt", "crops/a_0.jpg\ttwo words\ncrops/b.jpg\t[5]\n", [("crops/a_0.jpg", "two words"), ("crops/b.jpg", "[5]")]),
    ("mj.txt", "./3/7/8_slink_71711.jpg 71711\n./3/1_A_2.jpg 2\n", [("3/7/8_slink_71711.jpg", "slink"), ("3/1_A_2.jpg", "A")]),
    ("mj.txt", "./3/7/18_slink_71711.jpg\n./3/1_A_2.jpg\n", [("3/7/18_slink_71711.jpg", "slink"), ("3/1_A_2.jpg", "A")]),
    ("gt.txt", "182_slinking_71711.jpg 71711\n1_A_2.jpg 3\n", [("182_slinking_71711.jpg", "71711"), ("1_A_2.jpg", "3")]),
    ("labels.csv", "a.png;two, words\r\nb.png;y\r\n", [("a.png", "two, words"), ("b.png", "y")]),
    ("labels.csv", "filename;words\na b.png;x\n", [("a b.png", "x")]),
    ("labels.csv", "a.png\tx\nb.png\ty,z\n", [("a.png", "x"), ("b.png", "y,z")]),
    ("labels.csv", 'Label,Image Path\n"x, y",a.png\n', [("a.png", "x, y")]),
    ("labels.csv", ",filename,width,words\n0,a.png,20,x\n1,b.png,20,\n", [("a.png", "x"), ("b.png", "")]),
    ("labels.csv", "a.png,x,,\nb.png,y\n", [("a.png", "x"), ("b.png", "y")]),
    ("labels.json", '{"a.png": "two words", "b.png": "\\"\\u00a3"}', [("a.png", "two words"), ("b.png", '"£')]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "rows"), FORMS)
def test_forms_of_others_are_recognised(tmp_path: Path, name: str, content: str, rows: list[tuple[str, str]]) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    found = [(file.path.relative_to(tmp_path).as_posix(), file.label) for file in read_labels(tmp_path / name)]
    assert found == rows
    assert count_labels(tmp_path / name) >= len(rows)


def test_doctr_keeps_its_images_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(1))
    (tmp_path / "labels.json").write_text('{"a.png": "one"}')
    assert convert.main([str(tmp_path), str(tmp_path / "out")]) == 0
    assert list(iterate_lmdb(tmp_path / "out")) == [(png(1), "one")]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("Label.txt", 'a.jpg\t[{"transcription": "x", "points": [[0, 0]]}]\n', "PaddleOCR's labels for detection"),
        ("labels.json", '{"a.png": {"img_dimensions": [1, 2], "polygons": [[[0, 0]]]}}', "docTR's labels for detection"),
        ("labels.json", '[{"file": "a.png", "text": "x"}]', "is not one object of file names and texts"),
        ("labels.json", '{"a.png": 5}', "is not one object of file names and texts"),
        ("labels.json", '{"a.png": "x"', "is no JSON file"),
        ("labels.json", "[" * 100_000, "is no JSON file"),
        ("labels.txt", '{"file": "a.png", "text": "x"}\n', "holds JSON objects"),
        ("gt.txt", "377,117,463,117,465,130,378,130,Genaxis Show\n1,2,3,4,5,6,7,8,###\n", "ICDAR's labels for detection"),
        ("gt.txt", '38, 43, 920, 215, "Tiredness"\n275, 264, 665, 450, "kills"\n', "ICDAR's labels for detection"),
        ("gt.txt", '158 128 412 182 "Footpath"\n', "ICDAR's labels for detection"),
        ("gt.txt", '<?xml version="1.0"?>\n<imagelist><image file="a.jpg" tag="x"/>\n', "holds XML or HTML"),
        ("labels.tsv", "a.png\nb.png\n", "have no tab between path and text (the first is 'a.png')"),
        ("gt.txt", "one\ntwo\n", "have nothing between path and text (the first is 'one')"),
        ("labels.csv", "one\ntwo\n", "has no two columns in its first line, 'one'"),
        ("labels.csv", "a.png,x\nb.png,hello, world\n", "line 2 of {file} has 3 columns, not 2: put a text"),
        ("labels.csv", "filename,words\nb.png,1,5\n", "line 2 of {file} has 3 columns, not 2: put a text"),
    ],
)
def test_forms_that_are_no_labels_of_words_are_named(
    tmp_path: Path, name: str, content: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content)
    assert convert.main([str(tmp_path / name), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert told.replace("{file}", str(tmp_path / name)) in error
    assert str(tmp_path / name) in error
    assert "Traceback" not in error


def test_a_file_of_labels_with_another_name_is_pointed_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train_list.txt").write_text("a.png\tx\n")
    assert convert.main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "if train_list.txt is one, give the file itself" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"if train_list\.txt is one, give the file itself"):
        crop_sets(tmp_path)


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
