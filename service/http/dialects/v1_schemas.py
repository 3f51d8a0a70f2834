"""The JSON of the interface. Requests are validated against these; answers are built as plain dicts of the same shape."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    RootModel,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from artifact.metadata import DecodeMode

MAX_ID_LENGTH: Final = 256
MAX_CROPS_KEY: Final = "max_crops"
MAX_INLINE: Final = 1000
"""Longest charset that is listed with the model; of a longer one only its size and address are given."""
MAX_ID: Final = 2**53 - 1
"""Larger integers do not survive every JSON library."""


VERSION: Final = Field(description="The first 12 digits of the artifact's SHA-256 digest.")


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


StringId = Annotated[str, Field(max_length=MAX_ID_LENGTH)]
NumberId = Annotated[int, Field(strict=True, ge=-MAX_ID, le=MAX_ID)]


ID_RULE: Final = f"An id is a text of up to {MAX_ID_LENGTH} characters or an integer from -(2^53 - 1) to 2^53 - 1."


class ImageInput(BaseModel):
    """One image of a JSON request."""

    id: StringId | NumberId | None = Field(
        None, description=f"Comes back with the result; default: the position in the list, from 0. {ID_RULE}"
    )
    content: str = Field(description="The image file in base64; a `data:` prefix is accepted.")


class RecognizeRequest(BaseModel):
    """Several images in one JSON request."""

    # The first error is enough: a list of a million mistakes would cost more to describe than to read.
    images: Annotated[list[ImageInput], FailFast()] = Field(min_length=1)

    @field_validator("images", mode="before")
    @classmethod
    def _bounded(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a list that is too long before its entries are looked at; the context has the limit."""
        if isinstance(value, list) and info.context and len(value) > info.context[MAX_CROPS_KEY]:
            raise PydanticCustomError(MAX_CROPS_KEY, "too many images")
        return value


Numbers = list[Annotated[float, Field(strict=True)]]


class RegionInput(BaseModel):
    """One region of a page: four points, or a box. Anything else about its shape is told in its result."""

    id: StringId | NumberId | None = Field(
        None, description=f"Comes back with the result; default: the position in the list, from 0. {ID_RULE}"
    )
    points: list[Numbers] | None = Field(
        None,
        description="Four points [x, y], in pixels of the upright page: top left, top right, bottom right and bottom left of "
        "the text, however the text is turned.",
        examples=[[[10.5, 20], [90, 22], [89.5, 44], [10, 42]]],
    )
    box: Numbers | None = Field(
        None, description="Left, top, right, bottom, in pixels of the upright page.", examples=[[10, 20, 90, 44]]
    )


class RegionsRequest(BaseModel):
    """A page and the regions of it that shall be read."""

    image: str = Field(description="The image file of the page in base64; a `data:` prefix is accepted.")
    regions: Annotated[list[RegionInput], FailFast()] = Field(min_length=1)

    @field_validator("regions", mode="before")
    @classmethod
    def _bounded(cls, value: Any, info: ValidationInfo) -> Any:
        return _checked_length(value, info)


class RegionList(RootModel[list[RegionInput]]):
    """The field `regions` of a form."""

    root: Annotated[list[RegionInput], FailFast()] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, value: Any, info: ValidationInfo) -> Any:
        return _checked_length(value, info)


def _checked_length(value: Any, info: ValidationInfo) -> Any:
    """Refuse a list that is too long before its entries are looked at; the context has the limit."""
    if isinstance(value, list) and info.context and len(value) > info.context[MAX_CROPS_KEY]:
        raise PydanticCustomError(MAX_CROPS_KEY, "too many regions")
    return value


class Character(_Answer):
    """One character of a text."""

    char: str
    confidence: float = Field(ge=0, le=1)


class WordOfLine(_Answer):
    """One of several words of a crop."""

    text: str
    confidence: float = Field(ge=0, le=1)
    box: Annotated[list[int], Field(min_length=4, max_length=4)] = Field(
        description="Left, top, right and bottom in pixels of the picture that was sent, after its EXIF orientation; right and "
        "bottom are behind the last pixel."
    )


class Timings(_Answer):
    """Where the time went, in milliseconds. Of several crops: the longest of each stage."""

    decode_ms: float = Field(description="From admission to decoded pixels, waiting for a decode thread included.")
    queue_ms: float = Field(description="Wait for an inference lane.")
    inference_ms: float = Field(description="The run of the batch this crop was in.")
    total_ms: float = Field(description="From the complete request to the answer.")


