"""The JSON of the Open Inference Protocol, as the description of the interface has it. Requests are read by `requests.py`."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from artifact.alternatives import MAX_ALTERNATIVES
from artifact.metadata import ArtifactMetadata
from service.http.dialects.open_inference.requests import (
    ALTERNATIVE_CONFIDENCES,
    ALTERNATIVES,
    CHARACTER_CONFIDENCES,
    CONFIDENCE,
    DATATYPES,
    ERROR,
    IMAGES,
    MAX_PRIORITY,
    OF_ALTERNATIVES,
    TEXT,
)
from service.http.dialects.v1_schemas import MAX_ID_LENGTH

PLATFORM: Final = "onnxruntime_onnx"
OUTPUT_SHAPES: Final = {
    TEXT: [-1], CONFIDENCE: [-1], CHARACTER_CONFIDENCES: [-1, -1], ERROR: [-1],
    ALTERNATIVES: [-1, -1], ALTERNATIVE_CONFIDENCES: [-1, -1],
}  # fmt: skip
"""As a model tells them: -1 is any size."""


OutputName = Literal["text", "confidence", "character_confidences", "error", "alternatives", "alternative_confidences"]


class ServerMetadata(BaseModel):
    """What speaks the protocol."""

    name: str
    version: str
    extensions: list[str]


class ServerState(BaseModel):
    """Of the server, or of a model."""

    name: str | None = Field(None, description="Of the model.")
    live: bool | None = None
    ready: bool | None = None


class TensorMetadata(BaseModel):
    """An input or output."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1 is any size.")


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class RepositoryModel(BaseModel):
    """A model that is served."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class InferParameters(BaseModel):
    """Any others are ignored."""

    timeout: float | None = Field(None, ge=0, description="Microseconds that this request may take; 0: what the server has.")
    priority: int | None = Field(
        None, ge=0, le=MAX_PRIORITY, description="1: read as single crops are; 2 and up: as bulk; 0: by the number of crops."
    )
    binary_data_output: bool = Field(False, description="Whether outputs are binary that do not say.")
    charset: str | None = Field(None, description="Which characters may be read, as in `?charset=` of /v1/recognize.")
    alternatives: int | None = Field(
        None, ge=1, le=MAX_ALTERNATIVES, description="How many texts the outputs `alternatives` and the like have, at most."
    )


class InputParameters(BaseModel):
    """Any others are ignored."""

    binary_data_size: int | None = Field(None, ge=0, description="Bytes of the tensor, which then follow the JSON.")


class InputTensor(BaseModel):
    """The images."""

    name: Literal["images"]
    datatype: Literal["BYTES", "UINT8"] = Field(
        description="`BYTES`: each element is the file of an image, in base64 where it is in `data`. `UINT8`: pixels, always "
        "binary."
    )
    shape: list[int] = Field(description="`[n]` or `[n, 1]` of files, `[n, height, width, 3]` of pixels.")
    data: list[str] | None = None
    parameters: InputParameters | None = None


class OutputParameters(BaseModel):
    """Any others are ignored."""

    binary_data: bool = False


class WantedOutput(BaseModel):
    """An output that is asked for."""

    name: OutputName
    parameters: OutputParameters | None = None


class InferRequest(BaseModel):
    """Images to read."""

    id: str | None = Field(None, max_length=MAX_ID_LENGTH, description="Comes back.")
    parameters: InferParameters | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[WantedOutput] | None = Field(None, description="Without any: `text` and `confidence`.")


class OutputTensor(BaseModel):
    """What was read."""

    name: OutputName
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    data: list[str | float] | None = Field(None, description="Row by row.")
    parameters: dict[str, int] | None = Field(None, description="`binary_data_size`: the tensor follows the JSON.")


class InferResponse(BaseModel):
    """The texts."""

    id: str | None = None
    model_name: str
    model_version: str
    outputs: list[OutputTensor]


class InferenceError(BaseModel):
    """Why there is no answer."""

    error: str


COMPONENTS: Final[tuple[type[BaseModel], ...]] = (
    ServerMetadata, ServerState, ModelMetadata, RepositoryModel, InferRequest, InferResponse, InferenceError,
)  # fmt: skip


def tensors(metadata: ArtifactMetadata) -> dict[str, list[dict[str, Any]]]:
    """The inputs and outputs of a model."""
    names = [name for name in DATATYPES if metadata.top_count or name not in OF_ALTERNATIVES]
    outputs = [{"name": name, "datatype": DATATYPES[name], "shape": OUTPUT_SHAPES[name]} for name in names]
    return {"inputs": [{"name": IMAGES, "datatype": "BYTES", "shape": [-1]}], "outputs": outputs}
