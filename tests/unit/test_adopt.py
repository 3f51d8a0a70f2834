"""Files of others become artifacts: in each family's form, with every field of a description, and not under a wrong one."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from artifact.files import BUNDLED_MODEL
from artifact.metadata import CONFIDENCES_NAME, INPUT_NAME, TOKEN_IDS_NAME, ArtifactMetadata
from artifact.session import open_cpu_session
from artifact.text import text_of
from export.adopt import adopt as adopting
from export.adopt import check
from export.adopt.adopt import AdoptOptions, adopt
from export.adopt.check import MIN_GAIN, MIN_SHARE, MisreadError
from export.adopt.description import Charset, Description, lines_of
from export.adopt.description_file import read_description
from export.adopt.families import FAMILIES
from export.adopt.graph import GraftBuilder
from export.adopt.original import open_original, run
from export.adopt.scores import Scores, class_table, read
from export.adopt.words import FLOOR, Words, log_likelihood, texts_for
from export.graphs.builder import GraphBuilder
from export.graphs.ctc import collapse_columns
from export.graphs.interface import ExportError, graph_of
from export.inspect import describe, inspect_artifact
from export.to_onnx import ExportSummary
from model.charsets import PRINTABLE, SIGNS_BESIDES
from model.checkpoints.choose import choose_network
from model.checkpoints.loading import weights_path
from service.sessions.artifact import read_artifact
from tests.adopt_models import HEIGHT, LETTERS, STEPS, WIDTH, Foreign, foreign_model, picture_of, striped_words, write_foreign

PPOCR = replace(FAMILIES["ppocr"], size=(HEIGHT, WIDTH), charset=Charset(metadata="character", append=(" ",)))
PPOCR_FILE = Foreign(entries=[*LETTERS, " "], metadata={"character": "\n".join(LETTERS) + "\n"})
DOCTR = {
    name: replace(FAMILIES[name], size=(HEIGHT, WIDTH), charset=Charset(inline=tuple(LETTERS)), mean=(0.7,), std=(0.3,))
    for name in ("doctr-ctc", "doctr-steps")
}
DOCTR_FILE = Foreign(special=len(LETTERS), mean=0.7, std=0.3, bgr=False, probabilities=False, opset=14)
"""CTC or steps is a matter of reading."""
OPTIONS = AdoptOptions("stripes")


@pytest.fixture
def stripes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are written in stripes."""
    monkeypatch.setattr("export.adopt.check.draw_words", striped_words)


def adopted(folder: Path, foreign: Foreign, description: Description, options: AdoptOptions = OPTIONS) -> ExportSummary:
    path = write_foreign(folder / "foreign.onnx", foreign)
    return adopt(path, description, options, folder / "artifact.onnx", force=True)


def texts_of(path: Path, pictures: Sequence[Any]) -> list[str]:
    session = open_cpu_session(path)
    metadata = ArtifactMetadata.from_map(session.get_modelmeta().custom_metadata_map)
    ids, confidences = session.run([TOKEN_IDS_NAME, CONFIDENCES_NAME], {INPUT_NAME: np.stack(pictures)})
    return [text_of(*row, metadata.vocabulary).text for row in zip(ids.tolist(), confidences.tolist(), strict=True)]


def ids_of(text: str) -> list[int]:
    return [LETTERS.index(c) + 1 if c in LETTERS else {"-": 0, " ": len(LETTERS) + 1}[c] for c in text]


def stripes_of(text: str, entries: int = len(LETTERS)) -> Any:
    """`-` is a blank stripe."""
    return picture_of(ids_of(text), entries + 1)


