"""The ASGI app: requests of a dialect pass the gates to the endpoint, all others to FastAPI."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Protocol

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from service import __version__, errors
from service.config import Settings
from service.core.host import Host
from service.errors import Problem
from service.http import openapi, server_span
from service.http.bodies.body import Body
from service.http.dialects.dialect import Dialect, Dialects
from service.http.dialects.instances import Instances
from service.http.dialects.open_inference.infer import INFER_PATH, OpenInference
from service.http.dialects.open_inference.schemas import COMPONENTS
from service.http.dialects.v1 import V1
from service.http.dialects.v1_regions import V1Regions
from service.http.docs_page import add_docs
from service.http.endpoint import Endpoint
from service.http.gates import Gate
from service.http.gates.api_keys import ApiKeys, KeyGate
from service.http.gates.client_address import ClientAddresses
from service.http.gates.doorman import Doorman
from service.http.gates.model_choice import ModelChoice
from service.http.gates.request_ids import RequestIds
from service.http.head import HEAD_KEY, Head
from service.http.open_inference_routes import infer_operation, open_inference_router
from service.http.problems import GUARDS, REQUEST_ID_HEADER, Answer, Problems, invalid_request, problem_document
from service.http.request_observer import RequestObserver, ServerSpan
from service.http.routes import build_router

DIALECT_KEY: Final = "parseq.dialect"
"""Where in the scope of a request its dialect is left; `None`: it is no recognition request."""
DESCRIPTION: Final = "Reads the word on an image. Errors are RFC 9457 problem documents."


class Companion(Protocol):
    """A server beside the app, with the same gates and counters."""

    async def start(self) -> None:
        """Take requests."""
        ...

    async def stop(self) -> None:
        """Take no more, and wait for those in flight. Returns when that is done, also if it was asked before."""
        ...

    async def drop(self) -> None:
        """Wait for nothing: those in flight are lost."""
        ...


class App:
    """The ASGI app of one runtime, which it starts and stops by its lifespan.

    Args:
        runtime: Not started.
        dialects: That are spoken; `None`: the service's own.
    """

    def __init__(self, runtime: Host, dialects: Sequence[Dialect] | None = None) -> None:
        settings, metrics, models = runtime.settings, runtime.metrics, runtime.models
        self._max_body_bytes = settings.max_body_bytes
        self._dialects = Dialects(_usual(settings) if dialects is None else dialects)
        self.problems = Problems(metrics)
        self.ids = RequestIds(None if runtime.tracing is None else runtime.tracing.sampler)
        self.addresses = ClientAddresses(settings.trusted_proxies)
        self.api_keys = ApiKeys(settings.api_keys_file) if settings.api_keys_file else None
        self._gates: list[Gate] = [
            self.ids,
            *([KeyGate(self.api_keys, self._wants_key)] if self.api_keys else []),
            self.addresses,
            ModelChoice(models),
            Doorman(settings),
        ]
        """In the order in which a request passes them: without a key a client learns nothing, not even how busy it is."""
        self.observer = RequestObserver(metrics, runtime.tracing)
        self.endpoint = Endpoint(models, settings, metrics, self.problems)
        self.companions: list[Companion] = []
        """Servers of other transports: started after the runtime, and stopped before it."""
        self.api = _new_api(runtime, self.companions)
        self.api.include_router(build_router(models, settings, runtime, runtime.scrape))
        self.api.include_router(open_inference_router(models, runtime))
        for path in self._dialects.paths:  # FastAPI never sees a POST here, but answers other methods with 405
            self.api.router.routes.append(Route(path, self, methods=["POST"], include_in_schema=False))
        openapi.install(self.api, {INFER_PATH: infer_operation()}, COMPONENTS)
        add_docs(self.api)
        _handle_errors(self.api, self._respond)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        head: Head | None = scope.get(HEAD_KEY)
        if head is None or not head.passed:  # the server has not asked
            if (answer := self.refuse(scope)) is not None:
                await answer.send(scope[HEAD_KEY], send)
                return
            head = scope[HEAD_KEY]
        dialect: Dialect | None = scope[DIALECT_KEY]
        if dialect is not None:
            body = Body(scope, receive, head.content_length, self._max_body_bytes)
            sent = partial(Answer.send, head=head, send=send)
            await self.observer.observe(head, self.endpoint.answer(dialect, head, body), sent, self._span_of)
        else:
            await self._pass_on(head, scope, receive, send)

    def refuse(self, scope: Scope) -> Answer | None:
        """What the gates say to a request, by its head alone; `None`: it has passed them, and the app is to be called.

        The HTTP server asks as soon as a head is complete, and needs no task to refuse: under overload most requests are
        refused, and every refusal takes time from requests that are read.

        Args:
            scope: The ASGI scope of the request; its head stays in it, with what the gates have found out.
        """
        head: Head | None = scope.get(HEAD_KEY)
        if head is None:
            head = scope[HEAD_KEY] = Head(scope)
        dialect = self._dialects.of(head.path) if head.method == "POST" else None
        scope[DIALECT_KEY] = dialect
        started_s = time.monotonic()
        if dialect is not None:
            head.announced = dialect.announce(head)
        for gate in self._gates:
            if (problem := gate.check(head)) is not None:
                answer = self.problems.answer(problem, self._word(head.path) if dialect is None else dialect.problem)
                if dialect is not None:
                    self.observer.ended(head, started_s, answer.status, self._span_of)
                return answer
        head.passed = True
        return None

    def _span_of(self, head: Head, status: int) -> ServerSpan:
        return server_span.span_of(head, self._dialects.route_of(head.path), status)

    async def _pass_on(self, head: Head, scope: Scope, receive: Receive, send: Send) -> None:
        """Have FastAPI answer; HEAD is answered as GET, with the length, but without the body."""
        is_head, request_id = head.method == "HEAD", head.context.request_id.encode("ascii")

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID_HEADER, request_id), *GUARDS]
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        await self.api({**scope, "method": "GET"} if is_head else scope, receive, send_marked)

    def _wants_key(self, path: str) -> bool:
        dialects = self._dialects
        return path.startswith("/v1/") or (path not in dialects.probes and dialects.around(path) is not None)

    def _word(self, path: str) -> Callable[[Problem], Answer]:
        """The function that words problems at this path."""
        dialect = self._dialects.around(path)
        return problem_document if dialect is None else dialect.problem

    def _respond(self, problem: Problem, path: str) -> Response:
        """The answer to a request that FastAPI has refused or failed on, worded as the path's dialect words it."""
        answer = self.problems.answer(problem, self._word(path))
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
        return Response(answer.body, answer.status, headers, answer.media_type)


