"""From the JSON of an inference request, and the binary tensors after it, to images and the wanted outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from artifact.allowed import AllowedError, parts_of
from artifact.alternatives import MAX_ALTERNATIVES
from artifact.orientation import Orientation
from service.core.crop_decoder import EncodedImage
from service.core.read_options import NO_OPTIONS, ReadOptions
from service.errors import MALFORMED_REQUEST, Problem, too_many_crops
from service.http.dialects.dialect import Crops
from service.http.dialects.open_inference.documents import invalid, told
from service.http.dialects.v1_query import ORIENTATION, SPLIT, SPLITS
from service.http.dialects.v1_schemas import MAX_ID_LENGTH
from service.images.decode import RawPicture

IMAGES: Final = "images"
TEXT: Final = "text"
CONFIDENCE: Final = "confidence"
CHARACTER_CONFIDENCES: Final = "character_confidences"
ERROR: Final = "error"
ALTERNATIVES: Final = "alternatives"
ALTERNATIVE_CONFIDENCES: Final = "alternative_confidences"
DATATYPES: Final = {
    TEXT: "BYTES", CONFIDENCE: "FP32", CHARACTER_CONFIDENCES: "FP32", ERROR: "BYTES",
    ALTERNATIVES: "BYTES", ALTERNATIVE_CONFIDENCES: "FP32",
}  # fmt: skip
"""Of the outputs there are."""
OF_ALTERNATIVES: Final = frozenset((ALTERNATIVES, ALTERNATIVE_CONFIDENCES))
"""Outputs of models that give alternatives."""
READING: Final = frozenset(("charset", "alternatives", ORIENTATION, SPLIT))
"""Parameters that say how images are to be read."""
USUAL_OUTPUTS: Final = (TEXT, CONFIDENCE)
LENGTH_BYTES: Final = 4
"""Before each element of a binary BYTES tensor: its length, little-endian."""
CHANNELS: Final = 3
MOST_URGENT: Final = 1
"""Triton's highest priority; 0 is none in particular."""
MAX_PRIORITY: Final = 2**64 - 1

Outputs = tuple[tuple[str, bool], ...]
"""Names, and whether each is wanted binary."""


@dataclass(slots=True)
class InferCrops(Crops):
    """The images of a request, and how their texts are to be answered."""

    id: str | None
    shape: list[int]
    """Of the outputs, but for `character_confidences`."""
    outputs: Outputs


def raw_image(body: bytes) -> InferCrops:
    """A body that is nothing but the file of one image, which is told by a header of 0 bytes; the answer is binary."""
    return InferCrops([EncodedImage(None, body)], math.inf, None, [1], tuple((name, True) for name in USUAL_OUTPUTS))


def read_request(document: dict[str, Any], body: bytes, start: int | None, max_crops: int) -> InferCrops:
    """The images of a request.

    Args:
        document: Its JSON; or what JSON would say, of another protocol, which may have the files themselves as data.
        body: All of it, or only the binary tensors.
        start: Where the binary tensors begin in `body`; `None`: there is no such part.
        max_crops: Images, at most.

    Raises:
        Problem: Anything is wrong with it.
    """
    id_ = document.get("id")
    if id_ is not None and (not isinstance(id_, str) or len(id_) > MAX_ID_LENGTH):
        raise invalid(f"id: must be a text of up to {MAX_ID_LENGTH} characters.")
    parameters = _parameters(document, "parameters")
    outputs = _outputs(document.get("outputs"), _flag(parameters, "binary_data_output", False, "parameters"))
    tensor = _the_tensor(document.get("inputs"))
    shape = _shape(tensor.get("shape"))
    images = _images(tensor, shape, body, start, max_crops)
    timeout_ms, bulk, options = _timeout_ms(parameters), _bulk(parameters), NO_OPTIONS
    if not READING.isdisjoint(parameters) or not OF_ALTERNATIVES.isdisjoint(dict(outputs)):
        options = _options(parameters, outputs)
    shape = shape if len(shape) <= 2 else shape[:1]
    return InferCrops(images, timeout_ms, id_, shape, outputs, bulk=bulk, options=options)