@pytest.mark.usefixtures("stripes")
def test_a_recogniser_of_columns_in_the_form_of_ppocr(tmp_path: Path) -> None:
    summary = adopted(tmp_path, PPOCR_FILE, PPOCR)
    written = ["abc", "aab-b", "", "l k", "abcdefghijkl"]
    assert texts_of(summary.path, [stripes_of(text, len(LETTERS) + 1) for text in written]) == [
        "abc",
        "abb",
        "",
        "l k",
        LETTERS,
    ]
    metadata = summary.metadata
    assert (metadata.charset, metadata.max_label_length, metadata.decode_mode) == (LETTERS + " ", STEPS, "ctc")
    assert (metadata.architecture, metadata.schema_version, metadata.opset) == ("ppocr", 2, 11)
    assert (metadata.fit, metadata.licence, metadata.source_sha256) == ("stretch", "Apache-2.0", metadata.weights_sha256)
    assert "RapidAI" in (metadata.notice or "")
    # What a server would find.
    assert read_artifact(summary.path)[0] == metadata
    found = inspect_artifact(summary.path, timing=False)
    assert found.parity is not None
    assert found.parity["words"]["right"] == 1
    said = describe(found)
    for part in ("licence    Apache-2.0", "https://github.com/PaddlePaddle", "100.0% of 40 drawn words"):
        assert part in said


@pytest.mark.usefixtures("stripes")
@pytest.mark.parametrize("family", list(DOCTR))
def test_in_the_forms_of_doctr(family: str, tmp_path: Path) -> None:
    summary = adopted(tmp_path, DOCTR_FILE, DOCTR[family])
    metadata = summary.metadata
    assert (metadata.fit, metadata.pad_value, metadata.pad_side, metadata.resample) == ("pad", (0, 0, 0), "end", "bilinear")
    columns = family == "doctr-ctc"
    assert metadata.max_label_length == STEPS - (not columns)
    wanted = {"abc": "abc", "aab-b": "abb" if columns else "aab", "": "", "lk": "lk"}
    assert texts_of(summary.path, [stripes_of(text) for text in wanted]) == list(wanted.values())