def _usual(settings: Settings) -> Sequence[Dialect]:
    return V1(settings), V1Regions(settings), OpenInference(settings), Instances(settings)


def _new_api(runtime: Host, companions: Sequence[Companion]) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        runtime.start()
        try:
            for companion in companions:
                await companion.start()
            yield
        finally:
            runtime.drain()
            await asyncio.gather(*[companion.stop() for companion in companions])
            await runtime.stop()

    return FastAPI(
        title="PARSeq word recognition",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # replaced by `docs_page`, which loads nothing from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )


def _handle_errors(app: FastAPI, respond: Callable[[Problem, str], Response]) -> None:
    @app.exception_handler(Problem)
    async def known(request: Request, problem: Problem) -> Response:
        return respond(problem, request.scope["path"])

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return respond(invalid_request(error.errors()), request.scope["path"])

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return respond(_from_http(request, error), request.scope["path"])

    @app.exception_handler(Exception)
    async def unknown(request: Request, _error: Exception) -> Response:
        # The server logs the traceback; the client learns only that it was not the request's fault.
        return respond(Problem(errors.INTERNAL, "The server failed on this request."), request.scope["path"])


def _from_http(request: Request, error: HTTPException) -> Problem:
    if error.status_code == errors.NOT_FOUND.status:
        return Problem(errors.NOT_FOUND, "There is nothing at this path; /docs lists the endpoints.")
    if error.status_code == errors.METHOD_NOT_ALLOWED.status:
        detail = f"This path does not take {request.method}."
        allowed = {"Allow": "GET, HEAD"} if "GET" in (error.headers or {}).get("Allow", "") else error.headers
        return Problem(errors.METHOD_NOT_ALLOWED, detail, headers=allowed)
    return Problem(errors.OTHER_HTTP_ERROR, "The request was refused.", headers=error.headers, status=error.status_code)
