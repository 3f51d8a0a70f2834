"""The ASGI app: endpoints, middleware, and the one place where exceptions become problem documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service import __version__, errors, openapi
from service.bodies import invalid_request
from service.errors import Problem
from service.middleware import BodyLimit, Measure
from service.recognizer import ClientLeftError
from service.routes import build_router
from service.runtime import Runtime

DESCRIPTION = "Reads the word on an image. Errors are RFC 9457 problem documents."


def build_app(runtime: Runtime) -> FastAPI:
    """The app of one runtime; its lifespan starts and stops the runtime."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        runtime.start()
        try:
            yield
        finally:
            await runtime.stop()

    app = FastAPI(
        title="PARSeq word recognition",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
    )
    app.include_router(build_router(runtime))
    openapi.install(app)
    _handle_errors(app, _counted(runtime))
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, max_body_bytes=runtime.settings.max_body_bytes)
    app.add_middleware(Measure, metrics=runtime.metrics)
    return app


def _counted(runtime: Runtime) -> Callable[[Problem], Response]:
    def respond(problem: Problem) -> Response:
        runtime.metrics.problems.labels(problem.kind.slug).inc()
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

    @app.exception_handler(ClientLeftError)
    @app.exception_handler(ClientDisconnect)
    async def left(_request: Request, _error: Exception) -> Response:
        return Response(status_code=errors.CLIENT_CLOSED_REQUEST)

    @app.exception_handler(Exception)
    async def unknown(_request: Request, _error: Exception) -> Response:
        # The traceback goes to the log, by way of the server; the client learns only that it was not their fault.
        return respond(Problem(errors.INTERNAL, "The server failed on this request."))


def _from_http(request: Request, error: HTTPException) -> Problem:
    if error.status_code == errors.NOT_FOUND.status:
        return Problem(errors.NOT_FOUND, "There is nothing at this path; /docs lists the endpoints.")
    if error.status_code == errors.METHOD_NOT_ALLOWED.status:
        detail = f"This path does not take {request.method}."
        return Problem(errors.METHOD_NOT_ALLOWED, detail, headers=error.headers)
    return Problem(errors.OTHER_HTTP_ERROR, "The request was refused.", headers=error.headers, status=error.status_code)