@pytest.mark.usefixtures("stripes")
@pytest.mark.parametrize(
    ("foreign", "changes"),
    [
        ({"nhwc": True}, {"layout": "nhwc"}),
        ({"axes": "tbc"}, {"axes": "tbc"}),
        ({"axes": "bct", "probabilities": False}, {"axes": "bct", "output": "logits"}),
        ({"bgr": False, "mean": 0.0, "std": 1.0}, {"colours": "rgb", "mean": (0.0,), "std": (1.0,)}),
        ({"mean": 0.0, "std": 1 / 255}, {"divisor": 1.0, "mean": (0.0,), "std": (1.0,)}),
        ({"special": 5}, {"special": 5}),
        ({"special": 13, "never": (0, 14)}, {"special": 13, "never": (14, 0)}),
        (
            {"special": 13, "never": (0, 14), "probabilities": False},
            {"special": 13, "never": (14, 0), "output": "logits", "decoding": "steps"},
        ),
        ({"special": 5, "opset": 18}, {"special": 5, "decoding": "steps"}),
        ({"opset": 20, "width": WIDTH}, {}),
        ({"opset": 13}, {"resample": "bilinear"}),
        ({"opset": 9}, {}),
        ({"element_type": TensorProto.FLOAT16, "opset": 17}, {}),
    ],
    ids=str,
)
def test_every_fact_of_a_description(foreign: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    described = replace(PPOCR, charset=Charset(inline=tuple(LETTERS)), **changes)
    summary = adopted(tmp_path, replace(PPOCR_FILE, entries=LETTERS, **foreign), described)
    assert texts_of(summary.path, [stripes_of("fed"), stripes_of("cab")]) == ["fed", "cab"]
    assert summary.metadata.resample == described.resample
    assert summary.metadata.precision == ("fp16" if "element_type" in foreign else "fp32")


def written_for_columns(entries: Sequence[str], metadata: ArtifactMetadata, font: Path | None) -> Words:
    return striped_words(entries, replace(metadata, decode_mode="ctc"), font)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"colours": "rgb"}, "colours bgr"),
        ({"special": "last"}, "the blank as the first class"),
        ({"mean": (0.0,), "std": (1.0,)}, "mean 0.5, std 0.5"),
        ({"divisor": 1.0, "mean": (0.0,), "std": (1.0,)}, "mean 0.5, std 0.5"),
        ({"decoding": "steps"}, "decoding ctc with the blank as the first class"),
        ({"charset": Charset(inline=(" ", *LETTERS))}, "a charset that begins one class earlier"),
        ({"charset": Charset(inline=(*LETTERS[1:], " ", "a"))}, "a charset that begins one class later"),
        ({"charset": Charset(inline=(*LETTERS.upper(), " "))}, "a charset with capital and small letters exchanged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_fact_is_refused_and_the_right_one_named(
    changes: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.adopt.check.draw_words", written_for_columns)
    with pytest.raises(MisreadError) as caught:
        adopted(tmp_path, PPOCR_FILE, replace(PPOCR, **changes))
    assert str(caught.value).startswith(f"{named} reads better")
    assert not (tmp_path / "artifact.onnx").exists()
    # On trust it is written, and reads as the original does under the same description.
    trusted = adopted(tmp_path, PPOCR_FILE, replace(PPOCR, **changes), replace(OPTIONS, without_words=True))
    assert json.loads(open_cpu_session(trusted.path).get_modelmeta().custom_metadata_map["parseq_parity"])["words"] is None


@pytest.mark.usefixtures("stripes")
@pytest.mark.parametrize(("gain", "refused"), [(0.5, False), (1.2, True)])
def test_another_normalisation_must_be_much_better(
    gain: float, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PP-OCRv3 and v4 read drawn words somewhat better with half the contrast, whatever they have learned with."""

    def score(_scores: Scores, description: Description, *_rest: Any) -> tuple[Any, float, str]:
        logs = np.linspace(-2.9, -0.1, 40)
        return (logs, 0.6, "") if description.mean == (0.5,) else (logs * (1 - gain / 1.5), 0.7, "")

    monkeypatch.setattr("export.adopt.check._score", score)
    if refused:
        with pytest.raises(MisreadError, match="mean 0, std 1 reads better"):
            adopted(tmp_path, PPOCR_FILE, PPOCR)
    else:
        adopted(tmp_path, PPOCR_FILE, PPOCR)


@pytest.mark.usefixtures("stripes")
def test_several_wrong_facts_are_refused_too(tmp_path: Path) -> None:
    wrong = replace(PPOCR, colours="rgb", charset=Charset(inline=tuple(reversed([*LETTERS, " "]))))
    with pytest.raises(MisreadError, match=r"only \d+% of 40 drawn words are read rightly \(such as .* are several wrong"):
        adopted(tmp_path, PPOCR_FILE, wrong)


@pytest.mark.parametrize(
    ("foreign", "changes", "said"),
    [
        ({}, {"charset": Charset(metadata="character")}, r'has 14 classes, .* 12 characters, the blank: 13; .*"append": " "'),
        ({}, {"charset": Charset(inline=tuple(LETTERS + " xy"))}, "2 classes less; is it another dictionary"),
        ({}, {"charset": Charset(inline=tuple(LETTERS + " x"))}, "one class less; perhaps the dictionary has the space"),
        ({}, {"charset": Charset(metadata="characters")}, "under 'characters', which has character: give it with --charset"),
        ({}, {"charset": Charset()}, "nothing says what the classes stand for"),
        ({}, {"output": "logits"}, "say `probabilities`"),
        ({"probabilities": False}, {}, "say `logits`"),
        ({}, {"layout": "nhwc"}, "looks like layout nchw, not nhwc"),
        ({"axes": "tbc"}, {}, "that is not `axes` btc"),
        ({"batch": 1}, {}, "batch of .* is fixed at 1"),
        ({"width": WIDTH * 2}, {}, "width of .* is fixed at 96 pixels, the description says 48: give --size 8x96"),
        ({}, {"size": (16, WIDTH)}, "height of .* is fixed at 8 pixels, the description says 16: give --size 8x48"),
        ({}, {"special": 14}, "14 classes, from 0: there is no class 14"),
        ({}, {"output_name": "logits"}, "has no output 'logits'; its outputs are scores"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_does_not_fit_is_told_in_one_line(
    foreign: dict[str, Any], changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=said) as caught:
        adopted(tmp_path, replace(PPOCR_FILE, **foreign), replace(PPOCR, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("stripes")
def test_grey(tmp_path: Path) -> None:
    """One channel: the stripes' colours are told apart by their brightness."""
    model = foreign_model(Foreign(bgr=False, probabilities=False))
    # Red, green and blue of the network's weights from one grey channel: it can tell only black from the rest.
    grey = np.zeros((2, 1, HEIGHT, WIDTH // STEPS), np.float32)
    grey[1] = 40 / grey[1].size
    for tensor in model.graph.initializer:
        if tensor.name == "weight":
            tensor.CopyFrom(numpy_helper.from_array(grey, "weight"))
        elif tensor.name == "bias":
            tensor.CopyFrom(numpy_helper.from_array(np.array([0, 30], np.float32), "bias"))
        else:
            tensor.CopyFrom(numpy_helper.from_array(np.array([0, 2, -1], np.int64), "shape"))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, tmp_path / "grey.onnx")
    described = replace(FAMILIES["easyocr"], size=(HEIGHT, WIDTH), charset=Charset(inline=("x",)))
    summary = adopt(tmp_path / "grey.onnx", described, replace(OPTIONS, without_words=True), tmp_path / "artifact.onnx")
    assert texts_of(summary.path, [stripes_of("a-b--"), stripes_of("")]) == ["xx", ""]
    with pytest.raises(ExportError, match="1 channels as NCHW: that is not rgb"):
        adopt(tmp_path / "grey.onnx", replace(described, colours="rgb"), OPTIONS, tmp_path / "other.onnx")


def test_files_that_cannot_be_adopted(tmp_path: Path) -> None:
    def refused(path: Path, said: str) -> None:
        with pytest.raises(ExportError, match=said):
            adopt(path, PPOCR, OPTIONS, tmp_path / "artifact.onnx")

    refused(tmp_path / "none.onnx", "there is no file")
    (tmp_path / "garbage.onnx").write_bytes(b"\xff" * 100)
    refused(tmp_path / "garbage.onnx", "damaged or is no ONNX file")
    several = foreign_model(PPOCR_FILE)
    several.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["x", "y", "z"]))
    onnx.save(several, tmp_path / "several.onnx")
    refused(tmp_path / "several.onnx", "several outputs: say which one is read")
    two = foreign_model(PPOCR_FILE)
    two.graph.input.append(helper.make_tensor_value_info("text", TensorProto.FLOAT, ["N", 1, 1]))
    two.graph.node.append(helper.make_node("Add", ["scores", "text"], ["with_text"]))
    two.graph.output[0].name = "with_text"
    onnx.save(two, tmp_path / "two.onnx")
    refused(tmp_path / "two.onnx", r"one picture and nothing else, its inputs are: picture tensor\(float\) .*, text")
    external = tmp_path / "external.onnx"
    write_foreign(external, PPOCR_FILE, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    refused(external, "keeps its weights in another file")


@pytest.mark.usefixtures("stripes")
def test_weights_beside_the_file_functions_and_branches_are_taken_along(tmp_path: Path) -> None:
    model = foreign_model(replace(PPOCR_FILE, opset=16))
    # The softmax becomes a function of the file's own, the last node a branch that knows values from outside.
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    function = helper.make_function(
        "own", "Sharper", ["x"], ["y"], [helper.make_node("Softmax", ["x"], ["y"], axis=2)], [helper.make_opsetid("", 16)]
    )
    softmax.op_type, softmax.domain = "Sharper", "own"
    del softmax.attribute[:]
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Identity", ["softmax"], [f"{name}_value"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_value", TensorProto.FLOAT, None)],
        )
        for name in ("then", "else")
    }
    last = model.graph.node.pop()
    model.graph.node.append(helper.make_node("If", ["yes"], list(last.output), **branches))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    onnx.checker.check_model(model)
    path = tmp_path / "foreign.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=100)
    summary = adopt(path, PPOCR, OPTIONS, tmp_path / "artifact.onnx")
    (tmp_path / "weights.bin").unlink()
    assert texts_of(summary.path, [stripes_of("jig", len(LETTERS) + 1)]) == ["jig"]


