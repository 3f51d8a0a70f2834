"""Somebody else's ONNX file: what is in it, and what it computes under a description.

Its input is made in plain NumPy here. None of this goes into the artifact, which is compared with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import inliner, version_converter

from artifact.download import file_sha256
from artifact.metadata import METADATA_KEY, ArtifactError
from artifact.session import open_cpu_session, reason_of
from export.adopt.description import Description
from export.adopt.scores import Scores
from export.graphs.interface import ExportError, Floats

MIN_OPSET: Final = 11
"""The oldest opset with all operators that the artifact adds; older files are converted to it."""
GREY: Final = (0.299, 0.587, 0.114)
"""Weights of red, green and blue by ITU-R BT.601, as Pillow and OpenCV have them."""
INPUT_TYPES: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
OUTPUT_TYPES: Final = ("tensor(float)", "tensor(float16)", "tensor(double)")
BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class Original:
    """A file with one picture as its input."""

    path: Path
    proto: onnx.ModelProto
    """The file as it is, but with local functions inlined and an opset of at least `MIN_OPSET`."""
    session: onnxruntime.InferenceSession
    """A session of the unchanged file."""
    sha256: str
    input_name: str
    output_name: str
    input_type: np.dtype[Any]
    channels: int
    """Channels of the input; if the graph leaves them open, as many as the description's colours have."""

    @property
    def opset(self) -> int:
        """Its opset of the standard operators."""
        return opset_of(self.proto)

    @property
    def properties(self) -> dict[str, str]:
        """Its metadata."""
        return {entry.key: entry.value for entry in self.proto.metadata_props}


def opset_of(proto: onnx.ModelProto) -> int:
    """Version of the standard operators; 1 where the file does not say."""
    return max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def open_original(path: Path, description: Description) -> Original:
    """Load a file and check that its graph fits the description.

    Raises:
        ExportError: It does not, cannot be loaded, or has something that cannot be adopted; the message says what.
    """
    proto = _load(path)
    if METADATA_KEY in {entry.key for entry in proto.metadata_props}:
        raise ExportError(f"{path} is an artifact already: serve it as it is")
    try:
        session = open_cpu_session(path)
    except ArtifactError as error:
        raise ExportError(str(error)) from error
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    proto = _upgraded(proto, path)
    given = _only_input(proto, session, path)
    output = _output(session, description, path)
    channels = _check_shape(given, description, path)
    return Original(
        path, proto, session, file_sha256(path), given.name, output.name, np.dtype(INPUT_TYPES[given.type]), channels
    )


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, format="protobuf")  # or the file's name would tell what is in it
    except FileNotFoundError as error:
        if not path.exists():
            raise ExportError(f"there is no file {path}") from error
        raise ExportError(f"{path} keeps its weights in another file beside it, which is missing: {error}") from error
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}") from error
    except DecodeError as error:
        raise ExportError(f"{path} is damaged or is no ONNX file: fetch or export it again") from error
    except ValueError as error:
        raise ExportError(f"cannot load {path}: {reason_of(error)}") from error
    except onnx.checker.ValidationError as error:
        raise ExportError(
            f"{path} keeps its weights in another file, which is not beside it or is damaged: {reason_of(error)}"
        ) from error