def _parameters(owner: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = owner.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise invalid(f"{where}: must be an object.")
    return parameters


def _flag(parameters: dict[str, Any], name: str, default: bool, where: str) -> bool:
    value = parameters.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise invalid(f"{where}.{name}: must be true or false.")
    return value


def _timeout_ms(parameters: dict[str, Any]) -> float:
    """Microseconds, as Triton has it; 0 is none of its own."""
    given = parameters.get("timeout")
    if given is None or (given == 0 and given is not False):
        return math.inf
    if isinstance(given, bool) or not isinstance(given, int | float) or given < 0:
        raise invalid("parameters.timeout: must be a number of microseconds, such as 250000.")
    return given / 1000 if given < 2**63 else math.inf


def _bulk(parameters: dict[str, Any]) -> bool | None:
    given = parameters.get("priority")
    if given is None:
        return None
    if type(given) is not int or not 0 <= given <= MAX_PRIORITY:
        raise invalid("parameters.priority: must be an integer: 1 for as soon as single crops are read, 2 and up for bulk.")
    return given > MOST_URGENT if given else None


def _options(parameters: dict[str, Any], outputs: Outputs) -> ReadOptions:
    """How the images are to be read; the parameters are called as in the service's own protocol.

    The outputs of alternatives have the most there can be where no parameter says how many.
    """
    allowed, count = parameters.get("charset"), parameters.get("alternatives")
    if allowed is not None:
        if not isinstance(allowed, str):
            raise invalid("parameters.charset: must be a text, such as `digits`.")
        try:
            parts_of(allowed)
        except AllowedError as error:
            raise invalid(f"parameters.charset: {error}.") from error
    if count is not None and (type(count) is not int or not 1 <= count <= MAX_ALTERNATIVES):
        raise invalid(f"parameters.alternatives: must be a whole number from 1 to {MAX_ALTERNATIVES}.")
    if OF_ALTERNATIVES.isdisjoint(dict(outputs)):
        count = 0
    elif count is None:
        count = MAX_ALTERNATIVES
    return replace(read_options(parameters), alternatives=count, allowed=allowed)


def read_options(parameters: dict[str, Any]) -> ReadOptions:
    """Which views of the images are to be read, by `orientation` and `split`.

    Raises:
        Problem: A value is none of those there are.
    """
    orientation = _choice(parameters, ORIENTATION, get_args(Orientation))
    return ReadOptions(orientation, _choice(parameters, SPLIT, SPLITS) == "auto")


def _choice(parameters: dict[str, Any], name: str, choices: Sequence[str]) -> Any:
    given = parameters.get(name)
    if given is not None and given not in choices:
        raise invalid(f"parameters.{name}: must be one of {', '.join(choices)}.")
    return given


def _outputs(wanted: Any, binary: bool) -> Outputs:
    if wanted is None or wanted == []:
        return tuple([(name, binary) for name in USUAL_OUTPUTS])
    if not isinstance(wanted, list):
        raise invalid("outputs: must be a list.")
    found: dict[str, bool] = {}
    for index, output in enumerate(wanted):
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str):
            raise invalid(f"outputs[{index}]: must be an object with a `name`, one of {', '.join(DATATYPES)}.")
        if name not in DATATYPES:
            raise invalid(f"outputs[{index}]: there is no output {told(name)}; those there are: {', '.join(DATATYPES)}.")
        if name in found:
            raise invalid(f"outputs[{index}]: {told(name)} is wanted twice.")
        where = f"outputs[{index}].parameters"
        found[name] = _flag(_parameters(output, where), "binary_data", binary, where)
    return tuple(found.items())


def _the_tensor(inputs: Any) -> dict[str, Any]:
    if not isinstance(inputs, list) or not inputs:
        raise invalid(f"inputs: must be a list of one tensor, {told(IMAGES)}.")
    for index, tensor in enumerate(inputs):
        name = tensor.get("name") if isinstance(tensor, dict) else None
        if not isinstance(name, str):
            raise invalid(f"inputs[{index}]: must be an object with a `name`, which is {told(IMAGES)}.")
        if name != IMAGES:
            raise invalid(f"inputs[{index}]: there is no input {told(name)}; the one there is: {IMAGES}.")
        if index:
            raise invalid(f"inputs[{index}]: {told(IMAGES)} is given twice; several images are several elements of one tensor.")
    tensor = inputs[0]
    assert isinstance(tensor, dict)
    return tensor


