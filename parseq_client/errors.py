"""What the client raises. Every error has the service's problem document, where there was an answer with one."""

from __future__ import annotations

from parseq_client.results import Problem


class ParseqError(Exception):
    """Something kept the service from reading; the message says what.

    Args:
        message: In words, for people.
        problem: The service's problem document; `None`: there was no answer, or it had none.
        request_id: Of the answer: the service's log lines have it.
    """

    def __init__(self, message: str, problem: Problem | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.request_id = request_id


class RequestError(ParseqError):
    """The service will not take this request, however often it is sent (4xx)."""


class UnauthorizedError(RequestError):
    """The API key is missing or not valid (401, 403)."""


class NotFoundError(RequestError):
    """There is no such model or address (404)."""


class CropError(RequestError):
    """The one picture that was to be read has no text; `problem` says why."""


class BusyError(ParseqError):
    """The service was busy or not ready (429, 503) until the time or the attempts were over."""


class ServerError(ParseqError):
    """The service failed (5xx), or what answers is no parseq-service."""


class DeadlineError(ParseqError):
    """The time was over before there was an answer."""


class UnreachableError(ParseqError):
    """No connection to the service, or none that lasted, until the time or the attempts were over."""