@pytest.mark.usefixtures("stripes")
def test_entries_of_several_characters_and_entries_that_come_twice(tmp_path: Path) -> None:
    entries = [*LETTERS, "ch", "a"]
    foreign = Foreign(entries=entries, metadata={"character": "\n".join(entries)})
    summary = adopted(tmp_path, foreign, replace(PPOCR, charset=Charset(metadata="character")))
    assert summary.metadata.symbols == (*LETTERS, "ch")
    palette = picture_of([13, 14, 2], len(entries) + 1)
    assert texts_of(summary.path, [palette]) == ["chab"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=6), st.integers(0, 2**31))
def test_the_collapse_equals_numpys_reading(rows: list[list[int]], seed: int) -> None:
    scores = np.random.default_rng(seed).uniform(0.1, 0.2, (len(rows), 5, 4)).astype(np.float32)
    np.put_along_axis(scores, np.array(rows)[..., None], 0.4, -1)
    scores /= scores.sum(-1, keepdims=True)
    wanted = read(Scores(scores, "probabilities"), PPOCR, np.arange(4))
    for opset in (11, 13, 20):
        g = GraftBuilder(foreign_model(replace(PPOCR_FILE, opset=opset)), opset)
        g.input("ids", TensorProto.INT64, ("batch", 5))
        g.input("logs", TensorProto.FLOAT, ("batch", 5))
        answer = collapse_columns(g, "ids", "logs", 5)
        g.output(answer.token_ids, "a", TensorProto.INT64, ("batch", 6))
        g.output(answer.confidences or "", "b", TensorProto.FLOAT, ("batch", 6))
        session = open_cpu_session(g.model("collapse", {}, "0").SerializeToString())
        ids, confidences = session.run(["a", "b"], {"ids": scores.argmax(-1), "logs": np.log(scores.max(-1))})
        np.testing.assert_array_equal(ids, wanted.token_ids)
        np.testing.assert_allclose(confidences, wanted.confidences, rtol=1e-5)
    for row, found in zip(rows, wanted.token_ids.tolist(), strict=True):
        merged = [token for token, _ in groupby(row) if token]
        assert found == merged + [0] * (6 - len(merged))


