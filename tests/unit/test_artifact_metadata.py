"""The contract: two schemas, of which the older one is written wherever it can say all."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from artifact.metadata import METADATA_KEY, ArtifactError, ArtifactMetadata
from tests.toy_artifact import METADATA

PAD: dict[str, Any] = {"fit": "pad", "pad_value": (127, 127, 127), "pad_side": "both"}
BEYOND: list[dict[str, Any]] = [
    {"architecture": "crnn"},
    {"decode_mode": "ctc"},
    PAD,
    {"resample": "bilinear"},
    {"charset": "abch", "symbols": ("a", "b", "ch", "c")},
    {"top_count": 5},
    {"has_allowed": True},
    {"source": "https://weights.test/a.onnx", "source_sha256": "ab" * 32, "licence": "Apache-2.0", "notice": "Swapped."},
]
SCHEMA_1 = {
    "model_name", "charset", "image_height", "image_width", "max_label_length", "decode_mode", "refine_iters", "precision",
    "weights_sha256", "exporter_version", "opset", "has_logits", "early_exit", "schema_version",
}  # fmt: skip


def written(metadata: ArtifactMetadata) -> dict[str, Any]:
    values = json.loads(metadata.to_map()[METADATA_KEY])
    assert isinstance(values, dict)
    return values


def read(values: dict[str, Any]) -> ArtifactMetadata:
    return ArtifactMetadata.from_map({METADATA_KEY: json.dumps(values)})


def test_defaults_are_written_as_schema_1() -> None:
    assert METADATA.schema_version == 1
    assert written(METADATA).keys() == SCHEMA_1
    assert read(written(METADATA)) == METADATA


@pytest.mark.parametrize("values", BEYOND)
def test_what_schema_1_cannot_say_is_written_as_schema_2(values: dict[str, Any]) -> None:
    metadata = replace(METADATA, **values)
    found = written(metadata)
    assert found["schema_version"] == metadata.schema_version == 2
    assert found.keys() == SCHEMA_1 | values.keys()
    assert read(found) == metadata


def test_schema_1_knows_no_fields_of_schema_2() -> None:
    # As a server of that schema reads it.
    assert read({**written(METADATA), "resample": "bilinear"}) == METADATA
    with pytest.raises(ArtifactError, match="'ctc' is none of schema 1"):
        read({**written(METADATA), "decode_mode": "ctc"})


def test_fields_of_later_versions_are_left_out() -> None:
    assert read({**written(replace(METADATA, top_count=2)), "unheard_of": 1}).top_count == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"image_height": 0}, "image_height must be a positive integer, not 0"),
        ({"opset": True}, "opset must be a positive integer, not True"),
        ({"refine_iters": -1}, "refine_iters must be an integer >= 0"),
        ({"charset": "aa"}, "distinct characters"),
        ({"has_logits": 1}, "has_logits must be true or false, not 1"),
        ({"decode_mode": "beam"}, "decode_mode must be one of"),
        ({"precision": "int4"}, "precision must be one of"),
        ({"architecture": ""}, "architecture must be a name"),
        ({"fit": "crop"}, "fit must be one of"),
        ({"resample": "nearest"}, "resample must be one of"),
        ({**PAD, "pad_value": None}, "pad_value must be three integers from 0 to 255"),
        ({**PAD, "pad_value": (0, 0, 256)}, "pad_value must be three integers"),
        ({**PAD, "pad_value": (0, 0)}, "pad_value must be three integers"),
        ({**PAD, "pad_value": (127.5, 127.5, 127.5)}, "pad_value must be three integers"),
        ({**PAD, "pad_side": "start"}, "pad_side must be one of"),
        ({"pad_side": "end"}, "are for fit 'pad'"),
        ({"charset": "ab", "symbols": ("a", "b", "")}, "none of them empty"),
        ({"charset": "ab", "symbols": "ab"}, "must be a list of strings"),
        ({"charset": "ab", "symbols": ("a", "b", "a")}, "must be distinct"),
        ({"charset": "ab", "symbols": ("a", "bc")}, "the characters that occur in them"),
        ({"charset": "ab", "symbols": ("a",)}, "the characters that occur in them"),
        ({"charset": "ab", "top_count": 4}, "top_count must be at most 3"),
        ({"top_count": -1}, "top_count must be an integer >= 0"),
        ({"has_allowed": 1}, "has_allowed must be true or false"),
        ({"licence": ""}, "licence must be a text, or left out"),
        ({"source_sha256": "AB" * 32}, "source_sha256 must be 64 hexadecimal digits"),
    ],
)
def test_what_makes_no_sense_is_told(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        replace(METADATA, **values)
    with pytest.raises(ArtifactError, match=said):
        read({**written(METADATA), "schema_version": 2, **values})


def test_what_a_graph_offers() -> None:
    metadata = replace(METADATA, charset="abc", symbols=("a", "bc"), has_logits=True, top_count=2, has_allowed=True)
    assert list(metadata.vocabulary) == ["a", "bc"]
    assert metadata.inputs() == {"images": ("tensor(uint8)", (None, 32, 128, 3))}
    assert metadata.outputs() == {
        "token_ids": ("tensor(int64)", (None, 26)),
        "confidences": ("tensor(float)", (None, 26)),
        "logits": ("tensor(float)", (None, 26, 3)),
        "top_ids": ("tensor(int64)", (None, 26, 2)),
        "top_confidences": ("tensor(float)", (None, 26, 2)),
    }
    assert "".join(METADATA.vocabulary) == METADATA.charset
    assert METADATA.outputs().keys() == {"token_ids", "confidences"}


def test_every_field_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    assert [field.name for field in fields(ArtifactMetadata) if f"`{field.name}`" not in page] == []
