"""uvicorn's HTTP protocol, with patience that ends, upgrades that are ignored, answers in one piece and problem documents also
for what is no HTTP.

What the app sees of it: `scope[ARRIVAL_PROBLEM]` says why the rest of a body will not come; whoever waits for it is woken.
"""

from __future__ import annotations

import asyncio
import http
import logging
from typing import Final, NoReturn

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.bodies import ARRIVAL_PROBLEM
from service.config import Settings
from service.connection_limit import ConnectionLimit
from service.errors import (
    HEAD_TOO_LARGE,
    MALFORMED_REQUEST,
    PROBLEM_MEDIA_TYPE,
    REQUEST_TIMEOUT,
    TOO_MANY_CONNECTIONS,
    Problem,
)
from service.logs import CONTEXT_KEY
from service.metrics import Metrics
from service.request_context import GUARDS, REQUEST_ID_HEADER, context_of
from service.whole_answers import WholeAnswers

READ_BYTES: Final = 2**18
"""What uvloop receives at once, at most. A head that does not end is counted by what was received since it began, which may
include so much of the request before."""
SURPLUS_PATIENCE_S: Final = 1.0
"""How long a connection too many may take to ask."""
PROBES: Final = (b"/livez", b"/readyz", b"/metrics")
"""Answered on any connection: who floods the server must not get it restarted too."""
_UPGRADE_TOKENS: Final = (b"upgrade", b"http2-settings")

logger = logging.getLogger(__name__)


