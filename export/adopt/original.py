"""Somebody else's ONNX file: what is in it, and what it computes under a description.

Its input is made and its output read in plain NumPy here. None of this goes into the artifact, which is compared with it.

Shapes: N crops, T steps or columns, C classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
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
from artifact.metadata import EOS_ID, METADATA_KEY, ArtifactError
from artifact.session import open_cpu_session, reason_of
from export.adopt.description import Description, Output
from export.graphs.interface import ExportError, Floats, Ids, Reference

MIN_OPSET: Final = 11
"""The oldest opset with all operators that the artifact adds; older files are converted to it."""
GREY: Final = (0.299, 0.587, 0.114)
"""Weights of red, green and blue by ITU-R BT.601, as Pillow and OpenCV have them."""
INPUT_TYPES: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
OUTPUT_TYPES: Final = ("tensor(float)", "tensor(float16)", "tensor(double)")
BATCH: Final = 16
SUM_TOLERANCE: Final = 0.01
"""How far the sum of probabilities may be from 1, for half precision."""
SMALLEST: Final = float(np.finfo(np.float32).tiny)


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
        return onnx.load(path)
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


def class_table(description: Description, classes: int, entries: Sequence[str]) -> Ids:
    """The artifact's token id of every class: 0 blank or end, 1.. characters, -1 those that are never read.

    Raises:
        ExportError: There are more or fewer classes than the description says.
    """
    special, named = description.special_class(classes), description.character_classes(classes)
    wrong = [number for number in (special, *description.never) if number >= classes]
    if wrong:
        raise ExportError(f"the output has {classes} classes, from 0: there is no class {wrong[0]}")
    if len(named) != len(entries):
        raise ExportError(_miscount(description, classes, len(entries)))
    table = np.full(classes, -1, np.int64)
    table[special] = EOS_ID
    table[named] = np.arange(1, len(named) + 1)
    return table


def _miscount(description: Description, classes: int, entries: int) -> str:
    others = [f"the {description.special_name}"] + ([f"{len(description.never)} never read"] if description.never else [])
    says = f"{entries} characters, {' and '.join(others)}: {entries + 1 + len(set(description.never))}"
    missing = classes - entries - 1 - len(set(description.never))
    if missing == 1:
        cure = 'one class more; often it is the space: add "append": " " to the charset, or name a class that is `never` read'
    elif missing > 0:
        cure = f"{missing} classes more; is it another dictionary?"
    elif missing == -1:
        cure = "one class less; perhaps the dictionary has the space already, or lacks it"
    else:
        cure = f"{-missing} classes less; is it another dictionary?"
    return f"the output has {classes} classes, the description says {says}; there is {cure}"


@dataclass(frozen=True, slots=True)
class Scores:
    """A graph's output for some crops: a number for each class at each step or column."""

    values: Floats
    """`(N, T, C)`."""
    output: Output

    @property
    def steps(self) -> int:
        """T."""
        return len(self.values[0])

    @property
    def classes(self) -> int:
        """C."""
        return len(self.values[0, 0])

    def check(self) -> None:
        """Check that the values are what the description says, logits or probabilities.

        Raises:
            ExportError: They are not, or some are nan or infinite.
        """
        low, high, sums = float(self.values.min()), float(self.values.max()), self.values.sum(-1)
        if not np.isfinite(sums).all():
            raise ExportError("the original gives values that are no numbers (nan or infinite): is the normalisation another?")
        looks_so = low >= 0 and bool((np.abs(sums - 1) <= SUM_TOLERANCE).all())
        if self.output == "probabilities" and not looks_so:
            raise ExportError(
                f"the description says `probabilities`, but the output goes from {low:.3g} to {high:.3g} and its classes add "
                f"up to {float(sums.min()):.3g} to {float(sums.max()):.3g}: say `logits`"
            )
        if self.output == "logits" and looks_so:
            raise ExportError(
                "the description says `logits`, but the output's classes are from 0 to 1 and add up to 1: say `probabilities`"
            )

    def logs(self, classes: Ids) -> NDArray[np.float64]:
        """The logarithms of the probabilities of some classes, `(N, T, S)`."""
        chosen = np.take_along_axis(self.values, classes, -1).astype(np.float64)
        if self.output == "probabilities":
            return np.log(np.maximum(chosen, SMALLEST))
        highest = self.values.max(-1, keepdims=True)
        sums = np.log(np.exp(self.values - highest).sum(-1, keepdims=True, dtype=np.float64))
        return np.asarray(chosen - highest - sums, np.float64)

    def best(self, table: Ids) -> Ids:
        """The likeliest token of each step, `(N, T)`."""
        if (table >= 0).all():
            return np.asarray(table[self.values.argmax(-1)])
        kept = np.flatnonzero(table >= 0)
        return np.asarray(table[kept][self.values[..., kept].argmax(-1)])


def read(scores: Scores, description: Description, table: Ids) -> Reference:
    """Read one crop after another, as the artifact is to read them."""
    kept = np.flatnonzero(table >= 0)
    top = np.sort(scores.logs(np.broadcast_to(kept, (len(scores.values), scores.steps, len(kept)))), axis=-1)[..., -2:]
    best, certain, gaps = scores.best(table), np.exp(top[..., 1]), top[..., 1] - top[..., 0]
    columns = description.decoding == "ctc"
    rows = scores.steps + 1 if columns else scores.steps
    ids, confidences = np.zeros((len(best), rows), np.int64), np.ones((len(best), rows), np.float32)
    lengths, margins = np.zeros(len(best), np.int64), np.zeros(len(best), np.float32)
    for crop, tokens in enumerate(best.tolist()):
        if columns:
            texts, products = collapsed(tokens, certain[crop].tolist())
            lengths[crop], margins[crop] = len(products), gaps[crop].min()
        else:
            end = tokens.index(EOS_ID) + 1 if EOS_ID in tokens else len(tokens)
            texts, products = tokens, certain[crop].tolist()
            lengths[crop], margins[crop] = end, gaps[crop, :end].min()
        ids[crop, : len(texts)], confidences[crop, : len(products)] = texts, products
    return Reference(ids, confidences, np.zeros((len(best), rows, 0), np.float32), lengths, margins)


def collapsed(tokens: Sequence[int], probabilities: Sequence[float]) -> tuple[list[int], list[float]]:
    """Equal neighbours merged, blanks dropped: the tokens, the product of each one's columns, and last that of the blanks."""
    found, products, blanks, place = [], [], 1.0, 0
    for token, group in itertools.groupby(tokens):
        count = len(list(group))
        product = math.prod(probabilities[place : place + count])
        place += count
        if token == EOS_ID:
            blanks *= product
        else:
            found.append(token)
            products.append(product)
    return found, [*products, blanks]
