"""`parseq-evaluate` in the small: what is read, what counts, and what is written."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from artifact.text import Reading
from model.charsets import CHARSETS
from model.data.spelling import speller
from model.errors import DataError
from reading import evaluate
from reading.pictures.crop_sets import CropSet, StoredPicture, crop_sets
from reading.readers.interface import Picture
from reading.scores.error_sheet import WorstMistakes
from reading.scores.evaluation import Rules, Scoring, score_sets
from tests.archives import png, put, write_lmdb


class FakeReader:
    """Reads the red of a crop's first pixel as a position in a list of texts; notes what it is shown."""

    description = "fake"
    charset = CHARSETS["94"]
    max_label_length = 10
    refused = 0

    def __init__(self, texts: Sequence[tuple[str, float]] = ()) -> None:
        self.texts = texts
        self.shown: list[list[Picture]] = []

    def read(self, pictures: Sequence[Picture]) -> list[Reading]:
        self.shown.append(list(pictures))
        return [Reading(*self.texts[picture.image.getpixel((0, 0))[0]]) for picture in pictures]  # type: ignore[index]


def arguments(*more: str) -> argparse.Namespace:
    return evaluate.build_parser().parse_args(list(more))


def evaluated(data: Path, reader: FakeReader, *more: str) -> tuple[argparse.Namespace, list[Scoring]]:
    args = arguments("--data", str(data), *more)
    return args, evaluate.evaluate(args, reader)


