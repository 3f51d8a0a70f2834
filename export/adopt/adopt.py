"""From somebody else's ONNX file to an artifact: graph, metadata, words that it must read, comparison, file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto

from artifact.metadata import ArtifactError, ArtifactMetadata, Precision
from artifact.session import reason_of
from export.adopt.check import Judgement, MisreadError, judge
from export.adopt.description import Description
from export.adopt.graph import write
from export.adopt.original import Original, open_original, run
from export.adopt.scores import class_table, read
from export.gate.crops import parity_crops, word_crops
from export.gate.parity import BATCH_SIZES, CONFIDENCE_TOLERANCE, ParityError, ParityReport, batches, check_parity
from export.graphs.interface import ExportError, Ids
from export.to_onnx import ExportSummary, check_size, check_writable, exporter_version, write_artifact

PROBES: Final = 3
"""Crops that show what form the output has."""
PROBE_SEED: Final = 5
COMPARED_WITH: Final = "the original"
ROUNDED_TOLERANCE: Final = 0.02
"""Largest difference of a probability if the original computes in half precision or integers, whose kernels depend on the
nodes around them."""


@dataclass(frozen=True, slots=True)
class AdoptOptions:
    """Options besides the description."""

    model_name: str
    font: Path | None = None
    """Font to draw words with; None: Pillow's own, which has the letters of Western Europe."""
    without_words: bool = False
    """Skip the words that must be read; then nothing shows that the description is right."""


@dataclass(kw_only=True)
class AdoptReport(ParityReport):
    """What was compared, and how the drawn words were read."""

    words: Judgement | None = None
    """None: words were not read."""


@dataclass(frozen=True, slots=True)
class OutputTokens:
    """How the output of the original becomes tokens."""

    steps: int
    """Steps of the output: columns, or characters with the end."""
    table: Ids
    """The token of each class, -1 for those that are never read."""
    entries: tuple[str, ...]
    """The entries that the tokens from 1 on stand for."""

    @property
    def merged(self) -> Ids | None:
        """For each token the first token of the same character; None: no character has several tokens."""
        place = {entry: number for number, entry in enumerate(dict.fromkeys(self.entries), 1)}
        return None if len(place) == len(self.entries) else np.array([0, *(place[entry] for entry in self.entries)])


def adopt(
    path: Path,
    description: Description,
    options: AdoptOptions,
    output: Path,
    *,
    force: bool = False,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> ExportSummary:
    """Write an artifact of a file that somebody else has exported.

    Args:
        path: The ONNX file.
        description: How its input is made and what its output means.
        options: Further options.
        output: The file to write; it appears whole or not at all.
        force: Replace an existing file.
        progress: Called during the comparison with the crops compared so far and in all.

    Raises:
        ExportError: The file does not fit its description or cannot be adopted, or the output cannot be written.
        MisreadError: Words are not read under this description, or better under another. Nothing is written.
        ParityError: The artifact does not read as the original does. Nothing is written.
    """
    check_writable(output, force=force)
    original = open_original(path, description)
    reading = _reading(original, description)
    metadata = _metadata(original, description, options, reading)
    words = None if options.without_words else judge(original, description, reading.entries, metadata, options.font)
    if words is not None and words.problem:
        raise MisreadError(words)
    proto = _build(original, description, reading, metadata)
    report = _compare(proto.SerializeToString(), original, description, reading, metadata, progress)
    report.words = words
    return write_artifact(proto, metadata, report, output, force=force)


def _reading(original: Original, description: Description) -> OutputTokens:
    """Run the original once to see what comes out."""
    entries = description.charset.entries(original.properties)
    drawn = word_crops(description.size, "".join(entry for entry in entries if len(entry) == 1), 8, PROBES, PROBE_SEED)
    scores = run(original, np.stack([crop.pixels for crop in drawn]), description)
    table = class_table(description, scores.classes, entries)
    scores.check()
    if description.decoding == "steps" and scores.steps < 2:
        raise ExportError("the output has a single step, which has no room for a character and the end: is `axes` another?")
    return OutputTokens(scores.steps, table, entries)


def _metadata(original: Original, description: Description, options: AdoptOptions, reading: OutputTokens) -> ArtifactMetadata:
    entries = tuple(dict.fromkeys(reading.entries))
    columns = description.decoding == "ctc"
    try:
        return ArtifactMetadata(
            model_name=options.model_name,
            charset="".join(dict.fromkeys("".join(entries))),
            symbols=None if all(len(entry) == 1 for entry in entries) else entries,
            image_height=description.size[0],
            image_width=description.size[1],
            max_label_length=reading.steps if columns else reading.steps - 1,
            decode_mode="ctc" if columns else "nar",
            refine_iters=0,
            precision=_precision(original.proto),
            weights_sha256=original.sha256,
            exporter_version=exporter_version(),
            opset=original.opset,
            architecture=description.architecture,
            fit=description.fit,
            pad_value=description.pad_value,
            pad_side=description.pad_side,
            resample=description.resample,
            source=description.source,
            source_sha256=original.sha256,
            licence=description.licence,
            notice=description.notice,
        )
    except ArtifactError as error:
        raise ExportError(str(error)) from error


def _precision(proto: onnx.ModelProto) -> Precision:
    """The precision of most of its weights."""
    sizes: Counter[Precision] = Counter()
    kinds: dict[int, Precision] = {TensorProto.FLOAT16: "fp16", TensorProto.INT8: "int8", TensorProto.UINT8: "int8"}
    for tensor in proto.graph.initializer:
        sizes[kinds.get(tensor.data_type, "fp32")] += int(np.prod(tensor.dims, dtype=np.int64))
    return sizes.most_common(1)[0][0] if sizes else "fp32"


def _build(original: Original, description: Description, reading: OutputTokens, metadata: ArtifactMetadata) -> onnx.ModelProto:
    g = write(original, description, reading.table, reading.steps, reading.merged)
    try:
        proto = g.model(metadata.model_name, metadata.to_map(), exporter_version())
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ExportError(f"{original.path} cannot be made part of an artifact: {reason_of(error)}") from error
    check_size(proto)
    return proto


def _compare(
    artifact: bytes,
    original: Original,
    description: Description,
    reading: OutputTokens,
    metadata: ArtifactMetadata,
    progress: Callable[[int, int], object],
) -> AdoptReport:
    """Compare the artifact with the original on drawn crops.

    Raises:
        ParityError: They read differently.
    """
    crops = parity_crops(description.size, metadata.charset, metadata.max_label_length)
    pixels = np.stack([crop.pixels for crop in crops])
    scores = run(original, pixels, description)
    scores.check()
    reference = read(scores, description, reading.table)
    if (merged := reading.merged) is not None:
        reference.token_ids[:] = merged[reference.token_ids]
    total, done = sum(len(chosen) for _, chosen in batches(len(crops), BATCH_SIZES)), 0

    def count(crops_read: int) -> None:
        nonlocal done
        done += crops_read
        progress(done, total)

    try:
        tolerance = CONFIDENCE_TOLERANCE if metadata.precision == "fp32" else ROUNDED_TOLERANCE
        found = check_parity(artifact, reference, crops, compared_with=COMPARED_WITH, tolerance=tolerance, progress=count)
    except ArtifactError as error:
        raise ExportError(f"{original.path} does not load as part of an artifact: {error}") from error
    if found.problem:
        raise ParityError(found)
    return AdoptReport(**{name: getattr(found, name) for name in found.__dataclass_fields__})
