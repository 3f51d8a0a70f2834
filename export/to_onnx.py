"""From a network to an artifact on disk: graph, metadata, parity gate, atomic write."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import onnx
from onnx import TensorProto

from artifact.metadata import KNOWN_ANSWER_KEY, PARITY_KEY, ArtifactMetadata, DecodeMode, Precision
from export.gate.agreement import AgreementReport, check_agreement, loop_difference, planned_readings
from export.gate.calibrate import observe_ranges
from export.gate.crop_sources import calibration_crops
from export.gate.crops import Crop, parity_crops, word_crops
from export.gate.known_answer import known_answer
from export.gate.parity import BATCH_SIZES, GateReport, ParityError, ParityReport, batches, check_parity
from export.graphs.builder import OPSET, GraphBuilder, all_nodes
from export.graphs.graph import write_graph
from export.graphs.int8 import Int8Builder, Range
from model.recognisers.parseq.network import PARSeq

MAX_FILE_BYTES = 2**31 - 1
"""What one ONNX file can hold."""
DISTRIBUTION = "parseq-service"
NO_STEPS = "--early-exit is for --decode ar: reading at once has no steps to leave out"
AGREEMENT_CROPS = 256
"""Drawn crops that a graph of another precision reads besides those of the parity gate."""
AGREEMENT_SEED = 20220703


Ranges = Mapping[str, Range]


class ExportError(ValueError):
    """An export cannot be done as asked; the message names the cause and the cure."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to bake into an artifact."""

    model_name: str
    decode: DecodeMode
    refine_iters: int
    weights_sha256: str
    """Of the weights file; see `weights_digest` for weights without a file."""
    with_logits: bool = False
    precision: Precision = "fp32"
    early_exit: bool | None = None
    """Read in turn in a loop that ends with the texts; None: where that is quicker, which is `int8`, the precision for CPUs."""
    calibration: Path | None = None
    """A folder of crops to find the scales of an int8 graph with (LMDB archives or rendered shards); drawn crops without it."""

    @property
    def loops(self) -> bool:
        """Whether the graph gets a loop."""
        return self.decode == "ar" and (self.precision == "int8" if self.early_exit is None else self.early_exit)


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was written."""

    path: Path
    size_bytes: int
    nodes: int
    metadata: ArtifactMetadata
    parity: GateReport


def export_artifact(
    model: PARSeq,
    options: ExportOptions,
    output: Path,
    *,
    force: bool = False,
    more_crops: Sequence[Crop] = (),
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> ExportSummary:
    """Write the artifact of `model` to `output`, if it passes the parity gate.

    Args:
        model: the network with its weights, in eval mode.
        options: what to bake in.
        output: the file; it appears whole or not at all.
        force: replace an existing file.
        more_crops: to compare besides those that are drawn.
        progress: called during the comparison with the crops compared so far and in all.

    Raises:
        ExportError: the file exists, or cannot be written.
        CropSourceError: there are no crops to calibrate on where they should be.
        ParityError: the graph does not read as PyTorch does. Nothing is written.
    """
    check_writable(output, force=force)
    ranges, calibration = _calibrate(model, options)
    proto = build_artifact(model, options, ranges)
    if proto.ByteSize() > MAX_FILE_BYTES:
        raise ExportError(
            f"the graph has {proto.ByteSize()} bytes, an ONNX file holds {MAX_FILE_BYTES}: the network is too large"
        )
    report = run_parity_gate(
        proto.SerializeToString(), model, options, ranges, calibration, more_crops=more_crops, progress=progress
    )
    described = artifact_metadata(model, options)
    _note(proto, PARITY_KEY, json.dumps(report.to_dict(), ensure_ascii=False, sort_keys=True))
    answer = known_answer(proto.SerializeToString(), described)
    if answer is not None:
        _note(proto, KNOWN_ANSWER_KEY, answer)
    content = proto.SerializeToString()
    write_atomically(content, output, force=force)
    nodes = sum(1 for _ in all_nodes(proto.graph))
    return ExportSummary(output, len(content), nodes, described, report)


def _note(proto: onnx.ModelProto, key: str, value: str) -> None:
    entry = proto.metadata_props.add()
    entry.key, entry.value = key, value


def artifact_metadata(model: PARSeq, options: ExportOptions) -> ArtifactMetadata:
    """What the artifact says about itself."""
    config = model.config
    return ArtifactMetadata(
        model_name=options.model_name,
        charset=config.charset_train,
        image_height=config.img_size[0],
        image_width=config.img_size[1],
        max_label_length=config.max_label_length,
        decode_mode=options.decode,
        refine_iters=options.refine_iters,
        precision=options.precision,
        weights_sha256=options.weights_sha256,
        exporter_version=exporter_version(),
        opset=OPSET,
        has_logits=options.with_logits,
        early_exit=options.loops,
    )


def observed_ranges(model: PARSeq, options: ExportOptions) -> Ranges:
    """What an int8 graph takes its scales from; nothing for other precisions.

    Raises:
        CropSourceError: there are no crops to calibrate on where they should be.
    """
    return _calibrate(model, options)[0]


def _calibrate(model: PARSeq, options: ExportOptions) -> tuple[Ranges, str | None]:
    """See `observed_ranges`; also what the crops were, if there were any."""
    if options.precision != "int8":
        return {}, None
    pixels, crops = calibration_crops(options.calibration, model.config)
    return observe_ranges(model, pixels, options.decode, options.refine_iters), crops


def build_artifact(model: PARSeq, options: ExportOptions, ranges: Ranges | None = None) -> onnx.ModelProto:
    """Graph and metadata in memory, valid ONNX but not yet compared with PyTorch.

    Args:
        model: in eval mode.
        options: what to bake in.
        ranges: of `observed_ranges`, which is asked if they are not given.

    Raises:
        ExportError: the model is in training mode.
        CropSourceError: there are no crops to calibrate on where they should be.
    """
    if model.training:
        raise ExportError("the model is in training mode: call eval() first")
    if options.early_exit and options.decode == "nar":
        raise ExportError(NO_STEPS)
    builder = _builder(options, observed_ranges(model, options) if ranges is None else ranges)
    graph = write_graph(
        model,
        options.decode,
        options.refine_iters,
        early_exit=options.loops,
        with_logits=options.with_logits,
        builder=builder,
    )
    props = artifact_metadata(model, options).to_map()
    return graph.model(options.model_name, props, exporter_version())


def _builder(options: ExportOptions, ranges: Ranges) -> GraphBuilder:
    if options.precision == "int8":
        return Int8Builder(ranges)
    return GraphBuilder(TensorProto.FLOAT16 if options.precision == "fp16" else TensorProto.FLOAT)


def run_parity_gate(
    artifact: bytes,
    model: PARSeq,
    options: ExportOptions,
    ranges: Ranges | None = None,
    calibration: str | None = None,
    *,
    more_crops: Sequence[Crop] = (),
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> GateReport:
    """Compare `artifact` with `model` on drawn crops and on `more_crops`; the report names the crops of the `calibration`.

    Raises:
        ParityError: they read differently; at other precisions than float32, too differently.
    """
    config = model.config
    crops = [*parity_crops(config.img_size, config.charset_train, config.max_label_length), *more_crops]
    if options.precision != "fp32":
        limits = (config.img_size, config.charset_train, config.max_label_length)
        crops += word_crops(*limits, AGREEMENT_CROPS, AGREEMENT_SEED)
    plan = list(batches(len(crops), BATCH_SIZES))
    if options.precision != "fp32":
        plan = [*plan, *planned_readings(len(crops)) * (2 if options.loops else 1)]
    total = sum(len(chosen) for _, chosen in plan)
    done = 0

    def count(crops_read: int) -> None:
        nonlocal done
        done += crops_read
        progress(done, total)

    report = _compare(artifact, model, crops, options, ranges, count)
    if isinstance(report, AgreementReport):
        report.calibration = calibration
    if report.problem:
        raise ParityError(report)
    return report


def _compare(
    artifact: bytes,
    model: PARSeq,
    crops: Sequence[Crop],
    options: ExportOptions,
    ranges: Ranges | None,
    progress: Callable[[int], object],
) -> ParityReport | AgreementReport:
    modes = (options.decode, options.refine_iters)
    if options.precision == "fp32":
        return check_parity(artifact, model, crops, *modes, progress=progress)
    report = check_agreement(artifact, model, crops, *modes, options.precision, progress=progress)
    unrounded = build_artifact(model, replace(options, precision="fp32", calibration=None, early_exit=options.loops or None))
    if problem := check_parity(unrounded.SerializeToString(), model, crops, *modes, progress=progress).problem:
        report.structure_problem = f"without any rounding {problem}"
    elif options.loops:
        written_out = build_artifact(model, replace(options, early_exit=False), ranges).SerializeToString()
        if failure := loop_difference(artifact, written_out, crops, progress=progress):
            report.structure_problem = f"the early exit reads otherwise than every step written out: {failure}"
    return report


def check_writable(output: Path, *, force: bool) -> None:
    """Fail early, before minutes of work.

    Raises:
        ExportError: `output` exists (and not `force`), is a folder, or has no folder to be in.
    """
    if output.is_dir():
        raise ExportError(f"{output} is a folder: give the name of a file in it, such as {output / 'parseq.onnx'}")
    if not output.parent.is_dir():
        raise ExportError(f"the folder {output.parent} does not exist: create it, or choose another --output")
    if output.exists() and not force:
        raise ExportError(f"{output} exists: add --force to replace it, or choose another --output")
    if not os.access(output.parent, os.W_OK):
        raise ExportError(f"the folder {output.parent} cannot be written to: choose another --output")


def write_atomically(content: bytes, output: Path, *, force: bool) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        ExportError: `output` exists (and not `force`), or the disk refuses.
    """
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Again: someone may have written it since.
        check_writable(output, force=force)
        partial.replace(output)
    except OSError as error:
        raise ExportError(f"cannot write {output}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def weights_digest(model: PARSeq) -> str:
    """SHA-256 of the names and values of the weights, for a network that came from no file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def exporter_version() -> str:
    """Version of the installed distribution; `unknown` when run from a bare source tree."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def read_props(proto: onnx.ModelProto) -> dict[str, str]:
    """The metadata entries of a model."""
    return {entry.key: entry.value for entry in proto.metadata_props}
