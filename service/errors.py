"""Every error a client can see, in one table.

Code raises `Problem(KIND, detail)`; nothing else decides about statuses. Details are written by hand where a problem is raised,
and never echo an exception, so no path, version or traceback leaves the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

URN_PREFIX: Final = "urn:parseq:problem:"


class StartupError(Exception):
    """The server cannot start; the message is one line that names the cause and the cure."""


class ClientLeftError(Exception):
    """The client closed the connection; nobody waits for the answer."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of problem."""

    slug: str
    status: int
    title: str

    @property
    def type(self) -> str:
        """The `type` member of the problem document."""
        return URN_PREFIX + self.slug


MALFORMED_REQUEST: Final = Kind("malformed-request", 400, "The request cannot be parsed")
INVALID_QUERY: Final = Kind("invalid-query", 400, "The query parameters are not valid")
JSON_TOO_DEEP: Final = Kind("json-too-deep", 400, "The JSON is nested too deeply")
TOO_MANY_FIELDS: Final = Kind("too-many-fields", 400, "The form has too many fields")
EMPTY_BODY: Final = Kind("empty-body", 400, "The request has no body")
NO_FILE: Final = Kind("no-file", 400, "The form has no file")
UNKNOWN_CHARACTERS: Final = Kind("unknown-characters", 400, "The model does not have these characters")
UNAUTHORIZED: Final = Kind("unauthorized", 401, "The request has no valid API key")
NOT_FOUND: Final = Kind("not-found", 404, "There is nothing at this path")
METHOD_NOT_ALLOWED: Final = Kind("method-not-allowed", 405, "The path does not take this method")
REQUEST_TIMEOUT: Final = Kind("request-timeout", 408, "The request did not arrive in time")
NO_ALTERNATIVES: Final = Kind("no-alternatives", 409, "The model gives no alternatives")
NO_CHOICE_OF_CHARACTERS: Final = Kind("no-choice-of-characters", 409, "The model cannot be told which characters to read")
BODY_TOO_LARGE: Final = Kind("body-too-large", 413, "The request body is too large")
TOO_MANY_CROPS: Final = Kind("too-many-crops", 413, "The request has too many crops")
JSON_TOO_LARGE: Final = Kind("json-too-large", 413, "The JSON is too large")
IMAGE_FILE_TOO_LARGE: Final = Kind("image-file-too-large", 413, "The image file is too large")
IMAGE_TOO_LARGE: Final = Kind("image-too-large", 413, "The image has too many pixels")
UNSUPPORTED_MEDIA_TYPE: Final = Kind("unsupported-media-type", 415, "The content type is not supported")
UNSUPPORTED_IMAGE_FORMAT: Final = Kind("unsupported-image-format", 415, "The image format is not supported")
UNREADABLE_IMAGE: Final = Kind("unreadable-image", 422, "The image cannot be decoded")
IMAGE_TOO_COMPLEX: Final = Kind("image-too-complex", 422, "The image file has too many parts")
SEVERAL_FRAMES: Final = Kind("several-frames", 422, "The image has several frames")
INVALID_BASE64: Final = Kind("invalid-base64", 422, "The content is not base64")
INVALID_REQUEST: Final = Kind("invalid-request", 422, "The request is well-formed but not valid")
INVALID_REGION: Final = Kind("invalid-region", 422, "The region cannot be cut out")
QUEUE_FULL: Final = Kind("queue-full", 429, "The server is busy")
TOO_MANY_CONNECTIONS: Final = Kind("too-many-connections", 429, "The server has too many connections")
NO_ROOM_FOR_BODY: Final = Kind("no-room-for-body", 429, "The server has no room for the body")
HEAD_TOO_LARGE: Final = Kind("head-too-large", 431, "The head of the request is too large")
INFERENCE_FAILED: Final = Kind("inference-failed", 500, "The model failed on this crop")
INTERNAL: Final = Kind("internal", 500, "The server failed")
UNSUPPORTED_TRANSFER_CODING: Final = Kind("unsupported-transfer-coding", 501, "The transfer coding is not supported")
NOT_READY: Final = Kind("not-ready", 503, "The server is not ready")
NOT_ALIVE: Final = Kind("not-alive", 503, "The server must be restarted")
DEADLINE_EXPIRED: Final = Kind("deadline-expired", 504, "The deadline passed before the crop was read")
OTHER_HTTP_ERROR: Final = Kind("http-error", 400, "The request was refused")

KINDS: Final[tuple[Kind, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, Kind))


class Problem(Exception):  # noqa: N818 - the RFC's word for it
    """An error a client is told about.

    Args:
        kind: Which one.
        detail: For a human: what was wrong with this request, and what to do.
        headers: HTTP headers that go with the answer.
        extra: Further members of the problem document.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})
        self.status = status or kind.status

    def bare(self) -> Problem:
        """This problem without its traceback and cause. Their frames hold the body of the request, and often this problem, so
        both would stay in memory until the garbage collector finds the cycle."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)

    def document(self) -> dict[str, Any]:
        """The problem as a JSON object: `type`, `title`, `status`, `detail` and extras."""
        return {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }


def body_too_large(limit_bytes: int) -> Problem:
    """The body exceeds the limit; the detail names it and its setting."""
    return Problem(BODY_TOO_LARGE, f"The body may have {limit_bytes} bytes at most (PARSEQ_MAX_BODY_BYTES).")


def too_many_regions(limit: int) -> Problem:
    """The request has too many regions; the detail names the limit and its settings."""
    detail = f"A page may have {limit} regions at most (PARSEQ_MAX_REGIONS, and no more than PARSEQ_MAX_QUEUE_ITEMS)."
    return Problem(TOO_MANY_CROPS, f"{detail} Send the page again with the rest of them.")


def too_many_crops(limit: int) -> Problem:
    """The request carries too many crops; the detail names the limit and its setting."""
    return Problem(TOO_MANY_CROPS, f"A request may carry {limit} crops at most (PARSEQ_MAX_CROPS_PER_REQUEST).")
