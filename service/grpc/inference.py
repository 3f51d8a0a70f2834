"""Inference requests and their answers: from messages to crops, and from readings to messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from service.core.models import Model
from service.core.recognizer import CropResult
from service.errors import INVALID_REQUEST, MALFORMED_REQUEST, Problem
from service.grpc.messages import CHOICE, CLASSES
from service.http.bodies.body import Body
from service.http.dialects.dialect import Crops, Dialect
from service.http.dialects.open_inference.answers import packed_tensor, raise_first, values_of
from service.http.dialects.open_inference.requests import DATATYPES, InferCrops, read_request
from service.http.dialects.v1_answers import server_timing, timings_of
from service.http.head import Head
from service.http.problems import Answer

MESSAGE_TYPE: Final = "application/grpc+proto"
FILES: Final = "bytes_contents"


class Message(Body):
    """What has come of a call: all of it, unlike the body of a request over HTTP.

    Args:
        request: Parsed.
        timeout_ms: What the client gives us from now on; infinite when it does not say.
    """

    __slots__ = ("left", "request", "timeout_ms")

    def __init__(self, request: Any, timeout_ms: float) -> None:
        self.request = request
        self.timeout_ms = timeout_ms
        self.left = asyncio.Event()
        """Set when nobody waits for the answer any more."""

    async def client_left(self) -> None:
        """Return when the call has been cancelled."""
        await self.left.wait()


class Inference(Dialect):
    """`ModelInfer`.

    Args:
        max_crops: Images of a request, at most.
    """

    paths = ()
    """None over HTTP."""

    def __init__(self, max_crops: int) -> None:
        self._max_crops = max_crops

    async def parse(self, head: Head, body: Body) -> InferCrops:
        """The images of a message."""
        if not isinstance(body, Message):
            raise TypeError("the body of another protocol")
        document, tensor = document_of(body.request)
        body.request = None  # what it held is held twice now
        crops = read_request(document, tensor or b"", None if tensor is None else 0, self._max_crops)
        crops.timeout_ms = min(crops.timeout_ms, head.checked_timeout_ms(), body.timeout_ms)
        return crops

    async def answer(self, head: Head, crops: Crops, results: Sequence[CropResult], model: Model, total_s: float) -> Answer:
        """The outputs, raw if the images came so; of a request that names no `error` among them, the first crop that failed is
        the answer."""
        if not isinstance(crops, InferCrops):
            raise TypeError("crops of another dialect")
        raise_first(results, crops)
        name = model.name if head.announced is None or head.announced.model is None else head.announced.model
        response = CLASSES["ModelInferResponse"](model_name=name, model_version=model.version, id=crops.id or "")
        for output, raw in crops.outputs:
            values, shape = values_of(output, results, crops.shape)
            tensor = response.outputs.add(name=output, datatype=DATATYPES[output], shape=shape)
            if raw:
                response.raw_output_contents.append(packed_tensor(values))
            elif DATATYPES[output] == "BYTES":
                tensor.contents.bytes_contents.extend([text.encode() for text in values])
            else:
                tensor.contents.fp32_contents.extend(values)
        timing = server_timing(timings_of(results, total_s)).encode()
        return Answer(200, response.SerializeToString(), MESSAGE_TYPE, ((b"server-timing", timing),))

    def problem(self, problem: Problem) -> Answer:
        """The detail, which becomes the message of the call's status."""
        return problem_answer(problem)


def problem_answer(problem: Problem) -> Answer:
    """A problem as it is told over gRPC: its detail, and as metadata what would be headers."""
    headers = tuple([(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in problem.headers.items()])
    return Answer(problem.status, problem.detail.encode(), MESSAGE_TYPE, headers)


def document_of(request: Any) -> tuple[dict[str, Any], bytes | None]:
    """What a `ModelInferRequest` would be as JSON, and its raw tensor; `None`: it has none.

    Raises:
        Problem: Tensors and raw contents do not go together.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        detail = f"raw_input_contents: has {len(raw)} elements, and there are {len(request.inputs)} inputs."
        raise Problem(MALFORMED_REQUEST, detail)
    inputs = []
    for index, tensor in enumerate(request.inputs):
        described = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if not raw:
            if {field.name for field, _ in tensor.contents.ListFields()} - {FILES}:
                detail = f"inputs[{index}].contents: files are sent in {FILES}, and pixels in raw_input_contents."
                raise Problem(INVALID_REQUEST, detail)
            described["data"] = list(tensor.contents.bytes_contents)
        elif tensor.HasField("contents"):
            raise Problem(INVALID_REQUEST, f"inputs[{index}]: has contents, and there are raw_input_contents.")
        else:
            described["parameters"] = {"binary_data_size": len(raw[index])}
        inputs.append(described)
    # Of one tensor: that there are no others is for the parser to say.
    blob = raw[0] if raw else None
    parameters = {**_values(request.parameters), "binary_data_output": blob is not None}
    outputs = [{"name": output.name} for output in request.outputs]
    return {"id": request.id, "parameters": parameters, "inputs": inputs, "outputs": outputs}, blob


def _values(parameters: Any) -> dict[str, Any]:
    found = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof(CHOICE)
        found[name] = None if choice is None else getattr(parameter, choice)
    return found
