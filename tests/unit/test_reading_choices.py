"""Alternatives and a choice of characters offline: checkpoint and artifact read alike, a service is asked."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from artifact.text import Reading
from export.gate.crops import parity_crops
from export.to_onnx import ExportOptions, build_artifact
from reading import read
from reading.evaluate import build_parser
from reading.readers.artifact import ArtifactReader
from reading.readers.checkpoint import NetworkReader
from reading.readers.interface import Picture, ReaderError
from reading.readers.options import ReaderOptions
from reading.readers.service import ServiceReader
from tests.export_models import small_model
from tests.small_recognisers import SMALL, made_up

NETWORK = small_model()
PICTURES = [
    Picture(Image.fromarray(crop.pixels))
    for crop in parity_crops(NETWORK.config.img_size, NETWORK.config.charset_train, NETWORK.config.max_label_length)[4:12]
]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "a.onnx"
    path.write_bytes(build_artifact(NETWORK, ExportOptions("small", "", top=5, with_allowed=True)).SerializeToString())
    return path


def same(left: Reading, right: Reading) -> bool:
    pairs = list(zip((left, *left.alternatives), (right, *right.alternatives), strict=True))
    return all(a.text == b.text and abs(a.confidence - b.confidence) < 1e-4 for a, b in pairs)


@pytest.mark.parametrize(("alternatives", "allowed"), [(0, None), (5, None), (0, "digits"), (3, "lowercase")])
def test_checkpoint_and_artifact_read_alike(artifact: Path, alternatives: int, allowed: str | None) -> None:
    network = NetworkReader(NETWORK, "network", alternatives=alternatives, allowed=allowed)
    readings = network.read(PICTURES)
    others = ArtifactReader(artifact, 1, alternatives=alternatives, allowed=allowed).read(PICTURES)
    assert sum(map(same, readings, others)) >= len(PICTURES) - 1  # near ties apart
    assert any(len(reading.alternatives) > 1 for reading in others) == (alternatives > 1)
    for reading in others:
        if allowed:
            may = set("0123456789" if allowed == "digits" else "abcdefghijklmnopqrstuvwxyz")
            assert all(set(other.text) <= may for other in (reading, *reading.alternatives))


def test_what_cannot_be_read_so_is_told(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match="does not have the characters `é`"):
        ArtifactReader(artifact, allowed="chars:é")
    with pytest.raises(ReaderError, match="does not have the characters `é`"):
        NetworkReader(NETWORK, "network", allowed="chars:é")
    with pytest.raises(ReaderError, match="'crnn' has no candidates"):
        NetworkReader(made_up(SMALL["crnn"]), "columns", alternatives=2)
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(build_artifact(NETWORK, ExportOptions("small", "")).SerializeToString())
    with pytest.raises(ReaderError, match="parseq-export --top 5"):
        ArtifactReader(plain, alternatives=2)
    with pytest.raises(ReaderError, match="parseq-export --allowed"):
        ArtifactReader(plain, allowed="digits")


def test_columns_of_a_checkpoint_are_restricted() -> None:
    network = made_up(SMALL["crnn"])
    readings = NetworkReader(network, "columns", allowed="digits").read(PICTURES)
    assert any(reading.text for reading in readings)
    assert all(reading.text.isdigit() or not reading.text for reading in readings)


def test_a_service_is_asked() -> None:
    asked: list[httpx.URL] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            limits = {"max_crops_per_request": 9, "max_body_bytes": 2**20}
            return httpx.Response(
                200, json={"models": [{"name": "m", "charset": "1+", "max_label_length": 9, "limits": limits}]}
            )
        asked.append(request.url)
        others = [{"text": "1", "confidence": 0.5}, {"text": "+", "confidence": 0.25}]
        return httpx.Response(200, json={"results": [{"text": "1", "confidence": 0.5, "alternatives": others}]})

    reader = ServiceReader("http://fake", alternatives=2, allowed="chars:+&1", transport=httpx.MockTransport(handle))
    [reading] = reader.read([Picture(Image.new("RGB", (2, 2)))])
    assert dict(asked[0].params) == {"alternatives": "2", "charset": "chars:+&1"}
    assert [other.text for other in reading.alternatives] == ["1", "+"]


def test_the_command_prints_them(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "word.png"
    PICTURES[0].image.save(picture)
    arguments = ["--artifact", str(artifact), "--json", "--alternatives", "3", "--charset", "digits", str(picture)]
    assert read.main(arguments) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["alternatives"][0] == {"text": values["text"], "confidence": values["confidence"]}
    assert 1 < len(values["alternatives"]) <= 3
    assert np.all(np.diff([other["confidence"] for other in values["alternatives"]]) <= 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--alternatives", "6", "--json"], "a whole number from 1 to 5"),
        (["--charset", "Digits"], "is no kind of characters"),
        (["--charset", ""], "nothing is no kind"),
        (["--alternatives", "2"], "--alternatives is for --json"),
    ],
)
def test_wrong_calls_are_told(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = read.main([*arguments, "x.png"])
    except SystemExit as left:
        status = left.code
    assert status == 2
    assert said in capsys.readouterr().err


def test_evaluation_keeps_the_scored_charset_apart() -> None:
    args = build_parser().parse_args(["--read-charset", "digits", "--charset", "36"])
    assert (ReaderOptions.of(args).allowed, args.charset) == ("digits", ["36"])
