"""What a call does, apart from sending and waiting: generators that say what to do next, and are told what came of it.

So both clients are the same: each has a loop that sends and waits in its own way.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import httpx

from parseq_client.errors import (
    BusyError,
    CropError,
    DeadlineError,
    NotFoundError,
    ParseqError,
    RequestError,
    ServerError,
    UnauthorizedError,
    UnreachableError,
)
from parseq_client.pictures import Region
from parseq_client.results import Limits, Model, Problem, Result
from parseq_client.retries import AGAIN, BUSY, Patience, retry_after_s

T = TypeVar("T")

TOO_LARGE: Final = 413
OF_A_CROP: Final = BUSY | {504}
"""Statuses of a crop that was not read for want of time or room, though the request was answered."""
PROBE_S: Final = 5.0
FORM_BYTES: Final = 512
"""About what a form has around one file."""


@dataclass(frozen=True, slots=True)
class Send:
    """A request to be sent, within a time; an `httpx.Response` or `httpx.TransportError` is given back."""

    method: str
    path: str
    timeout_s: float
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[tuple[str, tuple[str | None, bytes]]] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause, in seconds; nothing is given back."""

    seconds: float


Reply = httpx.Response | httpx.TransportError | None
Call = Generator[Send | Wait, Reply, T]


def ask(request: Send, patience: Patience) -> Call[Mapping[str, Any]]:
    """Send a request until it is answered with success; returns its JSON.

    Raises:
        ParseqError: As its subclasses say.
    """
    while True:
        if patience.is_over:
            raise DeadlineError(f"{patience.timeout_s:g} s were over before there was an answer")
        timeout_s = patience.left_s
        headers = {**request.headers, "X-Request-Timeout-Ms": str(int(timeout_s * 1000))}
        patience.sent += 1
        reply = yield Send(request.method, request.path, timeout_s, request.query, headers, request.files)
        if isinstance(reply, httpx.Response) and reply.is_success:
            return _json(reply)
        failure, wished_s = _failure(reply, patience)
        pause_s = patience.pause_s(wished_s) if _may_do_better(reply) else None
        if pause_s is None:
            raise failure
        yield Wait(pause_s)


def _may_do_better(reply: Reply) -> bool:
    if isinstance(reply, httpx.Response):
        return reply.status_code in AGAIN
    cause: BaseException | None = reply
    while cause is not None:
        # A certificate that is not trusted stays so, and so does an address of another protocol.
        if isinstance(cause, ssl.SSLCertVerificationError | httpx.UnsupportedProtocol):
            return False
        cause = cause.__cause__ or cause.__context__
    return True


def _failure(reply: Reply, patience: Patience) -> tuple[ParseqError, float | None]:
    """The error that a reply is, should it be the last one, and after how many seconds the service wants to be asked again."""
    if not isinstance(reply, httpx.Response):
        if isinstance(reply, httpx.TimeoutException) and patience.is_over:
            return DeadlineError(f"no answer within {patience.timeout_s:g} s"), None
        tries = f"{patience.sent} attempts" if patience.sent > 1 else "one attempt"
        return UnreachableError(f"no answer from {_address(reply)} in {tries}: {reply or type(reply).__name__}"), None
    problem, status = _problem(reply), reply.status_code
    by_status = {401: UnauthorizedError, 403: UnauthorizedError, 404: NotFoundError, 504: DeadlineError}
    kind: type[ParseqError] = by_status.get(status) or (
        BusyError if status in BUSY else RequestError if 400 <= status < 500 else ServerError
    )
    what = f"{problem.title}. {problem.detail}" if problem else reply.reason_phrase
    return kind(f"{status}: {what}".strip(), problem, reply.headers.get("X-Request-Id")), retry_after_s(
        reply.headers.get("Retry-After")
    )


def _address(error: httpx.TransportError | None) -> str:
    try:
        url = error.request.url if error else None
    except RuntimeError:  # it was not told which request had failed
        url = None
    return f"{url.scheme}://{url.netloc.decode()}" if url else "the service"


def _problem(reply: httpx.Response) -> Problem | None:
    try:
        document = reply.json()
        return Problem.of(document) if isinstance(document, dict) and "title" in document else None
    except (ValueError, TypeError):
        return None


def _json(reply: httpx.Response) -> Mapping[str, Any]:
    try:
        document = reply.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ServerError(f"{reply.url} did not answer as a parseq-service does", request_id=reply.headers.get("X-Request-Id"))
    return document