def distance(one: str, other: str) -> int:
    """Edit distance, the textbook's."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        row, last = [i], row
        for j, b in enumerate(other, start=1):
            row.append(min(row[-1] + 1, last[j] + 1, last[j - 1] + (a != b)))
    return row[-1]


LABELS = ["Don't", "STOP!", "42", "b7", "a-b", "...", "über", "eleven-char"]
TEXTS = [("dont", 0.9), ("SToP!", 0.8), ("4Z", 0.95), ("b7", 0.3), ("ab", 0.5), ("..", 0.6), ("uber", 0.7), ("eleven", 0.2)]


@pytest.mark.parametrize("charset", ["36", "62", "94"])
def test_every_figure_follows_the_definitions(tmp_path: Path, charset: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_lmdb(tmp_path / "set", [(png(index), label) for index, label in enumerate(LABELS)])
    _, [scoring] = evaluated(tmp_path, FakeReader(TEXTS), "--charset", charset)

    def mapped(text: str) -> str:
        return "".join(c for c in (text.lower() if charset == "36" else text) if c in CHARSETS[charset])

    labels = [label.replace("ü", "u") for label in LABELS]
    every = [(mapped(t), mapped(label), p, len(label)) for (t, p), label in zip(TEXTS, labels, strict=True)]
    rows = [row[:3] for row in every if row[1] and row[3] <= 10]
    [found] = scoring.scores()
    assert (found.dataset, found.crops) == ("set", 7 if charset == "94" else 6)
    assert found.accuracy == pytest.approx(100 * sum(t == label for t, label, _ in rows) / len(rows))
    ned = sum(distance(t, label) / max(len(t), len(label)) for t, label, _ in rows) / len(rows)
    assert found.one_minus_ned == pytest.approx(100 * (1 - ned))
    assert found.confidence == pytest.approx(100 * sum(p for _, _, p in rows) / len(rows))
    assert found.label_length == pytest.approx(sum(len(t) for t, _, _ in rows) / len(rows))
    error = capsys.readouterr().err
    assert "1 longer than the model can say" in error
    assert ("1 without a character" in error) == (charset != "94")


def test_long_labels_count_as_errors_on_request(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "set", [(png(index), label) for index, label in enumerate(LABELS)])
    _, [scoring] = evaluated(tmp_path, FakeReader(TEXTS), "--keep-long-labels")
    assert scoring.combined().crops == 7
    assert scoring.lengths["9-14"].correct == 0


def test_crops_without_text_count_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lmdb(tmp_path / "set", [(png(0), "one"), (png(1), ""), (png(2), " "), (png(3), "...")])
    texts = [("one", 0.9), ("", 0.8), ("ab", 0.7), ("", 0.6)]
    args, [scoring] = evaluated(tmp_path, FakeReader(texts), "--keep-empty", "--by-kind")
    [found] = scoring.scores()
    # What only loses its characters to the charset is left out as ever.
    assert "left out 1 without a character" in capsys.readouterr().err
    assert (found.crops, found.accuracy) == (3, pytest.approx(200 / 3))
    assert found.one_minus_ned == pytest.approx(100 * (1 + 1 + 0) / 3)
    assert found.label_length == pytest.approx(5 / 3)
    for groups in (scoring.kinds["empty"], scoring.lengths["0"]):
        assert (groups.crops, groups.correct, groups.similarity) == (2, 1, 1.0)
    evaluate.report(args, FakeReader(), [scoring])
    printed = capsys.readouterr().out
    assert printed.index("| empty ") < printed.index("| words ") < printed.index("| 0 ") < printed.index("| 1-3 ")
    assert evaluated(tmp_path, FakeReader(texts))[1][0].combined().crops == 1


def test_missing_crops_and_labels_that_are_not_utf8_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_lmdb(tmp_path / "set", [(png(0), "a"), (png(0), "b"), (png(0), "c")], count=5)
    put(folder, image_000000002=None, label_000000003=b"\xff")
    _, [scoring] = evaluated(tmp_path, FakeReader([("a", 1.0)]))
    assert (scoring.combined().crops, scoring.combined().accuracy) == (1, 100.0)
    assert "left out 1 broken, 3 whose label is missing or not UTF-8" in capsys.readouterr().err


def test_labels_that_a_test_charset_alters_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["£12.50", "£5", "café", "it's", "ABC", "£", "a b"]
    write_lmdb(tmp_path / "set", [(png(index), label) for index, label in enumerate(labels)])
    texts = [("12.50", 0.9), ("£5", 0.9), ("café", 0.9), ("its", 0.9), ("abc", 0.9), ("", 0.9), ("ab", 0.9)]
    reader = FakeReader(texts)
    reader.charset = CHARSETS["94"] + "£"
    args, scorings = evaluated(tmp_path, reader, "--charset", "94", "36", "model", "--json", str(tmp_path / "a.json"))
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "set, charset 94: left out 1 without a character of the test charset"
    assert told[1] == (
        "set, charset 94: 4 labels lost characters that the charset has not: '£' U+00A3 POUND SIGN 3 times, ' ' U+0020 SPACE "
        "once; 1 label had characters folded: 'é'->'e' once; crops are scored without them (the model can give 1 of these "
        "characters: --charset model counts them; for the model to give them: parseq-train --add-characters ' é')"
    )
    # Without the pound sign 12.50 is what the label says, and so is 5: that is why it must be told.
    assert [(scoring.combined().crops, scoring.combined().altered) for scoring in scorings] == [(6, 4), (6, 5), (7, 2)]
    assert scorings[0].combined().accuracy == pytest.approx(100 * 4 / 6)
    assert scorings[2].combined().accuracy == pytest.approx(100 * 3 / 7)
    evaluate.report(args, reader, scorings)
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].endswith("| Label Length | Altered labels |")
    assert printed[3].endswith("|              4 |")
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["charsets"][0]
    assert content["combined"]["altered"] == content["datasets"][0]["altered"] == 4
    assert content["lost"] == {"set": {"£": 3, " ": 1}}
    assert content["folded"] == {"set": [{"from": "é", "to": "e", "count": 1}]}


def test_several_charsets_are_scored_from_one_reading(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "set", [(png(index), label) for index, label in enumerate(LABELS)])
    reader = FakeReader(TEXTS)
    _, scorings = evaluated(tmp_path, reader, "--charset", "36", "94", "model", "36")
    assert [(scoring.name, scoring.combined().crops) for scoring in scorings] == [("36", 6), ("94", 7), ("model", 7)]
    assert sum(len(pictures) for pictures in reader.shown) == 7
    kinds = {name: (tally.crops, tally.correct) for name, tally in scorings[0].kinds.items()}
    assert kinds == {"punctuation": (3, 3), "numbers": (1, 0), "mixed": (1, 1), "words": (1, 1)}


def test_crops_are_shown_as_stored_or_rotated(tmp_path: Path) -> None:
    image = Image.effect_noise((30, 12), 80).convert("RGB")
    image.putpixel((0, 0), (0, 0, 0))
    photo, encoded = image.copy(), io.BytesIO()
    photo.getexif()[0x0112] = 6
    photo.save(encoded, "PNG", exif=photo.getexif())
    clear, glass = io.BytesIO(), image.convert("RGBA")
    glass.putalpha(100)
    glass.save(clear, "PNG")
    plain = io.BytesIO()
    image.save(plain, "PNG")
    # One colour of a palette is transparent.
    palette, few = io.BytesIO(), image.quantize(8)
    few.save(palette, "PNG", transparency=few.getpixel((1, 1)))
    files = [plain.getvalue(), encoded.getvalue(), clear.getvalue(), palette.getvalue()]
    write_lmdb(tmp_path / "set", [(file, "a") for file in files])
    upright, turned = FakeReader([("a", 1.0)]), FakeReader([("a", 1.0)])
    # The corner of the palette's picture may have another shade of black.
    upright.texts = turned.texts = [("a", 1.0)] * 256
    evaluated(tmp_path, upright)
    evaluated(tmp_path, turned, "--rotation", "30")
    # Orientation and transparency do not count in data sets; who would heed them must not be given the file.
    assert [picture.file for picture in upright.shown[0]] == [files[0], None, None, None]
    wanted = [image, image, image, few.convert("RGB")]
    for picture, rotated, stored in zip(upright.shown[0], turned.shown[0], wanted, strict=True):
        assert np.array_equal(picture.image, stored)
        assert np.array_equal(rotated.image, stored.rotate(30, expand=True))
        assert rotated.file is None


def test_every_kind_of_data_is_found_below_a_folder(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "test" / "lmdb", [(png(1), "a"), (b"broken", "b")])
    (tmp_path / "rendered").mkdir()
    shard = {"images": np.full((2, 4, 8, 3), 2, np.uint8), "labels": np.array(["c", "d"])}
    np.savez(tmp_path / "rendered" / "shard-00000.npz", **shard)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "x.png").write_bytes(png(3))
    (tmp_path / "plain" / "gt.txt").write_text("x.png\te\nmissing.png\tf\n")
    (tmp_path / "plain" / "again").symlink_to(tmp_path / "plain")
    found = crop_sets(tmp_path)
    assert [(crops.name, crops.count) for crops in found] == [("plain", 2), ("rendered", 2), ("test/lmdb", 2)]
    texts = [("", 0.0), ("a", 1.0), ("c", 1.0), ("e", 1.0)]
    _, [scoring] = evaluated(tmp_path, FakeReader(texts))
    assert {score.dataset: (score.crops, score.accuracy) for score in scoring.scores()} == {
        "plain": (1, 100.0),
        "rendered": (2, 50.0),
        "test/lmdb": (1, 100.0),
    }
    assert [crops.name for crops in crop_sets(tmp_path / "plain" / "gt.txt")] == ["plain"]
    (tmp_path / "rendered" / "shard-00001.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="shard-00001"):
        crop_sets(tmp_path)
    with pytest.raises(DataError, match="no LMDB archive"):
        crop_sets(tmp_path / "nowhere")


def test_one_folder_may_hold_several_data_sets(tmp_path: Path) -> None:
    folder = write_lmdb(tmp_path / "set", [(png(0), "a")])
    (folder / "x.png").write_bytes(png(0))
    (folder / "gt.txt").write_text("x.png\tb\n")
    (folder / "labels.tsv").write_text("x.png\ta\nx.png\ta\n")
    _, [scoring] = evaluated(tmp_path, FakeReader([("a", 1.0)]))
    assert [(score.dataset, score.crops, score.accuracy) for score in scoring.scores()] == [
        ("set (LMDB)", 1, 100.0),
        ("set (gt.txt)", 1, 0.0),
        ("set (labels.tsv)", 2, 100.0),
    ]


def test_sets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for root in ("one", "two"):
        write_lmdb(tmp_path / root / "set", [(png(0), "a")])
    names = [crops.name for crops in evaluate.data_sets([tmp_path / "one", tmp_path / "two"])]
    assert names == [f"{tmp_path}/one:set", f"{tmp_path}/two:set"]


def test_no_more_than_a_batch_is_held() -> None:
    given = 0

    def iterate() -> Iterator[tuple[StoredPicture, str]]:
        nonlocal given
        for _ in range(50):
            given += 1
            yield np.zeros((4, 8, 3), np.uint8), "a"

    class Watching(FakeReader):
        def read(self, pictures: Sequence[Picture]) -> list[Reading]:
            assert given == 8 * len(self.shown) + len(pictures)
            return super().read(pictures)

    reader = Watching([("a", 1.0)])
    scoring = Scoring("36", CHARSETS["36"], 10, Rules(), WorstMistakes(0))
    score_sets(reader, [CropSet("endless", 50, iterate)], [scoring], Rules(), batch_size=8)
    assert [len(pictures) for pictures in reader.shown] == [8] * 6 + [2]


@pytest.mark.parametrize(
    ("label", "charset", "normalise", "wanted"),
    [
        (" a\u00a0 b\n", "ab", True, "ab"),
        (" a\u00a0 b\n", "a b", True, "a b"),
        ("e\u0301té²", "et2", True, "ete2"),
        ("e\u0301té²", "eté", True, "été2"),
        ("ÉTÉ", "été", True, "ÉTÉ"),
        ("été", "et", False, "été"),
    ],
)
def test_labels_are_cleaned_as_the_charset_needs(label: str, charset: str, normalise: bool, wanted: str) -> None:
    assert speller(charset, normalise).spell(label).whole == wanted


def test_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lmdb(tmp_path / "data" / "one", [(png(index), label) for index, label in enumerate(LABELS)])
    write_lmdb(tmp_path / "data" / "two", [(png(0), "dont")])
    files = {option: tmp_path / name for option, name in
             (("--json", "a.json"), ("--csv", "a.csv"), ("--error-sheet", "e.png"), ("--reliability", "r.png"))}  # fmt: skip
    options = [str(part) for pair in files.items() for part in pair]
    reader = FakeReader(TEXTS)
    args, scorings = evaluated(tmp_path / "data", reader, *options, "--by-kind", "--charset", "36", "94", "--errors", "2")
    evaluate.report(args, reader, scorings)
    printed = capsys.readouterr().out
    assert printed.count("| Dataset ") == printed.count("| Kind ") == printed.count("| Length ") == 2
    content: dict[str, Any] = json.loads(files["--json"].read_text(encoding="utf-8"))
    assert (content["model"], content["rotation"], len(content["charsets"])) == ("fake", 0.0, 2)
    first = content["charsets"][0]
    assert [row["dataset"] for row in first["datasets"]] == ["one", "two"]
    assert first["combined"]["crops"] == sum(row["crops"] for row in first["datasets"]) == 7
    assert first["combined"]["accuracy"] == pytest.approx(100 * 6 / 7)
    assert sum(entry["crops"] for entry in first["reliability"]) == 7
    assert [(row["label"], row["text"]) for row in first["mistakes"]] == [("42", "4z")]
    assert first["left_out"]["one"] == {"longer than the model can say": 1, "without a character of the test charset": 1}
    with files["--csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["charset"], row["dataset"]) for row in rows] == [
        (charset, name) for charset in ("36", "94") for name in ("one", "two", "Combined")
    ]
    assert float(rows[2]["accuracy"]) == first["combined"]["accuracy"]
    for picture in ("--error-sheet", "--reliability"):
        with Image.open(files[picture]) as drawn:
            assert drawn.format == "PNG"
            assert len(set(drawn.convert("L").tobytes())) > 10
