"""The client for ordinary programs. It may be used by several threads at once."""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, Unpack

import httpx

from parseq_client import calls
from parseq_client.calls import Call, Parts, Reply, Send, Wait
from parseq_client.options import Options, query_of
from parseq_client.pictures import Image, Region, file_of
from parseq_client.results import Limits, Model, Result
from parseq_client.retries import Patience
from parseq_client.settings import ClientSettings

T = TypeVar("T")


class Client:
    """Asks a parseq-service.

    Args:
        url: Address of the service, with a path if it is below one: `http://localhost:8000`, `https://example.org/ocr`.
        api_key: Where the service wants one.
        timeout_s: For each call with all its attempts, also told to the service; of many crops for each request.
        attempts: How often a request is sent, at most, while the service is busy, restarts or cannot be reached; `None`: the
            time alone decides.
        connections: Requests in flight at once, at most.
        crops_per_request: Crops that go into one request, at most. The service's own limits hold besides.
        headers: Sent with each request.
        verify: As httpx has it: `False` trusts any certificate; or a context with certificates of your own.
        transport: Used instead of the network.
        sleep: Waits for a number of seconds.

    Raises:
        ValueError: One of these cannot be so.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        attempts: int | None = None,
        connections: int = 4,
        crops_per_request: int = 32,
        headers: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.settings = ClientSettings(url, api_key, timeout_s, attempts, connections, crops_per_request, headers or {}, verify)
        self._http = httpx.Client(**self.settings.of_http(), transport=transport)
        self._sleep = sleep
        self._limits: Limits | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def read(self, image: Image, *, timeout_s: float | None = None, **options: Unpack[Options]) -> Result:
        """Read one crop.

        Raises:
            CropError: It has no text, since it cannot be decoded, say.
            ParseqError: The service did not answer in time, or refused, as the subclasses say.
            OSError: The file cannot be read.
        """
        patience = self.settings.patience(timeout_s)
        return calls.single(self._run(calls.crops([file_of(image)], 0, query_of(options), patience)))

    def read_many(self, images: Iterable[Image], *, timeout_s: float | None = None, **options: Unpack[Options]) -> list[Result]:
        """Read many crops; a result for each, in their order, with a text or an error (see `read_each`)."""
        return list(self.read_each(images, timeout_s=timeout_s, **options))

    def read_each(
        self, images: Iterable[Image], *, timeout_s: float | None = None, **options: Unpack[Options]
    ) -> Iterator[Result]:
        """Read any number of crops, in requests of several, and give the results as they come, in the order of the crops.

        Only what is in flight is in memory: `images` is taken from as results are.

        Raises:
            ParseqError: A request as a whole failed; results before it have been given.
            OSError: A file cannot be read.
        """
        query = query_of(options)
        self.settings.patience(timeout_s)  # an impossible time is told at once
        return self._each(images, query, timeout_s)

    def _each(self, images: Iterable[Image], query: Mapping[str, str], timeout_s: float | None) -> Iterator[Result]:
        parts = Parts(self.limits(timeout_s=timeout_s), self.settings.crops_per_request)
        flying: deque[Future[list[Result]]] = deque()
        pool = ThreadPoolExecutor(self.settings.connections, thread_name_prefix="parseq-client")

        def send(first: int, files: list[bytes]) -> list[Result]:
            return self._run(calls.crops(files, first, query, self.settings.patience(timeout_s)))

        def full() -> Iterator[tuple[int, list[bytes]]]:
            for image in images:
                yield from parts.add(file_of(image))
            yield from parts.rest()

        try:
            for first, files in full():
                flying.append(pool.submit(send, first, files))
                if len(flying) > self.settings.connections:
                    yield from flying.popleft().result()
            while flying:
                yield from flying.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def read_regions(
        self,
        page: Image,
        regions: Sequence[Region | Sequence[Any]],
        *,
        timeout_s: float | None = None,
        **options: Unpack[Options],
    ) -> list[Result]:
        """Read regions of a page; a result for each, in their order.

        Args:
            page: The whole picture; it is sent once, or again for each further `max_regions` regions.
            regions: `Region`s; or boxes of four numbers, or quadrilaterals of four points, as detectors give them.
            timeout_s: For each request; default: that of the client.
            options: As for a crop.
        """
        file, query, wanted = file_of(page), query_of(options), calls.regions_of(regions)
        limits = self.limits(timeout_s=timeout_s) if wanted else Limits()
        found: list[Result] = []
        for first, some in calls.slices(wanted, limits):
            found += self._run(calls.regions(file, some, first, query, self.settings.patience(timeout_s)))
        return found

    def models(self, *, timeout_s: float | None = None) -> tuple[Model, ...]:
        """The models that are served, the default one first."""
        return self._run(calls.models(self.settings.patience(timeout_s)))

    def charset(self, model: Model, *, timeout_s: float | None = None) -> str:
        """All characters that a model can give."""
        return self._run(calls.charset(model, self.settings.patience(timeout_s)))

    def limits(self, *, timeout_s: float | None = None) -> Limits:
        """What a request may carry; asked for once."""
        if self._limits is None:
            listed = self.models(timeout_s=timeout_s)
            self._limits = listed[0].limits if listed else Limits()
        return self._limits

    def is_ready(self) -> bool:
        """Whether the service accepts requests now; it is asked once."""
        return calls.is_well(self._answer(calls.probe("/readyz")))

    def is_alive(self) -> bool:
        """Whether the service answers, and can do its work."""
        return calls.is_well(self._answer(calls.probe("/livez")))

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait for a service that starts.

        Raises:
            UnreachableError: It did not begin to listen in time.
            BusyError: It did not become ready in time.
        """
        self._run(calls.ready(Patience(timeout_s)))

    def _run(self, call: Call[T]) -> T:
        """Do what a call says, to its end."""
        reply: Reply = None
        try:
            while True:
                step = call.send(reply)
                if isinstance(step, Wait):
                    self._sleep(step.seconds)
                    reply = None
                else:
                    reply = self._answer(step)
        except StopIteration as end:
            result: T = end.value
            return result

    def _answer(self, send: Send) -> httpx.Response | httpx.TransportError:
        """The answer to one request, whole, or why there is none. A slow answer is given up at the deadline, too."""
        end_s = time.monotonic() + send.timeout_s
        arguments: dict[str, Any] = {"params": send.query, "headers": send.headers, "timeout": send.timeout_s}
        try:
            with self._http.stream(send.method, send.path, files=list(send.files) or None, **arguments) as answer:
                pieces = []
                for piece in answer.iter_bytes():
                    pieces.append(piece)
                    if time.monotonic() > end_s:
                        raise httpx.ReadTimeout("the answer came too slowly", request=answer.request)
                return calls.whole(answer, b"".join(pieces))
        except httpx.TransportError as error:
            return error
        except httpx.DecodingError as error:
            return httpx.RemoteProtocolError(str(error))
