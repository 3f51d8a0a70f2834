"""`parseq-export adopt`: what it writes, what it refuses with which exit status, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifact.metadata import ArtifactMetadata
from artifact.session import open_cpu_session
from export import __main__ as cli
from export.adopt.description_file import FIELDS
from export.adopt.families import FAMILIES
from tests.adopt_models import HEIGHT, LETTERS, WIDTH, Foreign, striped_words, write_foreign

PAGE = Path(__file__).parents[2] / "docs" / "adopt.md"
SIZE = f"{HEIGHT}x{WIDTH}"


@pytest.fixture(autouse=True)
def stripes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.adopt.check.draw_words", striped_words)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    return write_foreign(
        tmp_path / "foreign.onnx", Foreign(entries=[*LETTERS, " "], metadata={"character": "\n".join(LETTERS)})
    )


def metadata_of(path: Path) -> ArtifactMetadata:
    return ArtifactMetadata.from_map(open_cpu_session(path).get_modelmeta().custom_metadata_map)


def test_a_family_and_options(foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "artifact.onnx"
    arguments = ["adopt", str(foreign), "--describe", "ppocr", "--size", SIZE, "--output", str(output)]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "text equal to the original's" in said
    assert f"foreign: {SIZE} pixels, 13 characters" in said
    found = metadata_of(output)
    assert (found.model_name, found.licence, found.source) == ("foreign", "Apache-2.0", FAMILIES["ppocr"].source)
    # Without --force it stays.
    assert cli.main(arguments) == 2
    assert "add --force" in capsys.readouterr().err
    (tmp_path / "notice.txt").write_text("By A,\nchanged.\n")
    (tmp_path / "own.txt").write_text("\n".join(LETTERS))
    own = ["--name", "mine", "--licence", "MIT", "--source", "https://example.org", "--notice", str(tmp_path / "notice.txt")]
    assert cli.main([*arguments, "--force", "--charset", str(tmp_path / "own.txt"), *own]) == 0
    found = metadata_of(output)
    assert (found.model_name, found.licence, found.source) == ("mine", "MIT", "https://example.org")
    assert (found.notice, found.charset) == ("By A,\nchanged.", LETTERS + " ")


def test_what_is_misread_is_refused(foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described = tmp_path / "wrong.json"
    described.write_text(json.dumps({"family": "ppocr", "size": [HEIGHT, WIDTH], "colours": "rgb"}))
    output = tmp_path / "artifact.onnx"
    arguments = ["adopt", str(foreign), "--describe", str(described), "--output", str(output)]
    assert cli.main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "refused: colours bgr reads better than what the description says" in said.err
    assert "nothing was written" in said.err
    assert not output.exists()
    assert cli.main([*arguments, "--without-words"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--describe", "trocr"], "no description 'trocr': give the name of a family (ppocr, "),
        (["--describe", "garbage.json"], "garbage.json is not valid JSON"),
        (["--describe", "deep.json"], "deep.json is not valid JSON"),
        (["--describe", "long.json"], "must be one of ppocr"),
        (["--describe", "list.json"], "must hold a JSON object"),
        (["--describe", "ppocr"], "the description says 48: give --size 8x128"),
        (["--describe", "ppocr", "--size", SIZE, "--charset", "none.txt"], "cannot read the dictionary none.txt"),
        (["--describe", "ppocr", "--size", SIZE, "--notice", "none.txt"], "cannot read the notice none.txt"),
        (["--describe", "ppocr", "--size", SIZE, "--notice", "empty.txt"], "the notice empty.txt is empty"),
        (["--describe", "ppocr", "--size", SIZE, "--name", ""], "--name is empty"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str],
    said: str,
    foreign: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    contents = {"garbage.json": "{", "deep.json": "[" * 100_000, "list.json": "[]", "empty.txt": " \n"}
    for name, content in {**contents, "long.json": json.dumps({"family": "a" * 100_000})}.items():
        Path(name).write_text(content)
    assert cli.main(["adopt", str(foreign), "--output", "artifact.onnx", *arguments]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert captured.err.startswith("parseq-export: error: ")
    assert said in captured.err
    assert len(captured.err) < 1000
    assert not Path("artifact.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "a.onnx"], "required: --describe"),
        (["--describe", "ppocr", "--output", "a.onnx", "--size", "48"], "height and width in pixels, such as 48x128"),
        (["--describe", "ppocr", "--output", "a.onnx", "--size", "2x9999"], "from 8 to 4096 pixels"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["adopt", "foreign.onnx", *arguments])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_options_fields_and_families_are_documented() -> None:
    page = PAGE.read_text(encoding="utf-8")
    options = [option for action in cli.build_adopt_parser()._actions for option in action.option_strings]
    assert len(options) > 8
    assert [option for option in options if f"`{option}" not in page and option not in ("-h", "--help")] == []
    assert [name for name in (*FIELDS, *FAMILIES) if f"`{name}`" not in page] == []
