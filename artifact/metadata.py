"""The artifact contract: what the metadata of a `.onnx` file must say for a server to run it.

An artifact is one ONNX file. Its graph takes raw pixels and gives token ids and confidences; its metadata says everything
else a server must know, so that nothing about a model is configured twice.

Graph interface (schema 1):

* input `images`: uint8 `[batch, height, width, 3]`, RGB, already resized; normalisation is inside the graph;
* output `token_ids`: int64 `[batch, max_label_length + 1]`, the argmax token of each step;
* output `confidences`: float32 `[batch, max_label_length + 1]`, the softmax probability of that token;
* output `logits` (only when exported with logits): float32 `[batch, max_label_length + 1, len(charset) + 1]`.

Token id 0 ends the text; id `i` >= 1 is `charset[i - 1]`. Steps after the first 0 carry no meaning.

This module imports neither torch nor onnx: the service reads metadata through ONNX Runtime.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

SCHEMA_VERSION = 1
METADATA_KEY = "parseq_artifact"
"""Key of the ONNX `metadata_props` entry that holds the metadata as one JSON object."""
PARITY_KEY = "parseq_parity"
"""Key of the entry that holds the report of the comparison with PyTorch as one JSON object; a server need not read it."""

KNOWN_ANSWER_KEY = "parseq_known_answer"
"""Key of the entry that holds a crop and its text as one JSON object: `png`, a PNG file of the model's size in base64, and
`text`, what the exporter saw the graph read on it. A server checks itself with it; not every artifact has one."""

INPUT_NAME = "images"
TOKEN_IDS_NAME = "token_ids"  # nosec B105  # tokens of a text
CONFIDENCES_NAME = "confidences"
LOGITS_NAME = "logits"
EOS_ID = 0

DecodeMode = Literal["ar", "nar"]
Precision = Literal["fp32", "fp16", "int8"]


class ArtifactError(ValueError):
    """An ONNX file is not an artifact that this version can run; the message names the cause and the cure."""


@dataclass(frozen=True, slots=True)
class ArtifactMetadata:
    """Everything a server must know about a model besides its graph."""

    model_name: str
    charset: str
    image_height: int
    """Pixels."""
    image_width: int
    """Pixels."""
    max_label_length: int
    """Longest text, in characters, that the graph can give."""
    decode_mode: DecodeMode
    refine_iters: int
    precision: Precision
    weights_sha256: str
    """Of the source weights file; of the tensors themselves when there was no file."""
    exporter_version: str
    opset: int
    has_logits: bool = False
    early_exit: bool = False
    """Whether a run ends with the longest text of its batch."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            ArtifactError: a value is out of range or of the wrong type.
        """
        for name in ("image_height", "image_width", "max_label_length", "opset"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ArtifactError(f"artifact metadata: {name} must be a positive integer, not {value!r}")
        if type(self.refine_iters) is not int or self.refine_iters < 0:
            raise ArtifactError(f"artifact metadata: refine_iters must be an integer >= 0, not {self.refine_iters!r}")
        if not isinstance(self.charset, str) or not self.charset or len(set(self.charset)) != len(self.charset):
            raise ArtifactError("artifact metadata: charset must be a string of distinct characters, not empty")
        for name in ("has_logits", "early_exit"):
            if type(getattr(self, name)) is not bool:
                raise ArtifactError(f"artifact metadata: {name} must be true or false, not {getattr(self, name)!r}")
        for name, allowed in (("decode_mode", get_args(DecodeMode)), ("precision", get_args(Precision))):
            if getattr(self, name) not in allowed:
                raise ArtifactError(f"artifact metadata: {name} must be one of {allowed}, not {getattr(self, name)!r}")

    def to_map(self) -> dict[str, str]:
        """The metadata as ONNX `metadata_props` entries: one key, one JSON object."""
        return {METADATA_KEY: json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)}

    @classmethod
    def from_map(cls, metadata_props: Mapping[str, str]) -> ArtifactMetadata:
        """Parse the `metadata_props` of an ONNX file.

        Raises:
            ArtifactError: the entry is missing or malformed, or its schema is one this version does not know.
        """
        if METADATA_KEY not in metadata_props:
            raise ArtifactError(
                "the file carries no artifact metadata: it is an ONNX file, but not one written by `parseq-export`; "
                "export the model again with `parseq-export`"
            )
        values = _parse_object(metadata_props[METADATA_KEY])
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ArtifactError(
                f"the artifact has schema version {version!r}, this server knows {SCHEMA_VERSION}: "
                "export the model again with the `parseq-export` of the server's version"
            )
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{name: value for name, value in values.items() if name in known})
        except TypeError as error:
            raise ArtifactError(f"artifact metadata is incomplete ({error}): export the model again") from error


def _parse_object(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ArtifactError("artifact metadata is not valid JSON: export the model again") from error
    if not isinstance(values, dict):
        raise ArtifactError("artifact metadata is not a JSON object: export the model again")
    return values