def _upgraded(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    if opset_of(proto) >= MIN_OPSET:
        return proto
    try:
        return version_converter.convert_version(proto, MIN_OPSET)
    except Exception as error:  # C++ code raises RuntimeError and exceptions of its own
        raise ExportError(
            f"{path} has opset {opset_of(proto)}, and bringing it to {MIN_OPSET} failed ({reason_of(error)}): export it again "
            "with a newer opset"
        ) from error


def _only_input(proto: onnx.ModelProto, session: onnxruntime.InferenceSession, path: Path) -> Any:
    """The only input, those with a value in the file and unused ones not counted."""
    used = set(_used(proto.graph))
    inputs = [value for value in session.get_inputs() if value.name in used]
    if len(inputs) != 1:
        found = ", ".join(f"{value.name} {value.type} {value.shape}" for value in inputs) or "none"
        raise ExportError(f"{path} must take one picture and nothing else, its inputs are: {found}")
    unused = [value.name for value in session.get_inputs() if value.name not in used]
    if unused:
        raise ExportError(f"{path} has inputs that nothing uses ({', '.join(unused)}): export it without them")
    [given] = inputs
    if given.type not in INPUT_TYPES:
        raise ExportError(f"input {given.name} of {path} is {given.type}; one of {', '.join(INPUT_TYPES)} can be fed")
    return given


def _used(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of values that nodes take, those in the bodies of loops and branches too."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _used(body)
    yield from (value.name for value in graph.output)


def _output(session: onnxruntime.InferenceSession, description: Description, path: Path) -> Any:
    outputs = {value.name: value for value in session.get_outputs()}
    told = ", ".join(f"{value.name} {value.type} {value.shape}" for value in outputs.values())
    if description.output_name is None and len(outputs) > 1:
        raise ExportError(f"{path} has several outputs: say which one is read, as `output_name` of the description; {told}")
    name = description.output_name or next(iter(outputs))
    if name not in outputs:
        raise ExportError(f"{path} has no output {name!r}; its outputs are {told}")
    if outputs[name].type not in OUTPUT_TYPES:
        raise ExportError(f"output {name} of {path} is {outputs[name].type}: it must be floats, a number for each class")
    return outputs[name]


def _check_shape(given: Any, description: Description, path: Path) -> int:
    """Compare the sizes that a graph fixes with the description; returns the number of channels."""
    shape, wanted = list(given.shape), description.layout.upper()
    if len(shape) != 4:
        raise ExportError(f"input {given.name} of {path} is {shape}: four axes are expected, {', '.join(wanted)}")
    found = dict(zip(description.layout, shape, strict=True))
    if isinstance(found["n"], int):
        raise ExportError(
            f"the batch of {path} is fixed at {found['n']} (input {given.name} is {shape}): "
            "export it again with a dynamic batch"
        )
    other = "nhwc" if description.layout == "nchw" else "nchw"
    if found["c"] not in (1, 3) and dict(zip(other, shape, strict=True))["c"] in (1, 3):
        raise ExportError(f"input {given.name} of {path} is {shape}, which looks like layout {other}, not {description.layout}")
    channels = found["c"] if isinstance(found["c"], int) else (1 if description.colours == "grey" else 3)
    if channels not in (1, 3) or (channels == 1 and description.colours != "grey"):
        raise ExportError(
            f"input {given.name} of {path} is {shape}, which has {channels} channels as {wanted}: "
            f"that is not {description.colours}; another `layout` or other `colours`?"
        )
    fixed = [found[axis] if isinstance(found[axis], int) else side for axis, side in zip("hw", description.size, strict=True)]
    for name, there, said in zip(("height", "width"), fixed, description.size, strict=True):
        if there != said:
            raise ExportError(
                f"the {name} of {path} is fixed at {there} pixels, the description says {said}: "
                f"give --size {fixed[0]}x{fixed[1]}"
            )
    return channels


def prepare(pixels: NDArray[np.uint8], description: Description, channels: int) -> Floats:
    """The input of a graph, float32, from uint8 RGB `(N, H, W, 3)`."""
    values = pixels.astype(np.float32)
    if description.colours == "bgr":
        values = values[..., ::-1]
    elif description.colours == "grey":
        grey = sum(weight * values[..., channel] for channel, weight in enumerate(GREY))
        values = np.stack([grey] * channels, -1)
    mean, std = np.array(description.mean, np.float32), np.array(description.std, np.float32)
    values = (values / np.float32(description.divisor) - mean) / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if description.layout == "nchw" else values, np.float32)


def run(original: Original, pixels: NDArray[np.uint8], description: Description) -> Scores:
    """The graph's output for uint8 RGB `(N, H, W, 3)`.

    Raises:
        ExportError: The graph does not take such an input, or its output has another form.
    """
    parts = []
    for start in range(0, len(pixels), BATCH):
        values = prepare(pixels[start : start + BATCH], description, original.channels).astype(original.input_type)
        try:
            [output] = original.session.run([original.output_name], {original.input_name: values})
        except Exception as error:  # ONNX Runtime's exceptions have no other common base
            raise ExportError(
                f"{original.path} cannot be run on input {list(values.shape)}: {reason_of(error)}; "
                "is the size or the layout another?"
            ) from error
        if output.ndim != 3 or output.shape[description.axes.index("b")] != len(values):
            raise ExportError(
                f"output {original.output_name} of {original.path} has shape {list(output.shape)} for {len(values)} pictures: "
                f"that is not `axes` {description.axes} (b: pictures, t: steps or columns, c: classes)"
            )
        parts.append(output.transpose([description.axes.index(axis) for axis in "btc"]).astype(np.float32))
    return Scores(np.concatenate(parts), description.output)