class HttpProtocol(HttpToolsProtocol):
    """One connection. It is idle, or a request arrives, or one is being answered; only the last has no time-out here.

    An idle connection is closed after the keep-alive time, also before its first request. A request has `receive_timeout_s`
    to arrive in, from its first byte to its last; that includes a body which comes after its answer and is thrown away.
    A request that is there all at once, as most are, costs no timer.

    Of too many connections one that is idle is closed. When none is, the new one may only ask the probes, once.
    """

    metrics: Metrics
    receive_timeout_s: float
    max_head_bytes: int
    max_headers: int
    limit: ConnectionLimit
    _surplus = False
    """Whether there was no room for this connection."""
    _receive_timer: asyncio.TimerHandle | None = None
    _arriving = False
    """Whether a request has begun and is not complete."""
    _head_bytes = 0
    """Received since it has begun, while its head is not complete."""
    _counted_bytes = 0
    """Of its path and headers, so far."""
    _head_problem: Problem | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Somebody is there, and has not said anything yet."""
        super().connection_made(WholeAnswers(transport, self.loop))
        self._surplus = not self.limit.make_room(len(self.connections))
        self._be_idle()

    def hang_up(self) -> None:
        """Close this connection, which is idle."""
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._end_receive_timer()
        self.limit.is_busy(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes of one or several requests."""
        pieces: list[bytes | memoryview] = [data]
        while pieces:
            piece = pieces.pop()
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    # The body follows, and perhaps further requests. A view, since copies of them all would add up.
                    pieces += [memoryview(piece)[upgrade.args[0] :], self._head_without_upgrade()]
            except httptools.HttpParserError:
                self._refuse(self._head_problem or Problem(MALFORMED_REQUEST, "This is not valid HTTP/1.1."))
                return
        if self._arriving:
            self._limit_arrival()
            self._limit_head(len(data))

    def _should_upgrade(self) -> bool:
        """Whether the app shall not see this request yet; asked by uvicorn when the client proposes another protocol.

        The parser takes that for agreed, and looks for no body. So it gets the same head again, with nothing proposed.
        """
        return self.scope["method"] != "CONNECT"  # which proposes no protocol, and has no body

    def _head_without_upgrade(self) -> bytes:
        # The parser of that head may have come to its end, with `Connection: close`.
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        lines = [b"%b %b HTTP/%b" % (self.scope["method"].encode(), self.url, self.scope["http_version"].encode())]
        for name, value in self.headers:
            if name == b"connection":
                kept = [token for token in value.split(b",") if token.strip().lower() not in _UPGRADE_TOKENS]
                lines.append(b"connection: " + b",".join(kept))
            elif name != b"upgrade":
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        """A request begins; it may be in the same piece of data as the end of the one before."""
        self._unset_keepalive_if_required()
        self._arriving = True
        self._head_bytes = self._counted_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the path."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer."""
        self._count(len(name) + len(value) + 4)  # with colon, blank and the end of the line
        if len(self.headers) >= self.max_headers:
            detail = f"A request may have {self.max_headers} headers at most (PARSEQ_MAX_HEADERS)."
            self._stop_parsing(Problem(HEAD_TOO_LARGE, detail))
        super().on_header(name, value)

    def _count(self, n_bytes: int) -> None:
        self._counted_bytes += n_bytes
        if self._counted_bytes > self.max_head_bytes:
            self._stop_parsing(self._head_too_large())

    def _head_too_large(self) -> Problem:
        detail = f"Path and headers may have {self.max_head_bytes} bytes at most (PARSEQ_MAX_HEAD_BYTES)."
        return Problem(HEAD_TOO_LARGE, detail)

    def _stop_parsing(self, problem: Problem) -> NoReturn:
        self._head_problem = problem
        raise problem

    def on_headers_complete(self) -> None:
        """The head is here; the app is called."""
        self._surplus = self._surplus and len(self.connections) > self.limit.max_connections
        if self._surplus and self.url.partition(b"?")[0] not in PROBES:
            self._stop_parsing(self._too_many_connections())
        super().on_headers_complete()
        if self._surplus and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The request is here; if its answer has gone already, the connection is idle from now on."""
        self._arriving = False
        if self._receive_timer is not None:
            self._end_receive_timer()
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete:  # `None`: it has to begin again without its upgrade
            self._be_idle()

    def on_response_complete(self) -> None:
        """A request is answered; part of it, or of the next one, may still be on its way."""
        super().on_response_complete()
        if self._arriving:
            self._unset_keepalive_if_required()
            self._limit_arrival()
        elif self.timeout_keep_alive_task is not None:
            self.limit.is_idle(self)

    def _be_idle(self) -> None:
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            patience_s = self._patience_s(self.timeout_keep_alive)
            self.timeout_keep_alive_task = self.loop.call_later(patience_s, self.timeout_keep_alive_handler)
            self.limit.is_idle(self)

    def _unset_keepalive_if_required(self) -> None:
        self.limit.is_busy(self)
        super()._unset_keepalive_if_required()

    def _patience_s(self, usual_s: float) -> float:
        return min(usual_s, SURPLUS_PATIENCE_S) if self._surplus else usual_s

    def _limit_arrival(self) -> None:
        """See to it that what arrives is given up in time, unless it is the server that lets it wait."""
        if self.pipeline:
            self._end_receive_timer()
        elif self._receive_timer is None and not self.transport.is_closing():
            self._receive_timer = self.loop.call_later(self._patience_s(self.receive_timeout_s), self._give_up)

    def _limit_head(self, n_bytes: int) -> None:
        if self._app_knows():
            return
        self._head_bytes += n_bytes
        if self._head_bytes > self.max_head_bytes + READ_BYTES:
            self._refuse(self._head_too_large())

    def _app_knows(self) -> bool:
        """Whether the request that arrives, or came last, has been handed to the app, as it is when its head is there."""
        return self.cycle is not None and self.cycle.scope is self.scope

    def _end_receive_timer(self) -> None:
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _give_up(self) -> None:
        self._receive_timer = None
        self._refuse(self._too_many_connections() if self._surplus else self._too_slow())

    def _too_slow(self) -> Problem:
        detail = f"The request did not arrive within {self.receive_timeout_s:g} s (PARSEQ_RECEIVE_TIMEOUT_S). Send it at once."
        return Problem(REQUEST_TIMEOUT, detail)

    def _too_many_connections(self) -> Problem:
        most = self.limit.max_connections
        detail = f"The server has {most} connections already (PARSEQ_MAX_CONNECTIONS). Keep those you have, or try again."
        return Problem(TOO_MANY_CONNECTIONS, detail, headers={"Retry-After": "1"})

    def _refuse(self, problem: Problem) -> None:
        """End what arrives and then the connection, but no answer to what came before."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
            if self._app_knows():
                cycle.scope[ARRIVAL_PROBLEM] = problem  # type: ignore[typeddict-unknown-key]  # apps may have keys there
                cycle.message_event.set()
        elif self._app_knows():
            self.transport.close()
        else:
            self._answer(problem)

    def _answer(self, problem: Problem) -> None:
        """Answer without the app."""
        context, body = context_of(self.headers or []), problem.body()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            (REQUEST_ID_HEADER, context.request_id.encode("ascii")),
            *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
            *GUARDS,
        ]
        status = b"HTTP/1.1 %d %b" % (problem.status, http.HTTPStatus(problem.status).phrase.encode())
        lines = [status, *(b"%b: %b" % header for header in headers), b"", body]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()
        self.metrics.problem_told(problem.kind.slug)
        logger.debug("%d without the app: %s", problem.status, problem.detail, extra={CONTEXT_KEY: context})


def protocol_for(metrics: Metrics, settings: Settings) -> type[HttpProtocol]:
    """The protocol of one server.

    Args:
        metrics: Told of refusals the app knows nothing of.
        settings: Of the service.
    """

    class Protocol(HttpProtocol):
        pass

    Protocol.limit = ConnectionLimit(settings.max_connections)
    Protocol.metrics, Protocol.receive_timeout_s = metrics, settings.receive_timeout_s
    Protocol.max_head_bytes, Protocol.max_headers = settings.max_head_bytes, settings.max_headers
    return Protocol
