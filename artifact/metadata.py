"""The artifact contract: what the metadata of a `.onnx` file must say for a server to run it.

An artifact is one ONNX file. Its graph takes raw pixels and gives token ids and confidences; its metadata says everything
else a server must know, so that nothing about a model is configured twice.

Graph interface:

* input `images`: uint8 `[batch, height, width, 3]`, RGB, already resized; normalisation is inside the graph;
* output `token_ids`: int64 `[batch, max_label_length + 1]`, the token of each step;
* output `confidences`: float32 `[batch, max_label_length + 1]`, the probability of that token;
* output `logits` (only with `has_logits`): float32 `[batch, max_label_length + 1, len(vocabulary) + 1]`.

Token id 0 ends the text; id `i` >= 1 is `vocabulary[i - 1]`. Steps after the first 0 carry no meaning.

Schema 2 says what schema 1 cannot; its fields are those below `schema 2`. It may also declare

* outputs `top_ids` (int64) and `top_confidences` (float32), `[batch, max_label_length + 1, top_count]`: the candidates of each
  step, best first; the first one is the token;
* input `allowed`: bool `[batch, len(vocabulary)]`, or `[1, len(vocabulary)]` for all crops alike: which entries may be read;
  the end of the text always may. A graph has it with an initialiser of all true, so that it need not be given. It holds in
  every decision inside the graph, and probabilities are those among what may be read.

A file is written as schema 1 whenever all fields of schema 2 have their defaults, so that older servers can run it.

This module imports neither torch nor onnx: the service reads metadata through ONNX Runtime.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import dropwhile
from typing import Any, Final, Literal, get_args

SCHEMA_VERSIONS: Final = (1, 2)
METADATA_KEY: Final = "parseq_artifact"
"""Key of the ONNX `metadata_props` entry that holds the metadata as one JSON object."""
PARITY_KEY: Final = "parseq_parity"
"""Key of the entry that holds the report of the comparison with PyTorch as one JSON object; a server need not read it."""

KNOWN_ANSWER_KEY: Final = "parseq_known_answer"
"""Key of the entry that holds a crop and its text as one JSON object: `png`, a PNG file of the model's size in base64, and
`text`, what the exporter saw the graph read on it. A server checks itself with it; not every artifact has one."""

INPUT_NAME: Final = "images"
TOKEN_IDS_NAME: Final = "token_ids"
CONFIDENCES_NAME: Final = "confidences"
LOGITS_NAME: Final = "logits"
TOP_IDS_NAME: Final = "top_ids"
TOP_CONFIDENCES_NAME: Final = "top_confidences"
ALLOWED_NAME: Final = "allowed"
EOS_ID: Final = 0

DecodeMode = Literal["ar", "nar", "ctc"]
Precision = Literal["fp32", "fp16", "int8"]
Fit = Literal["stretch", "pad"]
PadSide = Literal["end", "both"]
Resample = Literal["bicubic", "bilinear"]

Shape = tuple[int | None, ...]
"""Sizes of a graph's input or output; `None` for the batch axis, which must be dynamic."""


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
    """SHA-256 of the source weights file; of the tensors themselves when there was no file."""
    exporter_version: str
    opset: int
    has_logits: bool = False
    early_exit: bool = False
    """Whether a run ends with the longest text of its batch."""

    # Schema 2.
    architecture: str = "parseq"
    """Which recogniser the network is; only shown."""
    fit: Fit = "stretch"
    """How a picture comes to the model's size: `stretch` it, or keep its aspect ratio and `pad` what remains."""
    pad_value: tuple[int, int, int] | None = None
    """Colour of the padding, RGB, 0 to 255; only with `pad`."""
    pad_side: PadSide | None = None
    """Where the padding is, `end`: right and below; `both`: half on each side. Only with `pad`."""
    resample: Resample = "bicubic"
    symbols: tuple[str, ...] | None = None
    """What the token ids from 1 on stand for, where entries have several code points; `charset` has all their characters."""
    top_count: int = 0
    """How many candidates of each step the outputs `top_ids` and `top_confidences` give; 0: there are no such outputs."""
    has_allowed: bool = False
    """Whether the graph takes the input `allowed`."""
    source: str | None = None
    """Where weights that somebody else has made come from, such as a URL."""
    source_sha256: str | None = None
    """SHA-256 of the file as its makers publish it."""
    licence: str | None = None
    """Licence of those weights, as an SPDX expression where there is one."""
    notice: str | None = None
    """The notice that their licence asks for."""

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            ArtifactError: A value is out of range or of the wrong type, or two of them contradict each other.
        """
        for name in ("image_height", "image_width", "max_label_length", "opset"):
            if not _is_count(getattr(self, name), 1):
                raise _wrong(name, "a positive integer", getattr(self, name))
        for name in ("refine_iters", "top_count"):
            if not _is_count(getattr(self, name), 0):
                raise _wrong(name, "an integer >= 0", getattr(self, name))
        if not isinstance(self.charset, str) or not self.charset or len(set(self.charset)) != len(self.charset):
            raise ArtifactError("artifact metadata: charset must be a string of distinct characters, not empty")
        for name in ("has_logits", "early_exit", "has_allowed"):
            if type(getattr(self, name)) is not bool:
                raise _wrong(name, "true or false", getattr(self, name))
        for name, kind in CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise _wrong(name, f"one of {get_args(kind)}", getattr(self, name))
        self._check_schema_2()

    def _check_schema_2(self) -> None:
        if not isinstance(self.architecture, str) or not self.architecture:
            raise _wrong("architecture", "a name", self.architecture)
        if self.fit == "stretch" and (self.pad_value, self.pad_side) != (None, None):
            raise ArtifactError("artifact metadata: pad_value and pad_side are for fit 'pad', not for 'stretch'")
        if self.fit == "pad":
            pixel = self.pad_value
            if not isinstance(pixel, tuple) or len(pixel) != 3 or not all(_is_count(v, 0) and v <= 255 for v in pixel):
                raise _wrong("pad_value", "three integers from 0 to 255, for red, green and blue", pixel)
            if self.pad_side not in get_args(PadSide):
                raise _wrong("pad_side", f"one of {get_args(PadSide)}", self.pad_side)
        if self.symbols is not None:
            entries = self.symbols
            if not isinstance(entries, tuple) or not all(isinstance(entry, str) and entry for entry in entries):
                raise ArtifactError("artifact metadata: symbols must be a list of strings, none of them empty")
            if len(set(entries)) != len(entries) or set("".join(entries)) != set(self.charset):
                raise ArtifactError(
                    "artifact metadata: symbols must be distinct, and charset must have "
                    "the characters that occur in them, no others"
                )
        if self.top_count > len(self.vocabulary) + 1:
            raise _wrong("top_count", f"at most {len(self.vocabulary) + 1}, the number of tokens", self.top_count)
        for name in ("source", "source_sha256", "licence", "notice"):
            if not isinstance(getattr(self, name), str | None) or getattr(self, name) == "":
                raise _wrong(name, "a text, or left out", getattr(self, name))
        if self.source_sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.source_sha256):
            raise _wrong("source_sha256", "64 hexadecimal digits in lower case", self.source_sha256)

    @property
    def schema_version(self) -> int:
        """The oldest schema that can hold this metadata."""
        return 2 if self._beyond_schema_1() else 1

    @property
    def vocabulary(self) -> Sequence[str]:
        """What the token ids from 1 on stand for: id `i` is `vocabulary[i - 1]`."""
        return self.charset if self.symbols is None else self.symbols

    def inputs(self) -> dict[str, tuple[str, Shape]]:
        """Type and shape, as ONNX Runtime tells them, of every input that a graph needs."""
        return {INPUT_NAME: ("tensor(uint8)", (None, self.image_height, self.image_width, 3))}

    def optional_inputs(self) -> dict[str, tuple[str, Shape]]:
        """Type and shape of every input that a graph has but does not need."""
        return {ALLOWED_NAME: ("tensor(bool)", (None, len(self.vocabulary)))} if self.has_allowed else {}

    def outputs(self) -> dict[str, tuple[str, Shape]]:
        """Type and shape of every output that the graph has."""
        steps = self.max_label_length + 1
        found: dict[str, tuple[str, Shape]] = {
            TOKEN_IDS_NAME: ("tensor(int64)", (None, steps)),
            CONFIDENCES_NAME: ("tensor(float)", (None, steps)),
        }
        if self.has_logits:
            found[LOGITS_NAME] = ("tensor(float)", (None, steps, len(self.vocabulary) + 1))
        if self.top_count:
            found[TOP_IDS_NAME] = ("tensor(int64)", (None, steps, self.top_count))
            found[TOP_CONFIDENCES_NAME] = ("tensor(float)", (None, steps, self.top_count))
        return found

    def to_dict(self) -> dict[str, Any]:
        """The fields as they are written: all of schema 1, and those of schema 2 that differ from their defaults."""
        beyond = self._beyond_schema_1()
        values = {name: value for name, value in asdict(self).items() if name not in SCHEMA_2_DEFAULTS}
        return values | beyond | {"schema_version": 2 if beyond else 1}

    def to_map(self) -> dict[str, str]:
        """The metadata as ONNX `metadata_props` entries: one key, one JSON object."""
        return {METADATA_KEY: json.dumps(self.to_dict(), ensure_ascii=False, sort_keys=True)}

    def _beyond_schema_1(self) -> dict[str, Any]:
        values = asdict(self)
        beyond = {name: values[name] for name, default in SCHEMA_2_DEFAULTS.items() if values[name] != default}
        return beyond | ({"decode_mode": "ctc"} if self.decode_mode == "ctc" else {})

    @classmethod
    def from_map(cls, metadata_props: Mapping[str, str]) -> ArtifactMetadata:
        """Parse the `metadata_props` of an ONNX file.

        Raises:
            ArtifactError: The entry is missing or malformed, or its schema is one this version does not know.
        """
        if METADATA_KEY not in metadata_props:
            raise ArtifactError(
                "the file carries no artifact metadata: it is an ONNX file, but not one written by `parseq-export`; "
                "export the model again with `parseq-export`"
            )
        values = parse_object(metadata_props[METADATA_KEY])
        version = values.pop("schema_version", None)
        if version not in SCHEMA_VERSIONS:
            raise ArtifactError(
                f"the artifact has schema version {version!r:.200}, this server knows "
                f"{' and '.join(map(str, SCHEMA_VERSIONS))}: "
                "export the model again with the `parseq-export` of the server's version"
            )
        known = {field.name for field in fields(cls)} - (SCHEMA_2_DEFAULTS.keys() if version == 1 else set())
        # JSON has no tuples.
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name in known}
        try:
            found = cls(**values)
        except TypeError as error:
            raise ArtifactError(f"artifact metadata is incomplete ({error}): export the model again") from error
        if found.schema_version > version:
            raise ArtifactError(f"artifact metadata: decode_mode {found.decode_mode!r:.200} is none of schema {version}")
        return found


CHOICES: Final = {"decode_mode": DecodeMode, "precision": Precision, "fit": Fit, "resample": Resample}
SCHEMA_2_DEFAULTS: Final = {
    field.name: field.default for field in dropwhile(lambda field: field.name != "architecture", fields(ArtifactMetadata))
}
"""The fields that schema 1 does not have; all of them have defaults."""


def _is_count(value: object, smallest: int) -> bool:
    return type(value) is int and value >= smallest


def _wrong(name: str, wanted: str, found: object) -> ArtifactError:
    return ArtifactError(f"artifact metadata: {name} must be {wanted}, not {found!r:.200}")


def parse_object(text: str, what: str = "metadata") -> dict[str, Any]:
    """The JSON object that an artifact carries.

    Raises:
        ArtifactError: It is none.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"artifact {what} is not valid JSON: export the model again") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"artifact {what} is not a JSON object: export the model again")
    return values
