"""The ASGI app: the way to the recognition endpoint and to all others, whose exceptions become problem documents here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import __version__, errors
from service.core.runtime import Runtime
from service.errors import Problem
from service.http import openapi
from service.http.bodies.parse import invalid_request
from service.http.docs_page import add_docs
from service.http.endpoint import RECOGNIZE_PATHS, RecognizeEndpoint
from service.http.gates.api_keys import ApiKeys
from service.http.gates.client_address import ClientAddresses
from service.http.gates.doorman import Doorman
from service.http.gates.request_ids import CLIENT_KEY, RequestIds
from service.http.routes import build_router

DESCRIPTION = "Reads the word on an image. Errors are RFC 9457 problem documents."


class App:
    """The ASGI app of one runtime: recognition goes past the doorman to its endpoint, all else through FastAPI (`api`).

    The lifespan starts and stops the runtime.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._keys = ApiKeys(runtime.settings.api_keys_file) if runtime.settings.api_keys_file else None
        self._addresses = ClientAddresses(runtime.settings.trusted_proxies)
        self._metrics = runtime.metrics
        self._doorman = Doorman(lambda: runtime.models.default.engine, runtime.settings, runtime.metrics)
        self._recognize = RecognizeEndpoint(runtime)
        self.api = _build_api(runtime, self._recognize)
        self._serve = RequestIds(self._dispatch)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        # Before the doorman: who has no key learns nothing, not even that the server is busy.
        client: Hashable = None
        if self._keys is not None and _wants_key(scope):
            try:
                client = self._keys.check(dict(scope["headers"]))
            except Problem as problem:
                await RequestIds(self._turn_away(problem, scope))(scope, receive, send)
                return
        if _asks_to_recognize(scope):
            if client is None and (peer := scope.get("client")) is not None:  # a socket in the file system has no address
                client = self._addresses.client_of(peer[0], scope["headers"])
            scope[CLIENT_KEY] = client
            if await self._doorman.refuses(scope, send):
                return
        await self._serve(scope, receive, send)

    def _turn_away(self, problem: Problem, scope: Scope) -> ASGIApp:
        self._metrics.problem_told(problem.kind.slug)
        if _asks_to_recognize(scope):
            self._metrics.request_ended(problem.status, 0.0)
        return problem.response()

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _asks_to_recognize(scope):
            await self._recognize(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "HEAD":
            await self.api({**scope, "method": "GET"}, receive, _without_body(send))
        else:
            await self.api(scope, receive, send)


def _without_body(send: Send) -> Send:
    """For HEAD: the answer to GET, its length included, but for the body."""

    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head


def _asks_to_recognize(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in RECOGNIZE_PATHS


def _wants_key(scope: Scope) -> bool:
    return scope["type"] == "http" and (scope["path"].startswith("/v1/") or scope["path"] in RECOGNIZE_PATHS)


def _build_api(runtime: Runtime, recognize: RecognizeEndpoint) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        runtime.start()
        try:
            yield
        finally:
            await runtime.stop()

    api = FastAPI(
        title="PARSeq word recognition",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # a page of our own, which needs nothing from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    api.include_router(build_router(runtime))
    for path in RECOGNIZE_PATHS:  # other methods end here, and get their 405
        api.router.routes.append(Route(path, recognize, methods=["POST"], include_in_schema=False))
    openapi.install(api)
    add_docs(api)
    _handle_errors(api, _counted(runtime))
    return api


def _counted(runtime: Runtime) -> Callable[[Problem], Response]:
    def respond(problem: Problem) -> Response:
        runtime.metrics.problem_told(problem.kind.slug)
        return problem.response()

    return respond


def _handle_errors(app: FastAPI, respond: Callable[[Problem], Response]) -> None:
    @app.exception_handler(Problem)
    async def known(_request: Request, problem: Problem) -> Response:
        return respond(problem)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        return respond(invalid_request(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return respond(_from_http(request, error))

    @app.exception_handler(Exception)
    async def unknown(_request: Request, _error: Exception) -> Response:
        # The traceback goes to the log, by way of the server; the client learns only that it was not their fault.
        return respond(Problem(errors.INTERNAL, "The server failed on this request."))


def _from_http(request: Request, error: HTTPException) -> Problem:
    if error.status_code == errors.NOT_FOUND.status:
        return Problem(errors.NOT_FOUND, "There is nothing at this path; /docs lists the endpoints.")
    if error.status_code == errors.METHOD_NOT_ALLOWED.status:
        detail = f"This path does not take {request.method}."
        allowed = {"Allow": "GET, HEAD"} if "GET" in (error.headers or {}).get("Allow", "") else error.headers
        return Problem(errors.METHOD_NOT_ALLOWED, detail, headers=allowed)
    return Problem(errors.OTHER_HTTP_ERROR, "The request was refused.", headers=error.headers, status=error.status_code)