def test_the_likelihood_of_a_text_is_that_of_all_ways_to_write_it() -> None:
    values = np.random.default_rng(3).dirichlet(np.ones(4), (3, 4)).astype(np.float32)
    wanted = [[1], [2, 2], [3, 1, 2]]
    for scores in (Scores(values, "probabilities"), Scores(np.log(values) + 3, "logits")):
        found = log_likelihood(scores, wanted, 0, "ctc")
        for crop, classes in enumerate(wanted):
            ways = (way for way in np.ndindex(4, 4, 4, 4) if [kind for kind, _ in groupby(way) if kind] == classes)
            total = sum(float(np.prod([values[crop, column, kind] for column, kind in enumerate(way)])) for way in ways)
            assert found[crop] == pytest.approx(np.log(total), abs=1e-5)
        steps = log_likelihood(scores, wanted, 3, "steps")
        assert steps[0] == pytest.approx(np.log(values[0, 0, 1] * values[0, 1, 3]), abs=1e-5)
    # A character that is not in the charset is impossible, and so is a text that has no room.
    assert (log_likelihood(scores, [[1], [-1], [1, 2, 3, 1, 2]], 0, "ctc")[1:] == FLOOR).all()
    assert (log_likelihood(scores, [[1], [-1], [1, 2, 3, 1, 2]], 0, "steps")[1:] == FLOOR).all()


def test_words_are_those_that_the_charset_has() -> None:
    small = string.ascii_lowercase + string.digits
    assert set("".join(texts_for(small, 25, 60, None))) <= set(small)
    assert all(word.isupper() or word.isdigit() for word in texts_for(small.upper(), 25, 60, None))
    assert max(map(len, texts_for(string.ascii_lowercase, 4, 60, None))) <= 4
    with pytest.raises(ExportError, match=r"only 3 characters .* --font FILE"):
        texts_for("abcд", 25, 60, None)


