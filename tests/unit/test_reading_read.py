"""`parseq-read` in the small."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from export.to_onnx import ExportOptions, build_artifact
from model.data.pictures import BrokenImageError, decode_image
from model.recognisers.parseq.config import PARSeqConfig
from model.recognisers.parseq.network import PARSeq
from reading import read
from reading.pictures.opening import as_seen
from reading.pictures.paths import NothingFoundError, expand
from service.images.decode import decode_image as decode_in_service
from service.images.limits import ImageLimits
from tests.training_runs import TINY

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files `w.safetensors`, `c.json` and `a.onnx` of one tiny network."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    network = PARSeq(PARSeqConfig.from_mapping(TINY)).eval()
    save_file(network.state_dict(), folder / "w.safetensors")
    (folder / "c.json").write_text(json.dumps(TINY))
    artifact = build_artifact(network, ExportOptions("tiny", ""))
    (folder / "a.onnx").write_bytes(artifact.SerializeToString())
    return folder


@pytest.fixture
def network(model_files: Path) -> list[str]:
    return ["--config", str(model_files / "c.json"), "--weights", str(model_files / "w.safetensors")]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.jpg", "deep/c.webp", "[x].png"):
        Image.fromarray(rng.integers(0, 255, (20, 60, 3), np.uint8)).save(folder / name)
    (folder / "bad.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    return folder


def files_read(output: str) -> list[str]:
    return [json.loads(line)["file"] for line in output.splitlines()]


def test_pictures_are_read_as_the_service_reads_them() -> None:
    dark_on_nothing = Image.new("RGBA", (40, 10), (0, 0, 0, 0))
    dark_on_nothing.paste((10, 10, 10, 255), (2, 2, 6, 8))
    light_on_nothing = Image.new("RGBA", (40, 10), (0, 0, 0, 0))
    light_on_nothing.paste((250, 250, 250, 255), (2, 2, 6, 8))
    photo = Image.new("RGB", (4, 2), "red")
    photo.getexif()[0x0112] = 6
    deep = Image.fromarray(np.array([[0, 32896, 65535]], np.uint16))
    assert as_seen(dark_on_nothing).getpixel((0, 0)) == (255, 255, 255)
    assert as_seen(light_on_nothing).getpixel((0, 0)) == (0, 0, 0)
    assert as_seen(photo).size == (2, 4)
    assert np.asarray(as_seen(deep))[0, :, 0].tolist() == [0, 128, 255]
    for image in (dark_on_nothing, light_on_nothing, photo, deep):
        file = io.BytesIO()
        image.save(file, "PNG", exif=image.getexif())
        seen = as_seen(decode_image(file.getvalue()))
        assert np.array_equal(np.asarray(seen), np.asarray(decode_in_service(file.getvalue(), ImageLimits())))


def test_pictures_that_cannot_be_seen() -> None:
    with pytest.raises(BrokenImageError, match="pixels that are not numbers"):
        as_seen(Image.fromarray(np.full((2, 2), np.nan, np.float32)))


def test_names_are_expanded(images: Path) -> None:
    every = [images / name for name in ("[x].png", "a.jpg", "b.png", "bad.png", "deep/c.webp")]
    assert expand(str(images)) == every
    assert expand(f"{images}/*.jpg") == [images / "a.jpg"]
    assert expand(f"{images}/**/*.webp") == [images / "deep" / "c.webp"]
    assert expand(f"{images}/[x].png") == [images / "[x].png"]
    assert expand(f"{images}/none.png") == [images / "none.png"]
    for nothing in (f"{images}/*.bmp", str(images.parent / "empty")):
        (images.parent / "empty").mkdir(exist_ok=True)
        with pytest.raises(NothingFoundError):
            expand(nothing)


def test_a_bad_file_is_one_line_and_the_rest_goes_on(
    images: Path, network: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{images}/none.png", str(images), f"{images}/*.bmp", f"{images}/b.png"]
    assert read.main([*names, "--json", "--batch-size", "2", *network]) == 1
    captured = capsys.readouterr()
    wanted = ["[x].png", "a.jpg", "b.png", "deep/c.webp", "b.png"]
    assert files_read(captured.out) == [str(images / name) for name in wanted]
    assert sorted(captured.err.splitlines()) == [
        f"parseq-read: {images}/*.bmp: no file matches",
        f"parseq-read: {images}/bad.png: not a readable image",
        f"parseq-read: {images}/none.png: there is no such file",
    ]


def test_the_artifact_reads_what_the_checkpoint_reads(
    images: Path, model_files: Path, network: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert read.main([f"{images}/*.png", "--json", *network]) == 1
    of_network = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert read.main([f"{images}/*.png", "--json", "--artifact", str(model_files / "a.onnx")]) == 1
    of_artifact = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(of_network) == 2
    assert [entry["text"] for entry in of_artifact] == [entry["text"] for entry in of_network]
    assert [entry["confidence"] for entry in of_artifact] == pytest.approx([e["confidence"] for e in of_network], abs=1e-5)


def test_images_and_lists_come_on_the_standard_input(
    images: Path, network: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((images / "b.png").read_bytes())))
    assert read.main(["-", *network]) == 0
    assert capsys.readouterr().out.startswith("-: ")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{images}/b.png\n\n{images}/deep\n"))
    assert read.main(["--from-file", "-", "--json", "--decode", "nar", "--refine-iters", "2", *network]) == 0
    assert files_read(capsys.readouterr().out) == [f"{images}/b.png", f"{images}/deep/c.webp"]
    (images / "list").write_text(f"{images}/a.jpg\n")
    assert read.main([f"{images}/b.png", "--from-file", f"{images}/list", "--json", *network]) == 0
    assert files_read(capsys.readouterr().out) == [f"{images}/b.png", f"{images}/a.jpg"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "nothing to read"),
        (["-", "--from-file", "-"], "give - once"),
        (["--from-file", "no-such-list"], "cannot read the list no-such-list"),
        (["x.png", "--artifact", "no-such.onnx"], "there is no artifact no-such.onnx"),
        (["x.png", "--artifact", "a.onnx", "--model", "parseq-nano"], "--model is for checkpoints"),
        (["x.png", "--weights", "no-such.pt"], "no-such.pt"),
        (["x.png", "--device", "nowhere"], "cannot compute on nowhere"),
    ],
)
def test_wrong_calls_are_one_line(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert read.main(options) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_output_that_nobody_wants_ends_quietly(images: Path, network: list[str]) -> None:
    command = [sys.executable, "-m", "reading.read", str(images / "b.png"), *network]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    with process, process.stdout, process.stderr:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(100) == 1


def test_regions_of_a_page_are_read_one_by_one(network: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, regions = tmp_path / "page.png", tmp_path / "regions.json"
    pixels = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    Image.fromarray(pixels).save(page)
    box = [10, 20, 110, 60]
    corners = [[10, 20], [110, 20], [110, 60], [10, 60]]
    found = [{"id": "a", "box": box}, {"points": corners, "score": 1}, {"box": [0, 0, 0, 9]}, {"box": "none"}, {}]
    regions.write_text(json.dumps(found))
    assert read.main([*network, str(page), "--regions", str(regions), "--json"]) == read.EXIT_SOME_FAILED
    output = capsys.readouterr()
    first, second = [json.loads(line) for line in output.out.splitlines()]
    assert (first["file"], first["region"], second["region"]) == (str(page), "a", "1")
    assert (first["text"], first["confidence"]) == (second["text"], second["confidence"])
    assert [line.split(": ")[1].rpartition("#")[2] for line in output.err.splitlines()] == ["2", "3", "4"]
    regions.write_text(json.dumps(found[:1]))
    assert read.main([*network, str(page), "--regions", str(regions)]) == 0
    assert capsys.readouterr().out.startswith(f"{page}#a: ")


@pytest.mark.parametrize("content", [None, "{", "{}", "[]", "[1]"])
def test_a_file_of_regions_that_cannot_be_used_is_told(
    content: str | None, network: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    regions = tmp_path / "regions.json"
    if content is not None:
        regions.write_text(content)
    assert read.main([*network, "page.png", "--regions", str(regions)]) == read.EXIT_USAGE
    assert str(regions) in capsys.readouterr().err


def test_regions_are_those_of_one_image(network: list[str], images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    regions = images / "regions.json"
    regions.write_text('[{"box": [1, 2, 30, 14]}]')
    for names in ([str(images)], [str(images / "b.png"), str(images / "a.jpg")]):
        assert read.main([*network, *names, "--regions", str(regions)]) == read.EXIT_USAGE
        assert "one page" in capsys.readouterr().err
