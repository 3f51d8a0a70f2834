"""From a network to an artifact on disk: graph, metadata, parity gate, a file that appears whole."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from artifact.allowed import Allowed
from artifact.files import write_whole
from artifact.metadata import KNOWN_ANSWER_KEY, PARITY_KEY, ArtifactMetadata, Precision
from export.gate.agreement import AgreementReport
from export.gate.calibrate import observe_ranges
from export.gate.crop_sources import calibration_crops
from export.gate.crops import GateCrop
from export.gate.gate import WrittenGraph, compare, gate_crops
from export.gate.known_answer import known_answer
from export.gate.parity import GateReport, ParityError
from export.graphs.builder import OPSET, GraphBuilder, all_nodes
from export.graphs.int8 import Int8Builder, Range
from export.graphs.interface import ExportError, Graph, Reference, graph_of
from model.recognisers.interface import Network

MAX_FILE_BYTES: Final = 2**31 - 1
"""What one ONNX file can hold."""
DISTRIBUTION: Final = "parseq-service"

Ranges = Mapping[str, Range]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to bake into an artifact."""

    model_name: str
    weights_sha256: str
    """Of the weights file; see `weights_digest` for weights without a file."""
    reading: Mapping[str, Any] = field(default_factory=dict)
    """What is chosen of the recogniser's own options, such as `{"decode": "nar"}`; the rest is as its config has it."""
    with_logits: bool = False
    precision: Precision = "fp32"
    calibration: Sequence[Path] = ()
    """Folders of crops to find the scales of an int8 graph with (LMDB archives or rendered shards), in equal shares; drawn
    crops without them."""
    top: int = 0
    """How many candidates of each step the graph gives; 0: there are no such outputs."""
    with_allowed: bool = False
    """Whether the graph takes the input `allowed`."""


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was written."""

    path: Path
    size_bytes: int
    nodes: int
    metadata: ArtifactMetadata
    parity: GateReport


def export_artifact(
    network: Network,
    options: ExportOptions,
    output: Path,
    *,
    force: bool = False,
    more_crops: Sequence[GateCrop] = (),
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> ExportSummary:
    """Write the artifact of `network` to `output`, if it passes the parity gate.

    Args:
        network: With its weights, in eval mode.
        options: What to bake in.
        output: The file; it appears whole or not at all.
        force: Replace an existing file.
        more_crops: To compare besides those that are drawn.
        progress: Called during the comparison with the crops compared so far and in all.

    Raises:
        ExportError: The file exists, or cannot be written, or the options contradict each other.
        CropSourceError: There are no crops to calibrate on where they should be.
        ParityError: The graph does not read as PyTorch does. Nothing is written.
    """
    check_writable(output, force=force)
    ranges, calibration = _calibrate(network, options)
    proto = build_artifact(network, options, ranges)
    check_size(proto)
    report = run_parity_gate(
        proto.SerializeToString(), network, options, ranges, calibration, more_crops=more_crops, progress=progress
    )
    return write_artifact(proto, artifact_metadata(network, options), report, output, force=force)


def write_artifact(
    proto: onnx.ModelProto,
    described: ArtifactMetadata,
    report: GateReport,
    output: Path,
    *,
    force: bool,
) -> ExportSummary:
    """Add the report and the known answer to a graph that has passed its gate, and write it.

    Args:
        proto: The artifact, which says `described` of itself.
        described: Its metadata.
        report: Of the gate.
        output: The file; it appears whole or not at all.
        force: Replace an existing file.

    Raises:
        ExportError: The file exists, or cannot be written.
    """
    _note(proto, PARITY_KEY, json.dumps(report.to_dict(), ensure_ascii=False, sort_keys=True))
    answer = known_answer(proto.SerializeToString(), described)
    if answer is not None:
        _note(proto, KNOWN_ANSWER_KEY, answer)
    content = proto.SerializeToString()
    try:
        # Looked at again: someone may have written it since.
        write_whole(output, content, check=lambda: check_writable(output, force=force))
    except OSError as error:
        raise ExportError(f"cannot write {output}: {error.strerror}") from error
    nodes = sum(1 for _ in all_nodes(proto.graph))
    return ExportSummary(output, len(content), nodes, described, report)


def _note(proto: onnx.ModelProto, key: str, value: str) -> None:
    entry = proto.metadata_props.add()
    entry.key, entry.value = key, value


def artifact_metadata(network: Network, options: ExportOptions) -> ArtifactMetadata:
    """What the artifact says about itself."""
    config, graph = network.config, graph_of(network)
    return ArtifactMetadata(
        model_name=options.model_name,
        charset=config.charset_train,
        image_height=config.img_size[0],
        image_width=config.img_size[1],
        precision=options.precision,
        weights_sha256=options.weights_sha256,
        exporter_version=exporter_version(),
        opset=OPSET,
        has_logits=options.with_logits,
        top_count=options.top,
        has_allowed=options.with_allowed,
        architecture=config.RECOGNISER,
        **graph.described(network, graph.options(network, options.reading, options.precision)),
    )


def observed_ranges(network: Network, options: ExportOptions) -> Ranges:
    """What an int8 graph takes its scales from; nothing for other precisions.

    Raises:
        CropSourceError: There are no crops to calibrate on where they should be.
    """
    return _calibrate(network, options)[0]


def _calibrate(network: Network, options: ExportOptions) -> tuple[Ranges, str | None]:
    """See `observed_ranges`; also what the crops were, if there were any."""
    if options.precision != "int8":
        return {}, None
    graph = graph_of(network)
    written_out = graph.written_out(graph.options(network, options.reading, options.precision))
    pixels, crops = calibration_crops(options.calibration, network.config)
    return observe_ranges(lambda builder: graph.write(builder, network, written_out), pixels), crops


def build_artifact(network: Network, options: ExportOptions, ranges: Ranges | None = None) -> onnx.ModelProto:
    """Graph and metadata in memory, valid ONNX but not yet compared with PyTorch.

    Args:
        network: In eval mode.
        options: What to bake in.
        ranges: Of `observed_ranges`, which is asked if they are not given.

    Raises:
        ExportError: The network is in training mode, or the options contradict each other.
        CropSourceError: There are no crops to calibrate on where they should be.
    """
    if network.training:
        raise ExportError("the model is in training mode: call eval() first")
    graph = graph_of(network)
    reading = graph.options(network, options.reading, options.precision)
    builder = new_builder(options.precision, observed_ranges(network, options) if ranges is None else ranges)
    graph.write(builder, network, reading, **_extras(options))
    return builder.model(options.model_name, artifact_metadata(network, options).to_map(), exporter_version())


def _extras(options: ExportOptions) -> dict[str, Any]:
    """What `Graph.write` is to write besides."""
    return {"with_logits": options.with_logits, "top": options.top, "with_allowed": options.with_allowed}


def new_builder(precision: Precision, ranges: Ranges) -> GraphBuilder:
    """An empty builder; only for int8 the ranges matter."""
    if precision == "int8":
        return Int8Builder(ranges)
    return GraphBuilder(TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT)


def run_parity_gate(
    artifact: bytes,
    network: Network,
    options: ExportOptions,
    ranges: Ranges,
    calibration: str | None = None,
    *,
    more_crops: Sequence[GateCrop] = (),
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> GateReport:
    """Compare `artifact` with `network` on drawn crops and on `more_crops`; the report names the crops of the `calibration`.

    Raises:
        ParityError: They read differently; at other precisions than float32, too differently.
    """
    graph = graph_of(network)
    reading = graph.options(network, options.reading, options.precision)
    written_out = graph.written_out(reading)

    def write(precision: Precision, how: Any) -> bytes:
        builder = new_builder(precision, ranges)
        graph.write(builder, network, how, **_extras(options))
        content: bytes = builder.model(options.model_name, {}, exporter_version()).SerializeToString()
        return content

    candidate = WrittenGraph(
        artifact,
        options.precision,
        read=partial(_read, graph, graph.network_that_reads_so(network, reading)),
        read_unrounded=lambda *crops: _read(
            graph, graph.network_that_reads_so(copy.deepcopy(network).double(), reading), *crops
        ),
        unrounded=lambda: write("fp32", reading),
        written_out=None if written_out == reading else lambda: write(options.precision, written_out),
    )
    crops = gate_crops(network.config, options.precision, more_crops, restricted=options.with_allowed)
    report = compare(candidate, crops, progress)
    if isinstance(report, AgreementReport):
        report.calibration = calibration
    if report.problem:
        raise ParityError(report)
    return report


def unrounded(network: Network) -> Network:
    """A copy of the network in float64."""
    return copy.deepcopy(network).double()


def _read(graph: Graph[Any], network: Network, pixels: NDArray[np.uint8], allowed: Allowed | None) -> Reference:
    # A graph that cannot be told what is allowed may have been written without that argument.
    return graph.reference(network, pixels) if allowed is None else graph.reference(network, pixels, allowed)


def check_size(proto: onnx.ModelProto) -> None:
    """Whether it can be one file.

    Raises:
        ExportError: It cannot.
    """
    if proto.ByteSize() > MAX_FILE_BYTES:
        raise ExportError(
            f"the graph has {proto.ByteSize()} bytes, an ONNX file holds {MAX_FILE_BYTES}: the network is too large"
        )


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


def weights_digest(network: Network) -> str:
    """SHA-256 of the names and values of the weights, for a network that came from no file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def exporter_version() -> str:
    """Version of the installed distribution; `unknown` when run from a bare source tree."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"
