"""A connection without a socket: bytes go to the HTTP protocol of the service, and what it writes is kept."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from service.core.runtime import Runtime
from service.serving import uvicorn_config

ROOT = Path(__file__).parents[1]
OURS = tuple(f"{ROOT / name}/" for name in ("service", "artifact"))
RESUMED = CO_COROUTINE | CO_GENERATOR | CO_ASYNC_GENERATOR
UNNAMED = ("<listcomp>", "<dictcomp>", "<setcomp>")
"""Frames that only some versions of Python have."""


class Wire(asyncio.Transport):
    """The server's end of a connection whose client takes all that is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 50000), "sockname": ("192.0.2.2", 8000)})
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    abort = pause_reading = resume_reading = close


class Connection:
    """One that is kept alive."""

    def __init__(self, config: uvicorn.Config) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        protocol: Any = config.http_protocol_class
        self._protocol = protocol(config=config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop())
        self._wire = Wire()
        self._protocol.connection_made(self._wire)

    async def ask(self, request: bytes) -> bytes:
        """Send one request at once; returns when it has been answered."""
        self.tell(request)
        await asyncio.gather(*self._protocol.tasks)
        return self._wire.written

    def tell(self, part: bytes) -> None:
        """Send a part of a request; what is answered to it at once is `written`."""
        self._wire.written = b""
        self._protocol.data_received(part)

    def another(self) -> Connection:
        """One more connection to the same server."""
        return Connection(self._config)

    @property
    def n_tasks(self) -> int:
        """Requests that the app has not finished."""
        return len(self._protocol.tasks)

    @property
    def written(self) -> bytes:
        """Since the last request."""
        return self._wire.written

    def close(self) -> None:
        self._protocol.connection_lost(None)


@asynccontextmanager
async def connected(runtime: Runtime) -> AsyncIterator[Connection]:
    """A connection to a server of this runtime, which is ready."""
    config = uvicorn_config(runtime.settings, runtime)
    app: Any = config.app
    async with app.api.router.lifespan_context(app.api):
        await runtime.warmed_up()
        connection = Connection(config)
        yield connection
        connection.close()


class Calls:
    """Counts calls of our own functions, in all threads that were started since. A coroutine or generator counts once, however
    often it is resumed; comprehensions do not count."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._resumable: set[FrameType] = set()

    def reset(self) -> None:
        self.counts.clear()
        self._resumable.clear()

    def see(self, frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(OURS) or code.co_name in UNNAMED:
            return
        if code.co_flags & RESUMED:
            if frame in self._resumable:
                return
            self._resumable.add(frame)
        self.counts[f"{code.co_filename.removeprefix(f'{ROOT}/')}: {code.co_qualname}"] += 1


@contextmanager
def counting() -> Iterator[Calls]:
    """Count from now on."""
    calls = Calls()
    threading.setprofile(calls.see)
    sys.setprofile(calls.see)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # which is how it is undone