class ProblemDocument(BaseModel):
    """An error as RFC 9457 describes it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="A URN that names the kind of problem; the list is in docs/api.md.")
    title: str
    status: int
    detail: str


class Alternative(_Answer):
    """One of the most probable texts of a crop."""

    text: str
    confidence: float = Field(ge=0, le=1)


class _Text(_Answer):
    text: str
    confidence: float = Field(
        ge=0,
        le=1,
        description="Product of the probabilities of the characters and of the end of the text.",
    )
    characters: list[Character] | None = Field(None, description="With `?characters=true`: the probability of each character.")
    alternatives: list[Alternative] | None = Field(
        None, description="With `?alternatives=`: the most probable texts, the most probable first, which is `text` itself."
    )
    angle: Literal[0, 90, 180, 270] | None = Field(
        None,
        description="Unless the orientation is `upright`: degrees, clockwise, by which the picture was turned to be read.",
    )
    words: list[WordOfLine] | None = Field(None, description="With `?split=auto`, of a line: its words, in their order.")
    uncertain: Literal[True] | None = Field(
        None, description="There, and true, where the confidence is below the server's PARSEQ_MIN_CONFIDENCE."
    )


class ReadResult(_Text):
    """The text of one of several crops."""

    id: str


class FailedResult(_Answer):
    """Why one of several crops has no text."""

    id: str
    error: ProblemDocument


class Recognition(_Text):
    """The text of a single crop."""

    id: str | None = Field(None, description="The name of the file, when the request had one.")
    model: str
    model_version: str = VERSION
    timings: Timings


class RecognitionList(_Answer):
    """The texts of several crops, in the order of the request."""

    results: list[ReadResult | FailedResult]
    model: str
    model_version: str = VERSION
    timings: Timings


class Limits(_Answer):
    """What a request may carry."""

    max_body_bytes: int
    max_crops_per_request: int
    max_regions: int = Field(description="Of a page in one request; no more than `PARSEQ_MAX_QUEUE_ITEMS` are read.")
    max_json_bytes: int
    max_json_depth: int
    max_form_fields: int
    max_image_bytes: int
    max_image_pixels: int
    max_page_pixels: int
    max_request_pixels: int
    max_image_side_pixels: int
    image_formats: str = Field(description="With commas between them.")


class ModelInfo(_Answer):
    """A model that is served."""

    name: str
    aliases: list[str] = Field(description="Other names that requests may use.")
    version: str = VERSION
    sha256: str = Field(description="Digest of the artifact, in hexadecimal.")
    architecture: str = Field(description="Which recogniser the network is.")
    charset: str | None = Field(
        None, description=f"Every character the model can give, unless there are more than {MAX_INLINE}."
    )
    charset_size: int = Field(description="How many characters the model can give.")
    charset_url: str = Field(description="Where they are, relative to the address of this list.")
    image_height: int = Field(description="Pixels, after resizing.")
    image_width: int = Field(description="Pixels, after resizing.")
    max_label_length: int = Field(description="Characters of the longest text it can give.")
    max_alternatives: int = Field(description="How many texts a crop can get, as `?alternatives=`; 0: this model gives none.")
    choice_of_characters: bool = Field(description="Whether `?charset=` may say which characters are to be read.")
    decode_mode: DecodeMode
    refine_iters: int
    precision: str
    weights_sha256: str
    source: str | None = Field(None, description="Where weights that others made come from.")
    licence: str | None = Field(None, description="Of those weights.")
    notice: str | None = Field(None, description="What their licence wants to be said with them.")
    provider: str = Field(description="Execution provider in use.")
    limits: Limits


class ModelList(_Answer):
    """The models that are served; the first is for requests that name none."""

    models: list[ModelInfo]


class CharsetOfModel(_Answer):
    """What a model can give."""

    charset: str = Field(description="Every character.")
    symbols: list[str] | None = Field(
        None, description="Only where some of what the model tells apart has several characters: all of it, in its order."
    )


class Health(_Answer):
    """A probe's answer."""

    status: Literal["alive", "ready"]


COMPONENTS: Final[tuple[type[BaseModel], ...]] = (
    RecognizeRequest,
    RegionsRequest,
    Recognition,
    RecognitionList,
    ProblemDocument,
    ModelList,
    CharsetOfModel,
    Health,
)
