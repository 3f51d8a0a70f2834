"""The client for programs of asyncio."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
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


class AsyncClient:
    """Asks a parseq-service; arguments, results and errors are those of `Client`, which says more of each method.

    Args:
        url: Address of the service, with a path if it is below one.
        api_key: Where the service wants one.
        timeout_s: For each call with all its attempts, also told to the service; of many crops for each request.
        attempts: How often a request is sent, at most; `None`: the time alone decides.
        connections: Requests in flight at once, at most.
        crops_per_request: Crops that go into one request, at most.
        headers: Sent with each request.
        verify: As httpx has it.
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
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.settings = ClientSettings(url, api_key, timeout_s, attempts, connections, crops_per_request, headers or {}, verify)
        self._http = httpx.AsyncClient(**self.settings.of_http(), transport=transport)
        self._room = asyncio.Semaphore(connections)
        self._sleep = sleep
        self._limits: Limits | None = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def read(self, image: Image, *, timeout_s: float | None = None, **options: Unpack[Options]) -> Result:
        """Read one crop."""
        patience = self.settings.patience(timeout_s)
        return calls.single(await self._run(calls.crops([file_of(image)], 0, query_of(options), patience)))

    async def read_many(
        self,
        images: Iterable[Image] | AsyncIterable[Image],
        *,
        timeout_s: float | None = None,
        **options: Unpack[Options],
    ) -> list[Result]:
        """Read many crops; a result for each, in their order, with a text or an error."""
        return [result async for result in self.read_each(images, timeout_s=timeout_s, **options)]

    def read_each(
        self,
        images: Iterable[Image] | AsyncIterable[Image],
        *,
        timeout_s: float | None = None,
        **options: Unpack[Options],
    ) -> AsyncIterator[Result]:
        """Read any number of crops, in requests of several, and give the results as they come, in the order of the crops."""
        query = query_of(options)
        self.settings.patience(timeout_s)  # an impossible time is told at once
        return self._each(images, query, timeout_s)

    async def _each(
        self, images: Iterable[Image] | AsyncIterable[Image], query: Mapping[str, str], timeout_s: float | None
    ) -> AsyncIterator[Result]:
        parts = Parts(await self.limits(timeout_s=timeout_s), self.settings.crops_per_request)
        flying: deque[asyncio.Task[list[Result]]] = deque()

        async def send(first: int, files: list[bytes]) -> list[Result]:
            return await self._run(calls.crops(files, first, query, self.settings.patience(timeout_s)))

        async def full() -> AsyncIterator[tuple[int, list[bytes]]]:
            async for image in _each_of(images):
                for part in parts.add(await asyncio.to_thread(file_of, image)):
                    yield part
            for part in parts.rest():
                yield part

        try:
            async for first, files in full():
                flying.append(asyncio.create_task(send(first, files)))
                if len(flying) > self.settings.connections:
                    for result in await flying.popleft():
                        yield result
            while flying:
                for result in await flying.popleft():
                    yield result
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)

    async def read_regions(
        self,
        page: Image,
        regions: Sequence[Region | Sequence[Any]],
        *,
        timeout_s: float | None = None,
        **options: Unpack[Options],
    ) -> list[Result]:
        """Read regions of a page; a result for each, in their order."""
        file, query, wanted = file_of(page), query_of(options), calls.regions_of(regions)
        limits = await self.limits(timeout_s=timeout_s) if wanted else Limits()
        found: list[Result] = []
        for first, some in calls.slices(wanted, limits):
            found += await self._run(calls.regions(file, some, first, query, self.settings.patience(timeout_s)))
        return found

    async def models(self, *, timeout_s: float | None = None) -> tuple[Model, ...]:
        """The models that are served, the default one first."""
        return await self._run(calls.models(self.settings.patience(timeout_s)))

    async def charset(self, model: Model, *, timeout_s: float | None = None) -> str:
        """All characters that a model can give."""
        return await self._run(calls.charset(model, self.settings.patience(timeout_s)))

    async def limits(self, *, timeout_s: float | None = None) -> Limits:
        """What a request may carry; asked for once."""
        if self._limits is None:
            listed = await self.models(timeout_s=timeout_s)
            self._limits = listed[0].limits if listed else Limits()
        return self._limits

    async def is_ready(self) -> bool:
        """Whether the service accepts requests now; it is asked once."""
        return calls.is_well(await self._answer(calls.probe("/readyz")))

    async def is_alive(self) -> bool:
        """Whether the service answers, and can do its work."""
        return calls.is_well(await self._answer(calls.probe("/livez")))

    async def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait for a service that starts."""
        await self._run(calls.ready(Patience(timeout_s)))

    async def _run(self, call: Call[T]) -> T:
        """Do what a call says, to its end."""
        reply: Reply = None
        try:
            while True:
                step = call.send(reply)
                if isinstance(step, Wait):
                    await self._sleep(step.seconds)
                    reply = None
                else:
                    reply = await self._answer(step)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _answer(self, send: Send) -> httpx.Response | httpx.TransportError:
        """The answer to one request, whole, or why there is none; the wait for a free connection counts."""
        arguments: dict[str, Any] = {"params": send.query, "headers": send.headers, "timeout": send.timeout_s}
        try:
            async with asyncio.timeout(send.timeout_s), self._room:
                return await self._http.request(send.method, send.path, files=list(send.files) or None, **arguments)
        except TimeoutError:
            return httpx.ReadTimeout("no answer in time")
        except httpx.TransportError as error:
            return error
        except httpx.DecodingError as error:
            return httpx.RemoteProtocolError(str(error))


async def _each_of(images: Iterable[Image] | AsyncIterable[Image]) -> AsyncIterator[Image]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image