def _shape(shape: Any) -> list[int]:
    if not isinstance(shape, list) or not shape or [size for size in shape if type(size) is not int or size < 0]:
        raise invalid(f"{IMAGES}.shape: must be a list of integers, none of them below 0.")
    return shape


def _images(tensor: dict[str, Any], shape: list[int], body: bytes, start: int | None, max_crops: int) -> list[EncodedImage]:
    datatype = tensor.get("datatype")
    if datatype == "BYTES":
        if shape[1:] not in ([], [1]):
            raise invalid(f"{IMAGES}.shape: of BYTES it must be [n] or [n, 1]: each element is the file of an image.")
    elif datatype == "UINT8":
        if len(shape) != 4 or shape[3] != CHANNELS:
            raise invalid(f"{IMAGES}.shape: of UINT8 it must be [n, height, width, {CHANNELS}].")
    else:
        raise invalid(f"{IMAGES}.datatype: must be BYTES (files) or UINT8 (pixels), not {told(datatype)}.")
    n_images = shape[0]
    if not n_images:
        raise invalid(f"{IMAGES}.shape: there must be at least one image.")
    if n_images > max_crops:
        raise too_many_crops(max_crops)
    size = _parameters(tensor, f"{IMAGES}.parameters").get("binary_data_size")
    data = tensor.get("data")
    if size is None:
        if start is not None and start != len(body):
            raise Problem(MALFORMED_REQUEST, "There are bytes behind the JSON, and no input has a binary_data_size.")
        if datatype != "BYTES":
            raise invalid(f"{IMAGES}: pixels must be sent as a binary tensor, or files as BYTES.")
        return _texts(data, n_images, len(shape) > 1)
    if data:
        raise invalid(f"{IMAGES}: has both data and a binary_data_size.")
    if type(size) is not int or size < 0:
        raise invalid(f"{IMAGES}.parameters.binary_data_size: must be an integer, not below 0.")
    if start is None:
        detail = "A binary_data_size needs the header Inference-Header-Content-Length: the number of bytes of the JSON."
        raise Problem(MALFORMED_REQUEST, detail)
    if start + size != len(body):
        detail = f"{IMAGES}.parameters.binary_data_size: is {size}, but {len(body) - start} bytes follow the JSON."
        raise Problem(MALFORMED_REQUEST, detail)
    return _files(body, start, n_images) if datatype == "BYTES" else _pictures(body, start, shape)


def _texts(data: Any, n_images: int, in_rows: bool) -> list[EncodedImage]:
    """Files in base64, or as they are."""
    if not isinstance(data, list):
        raise invalid(f"{IMAGES}.data: must be a list of files in base64.")
    if in_rows:
        data = [entry[0] if isinstance(entry, list) and len(entry) == 1 else entry for entry in data]
    if len(data) != n_images:
        raise invalid(f"{IMAGES}.data: has {len(data)} elements, and its shape says {n_images}.")
    for index, text in enumerate(data):
        if not isinstance(text, str | bytes):
            raise invalid(f"{IMAGES}.data[{index}]: must be a file in base64.")
    return [EncodedImage(None, text) for text in data]


def _files(body: bytes, start: int, n_images: int) -> list[EncodedImage]:
    """Files as they are, each behind its length."""
    images, end = [], len(body)
    for index in range(n_images):
        begin = start + LENGTH_BYTES
        start = begin + int.from_bytes(body[start:begin], "little")
        if begin > end or start > end:
            raise Problem(MALFORMED_REQUEST, f"{IMAGES}[{index}]: the tensor ends before it does.")
        images.append(EncodedImage(None, body[begin:start]))
    if start != end:
        raise Problem(MALFORMED_REQUEST, f"{IMAGES}: there are more bytes than in the {n_images} elements that its shape says.")
    return images


def _pictures(body: bytes, start: int, shape: list[int]) -> list[EncodedImage]:
    """Pixels."""
    n_images, height, width, channels = shape
    size = height * width * channels
    if start + n_images * size != len(body):
        raise Problem(
            MALFORMED_REQUEST, f"{IMAGES}: its shape says {n_images * size} bytes, and {len(body) - start} were sent."
        )
    return [
        EncodedImage(None, RawPicture(height, width, body[begin : begin + size]))
        for begin in range(start, len(body), size or 1)
    ] or [EncodedImage(None, RawPicture(height, width, b""))] * n_images
