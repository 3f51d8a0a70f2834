"""`parseq-export inspect`: what an artifact says about itself, what is in it, and how fast it is here."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from artifact.metadata import INPUT_NAME, PARITY_KEY, ArtifactError, ArtifactMetadata, parse_object
from artifact.session import open_cpu_session
from export.gate.crops import SEED, word_crops
from export.graphs.builder import all_nodes

BATCH_SIZES: Final = (1, 8, 32)
MIN_RUNS: Final = 5
MIN_SECONDS: Final = 0.5
"""Per batch size, of which the median is taken."""
MAX_CHARSET: Final = 60
"""Longer charsets are cut in print; JSON has them whole."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One batch size."""

    batch: int
    ms: float
    """Median of a run."""
    crops_per_s: float


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that is printed."""

    file: str
    size_bytes: int
    metadata: ArtifactMetadata
    parity: dict[str, Any] | None
    nodes: dict[str, int]
    """How many of each operator, the most frequent first."""
    provider: str
    timings: list[Timing]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "metadata": self.metadata.to_dict()}


def inspect_artifact(path: Path, *, timing: bool = True) -> Inspection:
    """Read an artifact, and run it on drawn words unless `timing` is false.

    Raises:
        ArtifactError: The file cannot be read, or is not an artifact that this version knows.
    """
    proto = _read(path)
    props = {entry.key: entry.value for entry in proto.metadata_props}
    metadata = ArtifactMetadata.from_map(props)
    counts = Counter(node.op_type for node in all_nodes(proto.graph))
    return Inspection(
        file=str(path),
        size_bytes=path.stat().st_size,
        metadata=metadata,
        parity=parse_object(props[PARITY_KEY], "parity report") if PARITY_KEY in props else None,
        nodes=dict(counts.most_common()),
        provider="CPUExecutionProvider",
        timings=_time(path, metadata) if timing else [],
    )


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, format="protobuf")  # or the file's name would tell what is in it
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    except (DecodeError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged or is no ONNX file: export the model again") from error


def _time(path: Path, metadata: ArtifactMetadata) -> list[Timing]:
    session = open_cpu_session(path)
    # Texts as long as words have them: with an early exit noise would be read in no time.
    size = (metadata.image_height, metadata.image_width)
    drawn = word_crops(size, metadata.charset, metadata.max_label_length, max(BATCH_SIZES), SEED)
    pixels = np.stack([crop.pixels for crop in drawn])
    timings = []
    for batch in BATCH_SIZES:
        feed = {INPUT_NAME: pixels[:batch]}
        session.run(None, feed)
        runs: list[float] = []
        while len(runs) < MIN_RUNS or sum(runs) < MIN_SECONDS:
            started = time.perf_counter()
            session.run(None, feed)
            runs.append(time.perf_counter() - started)
        seconds = statistics.median(runs)
        timings.append(Timing(batch, round(seconds * 1e3, 3), round(batch / seconds, 1)))
    return timings


def describe(found: Inspection) -> str:
    """The inspection as text."""
    m = found.metadata
    charset = m.charset if len(m.charset) <= MAX_CHARSET else f"{m.charset[:MAX_CHARSET]}..."
    nodes = ", ".join(f"{op} {count}" for op, count in found.nodes.items())
    lines = [
        f"file       {found.file}, {found.size_bytes / 1e6:.1f} MB",
        f"model      {m.model_name}, {m.precision}, {m.decode_mode} with {m.refine_iters} refinements"
        + (", early exit" if m.early_exit else "")
        + (", gives logits" if m.has_logits else "")
        + (f", gives {m.top_count} candidates" if m.top_count else "")
        + (", can be told which characters are allowed" if m.has_allowed else ""),
        f"input      {m.image_height}x{m.image_width} pixels, {m.fit}, {m.resample}",
        f"charset    {len(m.charset)} characters, texts up to {m.max_label_length}: {charset}",
        f"weights    sha256 {m.weights_sha256}",
        *(f"{name:<10} {value}" for name in ("source", "licence", "notice") if (value := getattr(m, name))),
        f"written by parseq-export {m.exporter_version}, opset {m.opset}, artifact schema {m.schema_version}",
        f"nodes      {sum(found.nodes.values())}: {nodes}",
        f"parity     {_parity(found.parity)}",
    ]
    lines += [f"batch {t.batch:<4} {t.ms:.2f} ms, {t.crops_per_s:.0f} crops/s ({found.provider})" for t in found.timings]
    return "\n".join(lines)


def _parity(report: dict[str, Any] | None) -> str:
    if report is None:
        return "no report: the file was not written by parseq-export"
    runtime = f"torch {report.get('torch_version')}, onnxruntime {report.get('onnxruntime_version')}"
    words = report.get("words")
    if words:
        runtime += f"; {words.get('right', 0):.1%} of {words.get('count')} drawn words read rightly"
    read = f"{report.get('comparisons')} readings of {report.get('crops')} crops"
    if "agreement" not in report:
        largest = report.get("max_confidence_difference", float("nan"))
        return f"{read}: texts equal, confidences within {largest:.1e}, {report.get('near_ties')} near ties ({runtime})"
    mean = report.get("mean_confidence_difference", float("nan"))
    calibrated = f", scales from {report['calibration']}" if report.get("calibration") else ""
    return (
        f"{read}: {report['agreement']:.2%} of the texts equal (at least {report.get('floor'):.2%}), {report.get('near_ties')} "
        f"near ties apart, confidences within {mean:.1e} in the mean{calibrated} ({runtime})"
    )