def description_in(folder: Path, **values: Any) -> Description:
    return read_description(json.dumps(values), "own.json", folder, FAMILIES)


def test_a_description_in_json(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes("a\r\nb\n\u2028\n\u3000\n".encode())
    found = description_in(
        tmp_path,
        size=[32, 100],
        decoding="steps",
        end="last",
        mean=[0.4, 0.5, 0.6],
        std=0.25,
        never=[5],
        charset={"file": "words.txt", "append": " "},
        fit="pad",
        pad_value=[1, 2, 3],
        pad_side="both",
        licence="MIT",
    )
    assert found.charset.entries({}) == ("a", "b", "\u2028", "\u3000", " ")
    assert (found.size, found.special, found.mean, found.std, found.never) == (
        (32, 100),
        "last",
        (0.4, 0.5, 0.6),
        (0.25,),
        (5,),
    )
    assert (found.fit, found.pad_value, found.pad_side, found.licence) == ("pad", (1, 2, 3), "both", "MIT")
    own = description_in(tmp_path, family="ppocr", charset={"append": ""}, size=[32, 96])
    assert own == replace(FAMILIES["ppocr"], size=(32, 96), charset=Charset(metadata="character"))
    assert description_in(tmp_path, family="doctr-ctc", fit="stretch").pad_value is None
    assert lines_of("a\nb") == ["a", "b"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"colors": "rgb"}, "there is no field 'colors'; did you mean `colours`"),
        ({"colours": "yuv"}, "colours must be one of rgb, bgr, grey, not 'yuv'"),
        ({"size": 32}, "size must be a list of height and width"),
        ({"size": [2, 32]}, "size must be height and width from 8 to 4096"),
        ({"mean": "half"}, "mean must be a number, or a list of three"),
        ({"mean": [0.1, 0.2]}, "mean must be a number, or three of them"),
        ({"std": 0}, "std and divisor must not be 0"),
        ({"blank": "middle"}, "blank must be `first`, `last`, or the number of the class"),
        ({"end": 0}, "`end` is not for decoding `ctc`, which has `blank`"),
        ({"decoding": "steps"}, "`end` is missing: say which class it is|`blank` is not for decoding `steps`"),
        ({"fit": "pad"}, "fit `pad` needs a pad_value"),
        ({"pad_value": [0, 0, 0]}, "are for fit `pad`"),
        ({"pad_value": [0, 0, 256]}, "pad_value must be three whole numbers from 0 to 255"),
        ({"charset": {"file": "a", "metadata": "b"}}, 'one of "file" and "metadata"'),
        ({"charset": 5}, "charset must be the characters"),
        ({"never": "pad"}, "never must be a list of classes"),
        ({"family": "trocr"}, "family must be one of ppocr"),
        ({"decoding": None}, "decoding must be one of ctc, steps"),
    ],
)
def test_what_is_wrong_in_a_description_is_named(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    right = {"size": [32, 100], "decoding": "ctc", "blank": "first", "charset": "abc"}
    with pytest.raises(ExportError, match=said):
        description_in(tmp_path, **{**right, **values})


@pytest.mark.parametrize("missing", ["size", "decoding", "blank"])
def test_what_cannot_be_taken_for_granted_must_be_there(missing: str, tmp_path: Path) -> None:
    right = {"size": [32, 100], "decoding": "ctc", "blank": "first", "charset": "abc"}
    with pytest.raises(ExportError, match=f"{missing}.* is missing"):
        description_in(tmp_path, **{name: value for name, value in right.items() if name != missing})


def test_originals_are_run_as_they_are_described(tmp_path: Path) -> None:
    """What the artifact is compared with is made without it."""
    path = write_foreign(tmp_path / "foreign.onnx", PPOCR_FILE)
    original = open_original(path, PPOCR)
    picture = stripes_of("cab", len(LETTERS) + 1)
    scores = run(original, picture[None], PPOCR)
    table = class_table(PPOCR, scores.classes, (*LETTERS, " "))
    assert scores.best(table)[0].tolist() == [3, 1, 2] + [0] * (STEPS - 3)
    # The same by hand: blue, green, red, from -1 to 1.
    by_hand = np.asarray(picture, np.float32)[..., ::-1].transpose(2, 0, 1)[None] / 127.5 - 1
    [wanted] = original.session.run(None, {"picture": by_hand})
    np.testing.assert_allclose(scores.values, wanted, atol=1e-5)


def reader_in_the_form_of_doctr(path: Path) -> Path:
    """The bundled network as others would export it: floats of docTR's normalisation in, logits with the end last out."""
    network, _ = choose_network(BUNDLED_MODEL, None, weights_path(BUNDLED_MODEL))
    graph, builder = graph_of(network), GraphBuilder()
    graph.write(builder, network, graph.options(network, {"decode": "nar"}, "fp32"), with_logits=True)
    model = builder.model("reader", {}, "0")
    doctr = FAMILIES["doctr-steps"]
    constants = {
        "std": 255 * np.array(doctr.std, np.float32),
        "mean": 255 * np.array(doctr.mean, np.float32),
        "order": np.array([*range(1, 103), 0]),
    }
    before = [
        helper.make_node("Transpose", ["picture"], ["nhwc"], perm=[0, 2, 3, 1]),
        helper.make_node("Mul", ["nhwc", "std"], ["spread"]),
        helper.make_node("Add", ["spread", "mean"], ["bytes"]),
        helper.make_node("Round", ["bytes"], ["whole"]),
        helper.make_node("Cast", ["whole"], [INPUT_NAME], to=TensorProto.UINT8),
    ]
    nodes = [*before, *model.graph.node, helper.make_node("Gather", ["logits", "order"], ["scores"], axis=2)]
    whole = helper.make_graph(
        nodes,
        "reader",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 3, 32, 128])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 26, 103])],
        [*model.graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    onnx.save(helper.make_model(whole, opset_imports=list(model.opset_import), ir_version=model.ir_version), path)
    return path


@pytest.mark.slow
def test_a_reader_of_drawn_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = reader_in_the_form_of_doctr(tmp_path / "reader.onnx")
    stretched = {"fit": "stretch", "pad_value": None, "pad_side": None, "resample": "bicubic"}
    right = replace(FAMILIES["doctr-steps"], charset=Charset(inline=tuple(PRINTABLE + SIGNS_BESIDES)), **stretched)
    # A quarter of the crops: what the comparison with the original finds, small networks show.
    drawn = adopting.parity_crops
    monkeypatch.setattr(adopting, "parity_crops", lambda *limits: drawn(*limits)[::4])
    with monkeypatch.context() as fewer:
        fewer.setattr(check, "NORMALISATIONS", {})  # another of them is not what is wrong
        fewer.setattr("export.adopt.words.COUNT", 40)
        last, *others = reversed(PRINTABLE + SIGNS_BESIDES)
        with pytest.raises(MisreadError, match="a charset that begins one class earlier reads better"):
            adopt(path, replace(right, charset=Charset(inline=(last, *reversed(others)))), OPTIONS, tmp_path / "wrong.onnx")
    monkeypatch.setattr("export.adopt.words.COUNT", 80)
    summary = adopt(path, right, OPTIONS, tmp_path / "artifact.onnx")
    report = json.loads(open_cpu_session(summary.path).get_modelmeta().custom_metadata_map["parseq_parity"])
    assert report["words"]["right"] > 0.7
    # Less contrast may read a little better with any weights (ADR 0012), but never by so much.
    assert max(other["share"] for other in report["words"]["others"]) < MIN_SHARE
    # Drawn words have colours that tell a wrong order.
    assert next(other for other in report["words"]["others"] if other["name"] == "colours bgr")["gain"] < -MIN_GAIN
    assert read_artifact(summary.path)[1] is not None, "no known answer"
