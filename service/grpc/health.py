"""The standard health service, which load balancers and Kubernetes' probes ask.

Source: github.com/grpc/grpc, doc/health-checking.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from service.errors import Problem
from service.grpc.arrivals import Arrivals
from service.grpc.calls import code_of
from service.grpc.messages import CLASSES, SERVICE
from service.http.routes import Probe

SERVING: Final = 1
NOT_SERVING: Final = 2
SERVICE_UNKNOWN: Final = 3
LOOK_EVERY_S: Final = 1.0
"""At what is watched."""


class Health:
    """Its two methods. `liveness` is what `/livez` tells, any other service what `/readyz` does.

    Args:
        probe: Tells both.
        arrivals: Take the messages of calls.
    """

    def __init__(self, probe: Probe, arrivals: Arrivals) -> None:
        self._arrivals = arrivals

        def ready() -> bool:
            return probe.ready

        self._asked: dict[str, Callable[[], bool]] = {
            **dict.fromkeys(("", SERVICE, "readiness"), ready),
            "liveness": lambda: probe.alive,
        }
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Tell those who watch how things are now, and let them go."""
        self._ending.set()

    async def check(self, _requests: Any, context: Any) -> bytes:
        """How a service is now."""
        status = self._status(await self._service_of(context))
        if status == SERVICE_UNKNOWN:
            told = ", ".join(name for name in self._asked if name)
            await context.abort(grpc.StatusCode.NOT_FOUND, f"There is no such service; those there are: {told}.")
        return _response(status)

    async def watch(self, _requests: Any, context: Any) -> AsyncIterator[bytes]:
        """How a service is, now and whenever that changes."""
        service, before = await self._service_of(context), None
        while True:
            ending = self._ending.is_set()
            if (status := self._status(service)) != before:
                before = status
                yield _response(status)
            if ending:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), LOOK_EVERY_S)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "The server is stopping.")

    async def _service_of(self, context: Any) -> str:
        try:
            data, holding = await self._arrivals.take(None, context.read)  # whoever asks: all are one client
            self._arrivals.release(holding)
            service: str = CLASSES["HealthCheckRequest"].FromString(data).service
        except Problem as problem:
            await context.abort(code_of(problem.status), problem.detail)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The message is no HealthCheckRequest.")
        return service

    def _status(self, service: str) -> int:
        asked = self._asked.get(service)
        return SERVICE_UNKNOWN if asked is None else SERVING if asked() else NOT_SERVING


def _response(status: int) -> bytes:
    message: bytes = CLASSES["HealthCheckResponse"](status=status).SerializeToString()
    return message