def models(patience: Patience) -> Call[tuple[Model, ...]]:
    """The models that are served."""
    document = yield from ask(Send("GET", "/v1/models", 0), patience)
    try:
        return tuple(Model.of(each) for each in document["models"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ServerError("the list of models is not one of a parseq-service") from None


def charset(model: Model, patience: Patience) -> Call[str]:
    """All characters that a model can give, asked for where the list of models leaves them out."""
    if model.charset is not None:
        return model.charset
    document = yield from ask(Send("GET", f"/v1/{model.charset_url}", 0), patience)
    return str(document["charset"])


def ready(patience: Patience) -> Call[None]:
    """Wait until the service is ready."""
    yield from ask(Send("GET", "/readyz", 0), patience)


def crops(files: Sequence[bytes], first: int, query: Mapping[str, str], patience: Patience) -> Call[list[Result]]:
    """Read crops in one request, or in several where the service finds it too large.

    Args:
        files: Image files.
        first: The id of the first result; the others count on.
        query: Of the request.
        patience: For all of it.
    """
    ids = [str(first + number) for number in range(len(files))]
    pictures = dict(zip(ids, files, strict=True))

    def request(wanted: Sequence[str]) -> Send:
        return Send("POST", "/v1/recognize", 0, query, files=[("file", (id_, pictures[id_])) for id_ in wanted])

    return (yield from _read(ids, request, patience))


def regions(
    page: bytes, wanted: Sequence[Region], first: int, query: Mapping[str, str], patience: Patience
) -> Call[list[Result]]:
    """Read regions of a page in one request, or in several where the service finds it too large.

    Args:
        page: Image file.
        wanted: Regions, at least one.
        first: The id of the first region that has none; the others count on.
        query: Of the request.
        patience: For all of it.
    """
    places = [str(first + number) for number in range(len(wanted))]
    members = {place: region.members() for place, region in zip(places, wanted, strict=True)}

    def request(some: Sequence[str]) -> Send:
        listed = json.dumps([members[place] for place in some]).encode()
        # The regions are a field of the form, not a file.
        files = [("file", ("page", page)), ("regions", (None, listed))]
        return Send("POST", "/v1/regions", 0, {key: value for key, value in query.items() if key != "list"}, files=files)

    found = yield from _read(places, request, patience)
    return [_renamed(result, region.id) for result, region in zip(found, wanted, strict=True)]


def _renamed(result: Result, id_: str | None) -> Result:
    return result if id_ is None else replace(result, id=id_)


def _read(ids: Sequence[str], request: Callable[[Sequence[str]], Send], patience: Patience) -> Call[list[Result]]:
    """Results in the order of `ids`; those that were not read for want of time or room are asked for again."""
    found: dict[str, Result] = {}
    waiting: list[list[str]] = [list(ids)]
    while waiting:
        part = waiting.pop()
        try:
            answer = yield from ask(request(part), patience)
        except RequestError as error:
            if error.problem is None or error.problem.status != TOO_LARGE:
                raise
            if len(part) == 1:
                found[part[0]] = Result(part[0], error=error.problem)
            else:
                waiting += [part[len(part) // 2 :], part[: len(part) // 2]]
                patience.sent = 0  # smaller requests are other requests
            continue
        found |= _results(part, answer)
        unread = [id_ for id_ in part if _was_not_reached(found[id_])]
        if unread and (pause_s := patience.pause_s(None)) is not None:
            yield Wait(pause_s)
            waiting.append(unread)
        else:
            patience.sent = 0
    return [found[id_] for id_ in ids]


def _was_not_reached(result: Result) -> bool:
    return result.error is not None and result.error.status in OF_A_CROP


def _results(ids: Sequence[str], answer: Mapping[str, Any]) -> dict[str, Result]:
    try:
        return {id_: Result.of(id_, each, answer) for id_, each in zip(ids, answer["results"], strict=True)}
    except (KeyError, TypeError, ValueError):
        raise ServerError(f"the answer does not have {len(ids)} results as a parseq-service gives them") from None


class Parts:
    """Files that come one after the other, gathered into parts that fit into one request.

    Args:
        limits: Of the service.
        crops_per_request: Files in a part, at most.
    """

    def __init__(self, limits: Limits, crops_per_request: int) -> None:
        self._most = max(1, min(crops_per_request, limits.max_crops_per_request))
        self._room_bytes = limits.max_body_bytes
        self._files: list[bytes] = []
        self._size_bytes = 0
        self._first = 0

    def add(self, file: bytes) -> Iterator[tuple[int, list[bytes]]]:
        """Add a file; gives the part that is full, if one is: the position of its first file, and its files."""
        if self._files and self._size_bytes + len(file) + FORM_BYTES > self._room_bytes:
            yield from self.rest()
        self._files.append(file)
        self._size_bytes += len(file) + FORM_BYTES
        if len(self._files) == self._most:
            yield from self.rest()

    def rest(self) -> Iterator[tuple[int, list[bytes]]]:
        """What is left, if anything is."""
        if self._files:
            part = self._first, self._files
            self._first += len(self._files)
            self._files, self._size_bytes = [], 0
            yield part


def single(results: Sequence[Result]) -> Result:
    """The one result of a call for one crop.

    Raises:
        CropError: It has no text.
        DeadlineError: It was not read in time.
    """
    [result] = results
    if (problem := result.error) is None:
        return result
    kind = DeadlineError if problem.status == 504 else BusyError if problem.status in BUSY else CropError
    raise kind(f"{problem.title}. {problem.detail}", problem)


def regions_of(wanted: Sequence[Region | Sequence[Any]]) -> list[Region]:
    """Regions of what a detector gave: those as they are, boxes as four numbers, quadrilaterals as four pairs."""
    return [
        each if isinstance(each, Region) else Region(points=each) if hasattr(each[0], "__len__") else Region(box=each)
        for each in wanted
    ]


def slices(wanted: Sequence[Region], limits: Limits) -> list[tuple[int, Sequence[Region]]]:
    """Regions, as many at once as a request may have, each with the position of the first."""
    return [(first, wanted[first : first + limits.max_regions]) for first in range(0, len(wanted), limits.max_regions)]


def probe(path: str) -> Send:
    """A question whose answer should be quick."""
    return Send("GET", path, PROBE_S)


def is_well(reply: Reply) -> bool:
    """Whether a probe was answered with success."""
    return isinstance(reply, httpx.Response) and reply.is_success


def whole(answer: httpx.Response, content: bytes) -> httpx.Response:
    """An answer whose body was read piece by piece, and is decompressed already."""
    headers = [(name, value) for name, value in answer.headers.multi_items() if name.lower() != "content-encoding"]
    return httpx.Response(answer.status_code, headers=headers, content=content, request=answer.request)
