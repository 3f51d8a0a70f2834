"""One data set through the checkpoint, the artifact, and the service that serves it: the same scores."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import model
from artifact.files import BUNDLED_MODEL
from export.gate.crops import word_crops
from export.to_onnx import ExportOptions, build_artifact
from model.charsets import PRINTABLE
from model.data.convert import write_lmdb
from model.data.pictures import encode_png
from reading import evaluate
from reading.readers.interface import Picture, ReaderError
from reading.readers.service import ServiceReader
from tests.integration.server import ServerProcess, running

OPTIONS = ["--charset", "36", "62", "94", "--by-kind", "--batch-size", "20", "--threads", "1"]


def as_jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words in every form that data sets have them: large, grey, turned by a tag, transparent, cut short."""
    folder = tmp_path_factory.mktemp("data")
    drawn = word_crops((64, 200), PRINTABLE, 12, 40, seed=3)
    crops = []
    for number, crop in enumerate(drawn):
        label = crop.description.split("'")[1] if "'" in crop.description else "?"
        image = Image.fromarray(crop.pixels)
        exif = Image.Exif()
        exif[0x0112] = 6
        glass = image.convert("RGBA")
        glass.putalpha(128)
        files = [encode_png(image), as_jpeg(image), as_jpeg(image.convert("L")), as_jpeg(image, exif=exif), encode_png(glass)]
        crops.append((files[number % len(files)], label))
    crops += [(crops[0][0][:50], "broken"), (b"", "broken")]
    write_lmdb(folder / "words", crops)
    plain = folder / "plain"
    plain.mkdir()
    Image.fromarray(np.rot90(drawn[0].pixels)).save(plain / "turned.tiff")
    (plain / "labels.tsv").write_text("turned.tiff\tturned\nmissing.png\tmissing\n")
    return folder


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "float.onnx"
    network = model.load(BUNDLED_MODEL, pretrained=True)
    path.write_bytes(build_artifact(network, ExportOptions("float", "")).SerializeToString())
    return path


@pytest.fixture(scope="module")
def server(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running(artifact, tmp_path_factory.mktemp("log") / "log") as process:
        yield process


def scores(output: Path, data: Path, *options: str) -> Any:
    assert evaluate.main(["--data", str(data), "--json", str(output), *OPTIONS, *options]) == 0
    content = json.loads(output.read_text(encoding="utf-8"))
    for charset in content["charsets"]:
        # The service rounds confidences to six digits, and a runtime's sums differ in the seventh.
        for rows in (charset["datasets"], charset["kinds"], charset["lengths"], [charset["combined"]]):
            for row in rows:
                row["confidence"] = pytest.approx(row["confidence"], abs=1e-3)
                row["ece"] = pytest.approx(row["ece"], abs=1e-3)
        for entry in charset["reliability"]:
            entry["confidence"] = pytest.approx(entry["confidence"], abs=1e-5)
    return content["charsets"]


@pytest.mark.parametrize("rotation", ["0", "7.5"])
def test_checkpoint_artifact_and_service_score_alike(
    rotation: str, data: Path, artifact: Path, server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed, results = [], []
    for options in (["--model", BUNDLED_MODEL], ["--artifact", str(artifact)], ["--url", server.url]):
        results.append(scores(tmp_path / "out.json", data, "--rotation", rotation, *options))
        printed.append(capsys.readouterr())
    assert printed[0].out == printed[1].out == printed[2].out
    assert [result == results[0] for result in results] == [True] * 3
    combined = results[0][0]["combined"]
    # Drawn words that the model can read, or the comparison would say little.
    assert combined["crops"] >= 35
    assert 0 < combined["accuracy"] < 100
    assert results[0][0]["left_out"]["words"]["broken"] == 2
    assert "plain, charset 36: left out 1 broken" in printed[2].err


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words and lines of two of them, as they are and running upwards."""
    folder = tmp_path_factory.mktemp("data")
    drawn = word_crops((40, 130), "abcdehmnorstuw", 6, 9, seed=5)
    words = [(Image.fromarray(crop.pixels), crop.description.split("'")[1]) for crop in drawn]
    crops = words[:3]
    for (left, first), (right, second) in zip(words[3:6], words[6:], strict=True):
        line = Image.new("RGB", (left.width + right.width + 30, left.height), left.getpixel((0, 0)))
        line.paste(left, (0, 0))
        line.paste(right, (left.width + 30, 0))
        crops.append((line, f"{first} {second}"))
    turned = [(image.transpose(Image.Transpose.ROTATE_90), label) for image, label in crops]
    write_lmdb(folder / "lines", [(encode_png(image), label) for image, label in [*crops, *turned]])
    return folder


def test_turned_words_and_lines_score_alike(lines: Path, artifact: Path, server: ServerProcess, tmp_path: Path) -> None:
    options, output = ["--orientation", "auto", "--split", "auto"], tmp_path / "out.json"
    readers = (["--model", BUNDLED_MODEL], ["--artifact", str(artifact)], ["--url", server.url])
    results = [scores(output, lines, *options, *reader) for reader in readers]
    assert [result == results[0] for result in results] == [True] * 3
    upright = scores(output, lines, "--artifact", str(artifact))
    # Or the comparison would say little.
    assert results[0][0]["combined"]["accuracy"] >= upright[0]["combined"]["accuracy"] + 30


def test_crops_that_the_service_refuses_count_as_empty(server: ServerProcess) -> None:
    word = Picture(Image.fromarray(word_crops((64, 200), "abc", 5, 1, seed=1)[0].pixels))
    with closing(ServiceReader(server.url)) as reader:
        readings = reader.read([word, Picture(word.image, b"no image"), word])
    assert readings[0] == readings[2]
    assert readings[0].text
    assert (readings[1].text, readings[1].confidence, reader.refused) == ("", 0.0, 1)


def test_a_service_that_is_not_there_is_one_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--data", str(data), "--url", "http://127.0.0.1:9"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("parseq-evaluate: no answer from http://127.0.0.1:9")
    assert error.count("\n") == 1


def test_another_service_is_told(server: ServerProcess) -> None:
    with pytest.raises(ReaderError, match="answered 404"):
        ServiceReader(f"{server.url}/elsewhere")
    for url in ("localhost:8000", "http://[::1"):
        with pytest.raises(ReaderError, match="no address of a service"):
            ServiceReader(url)
