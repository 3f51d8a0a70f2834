"""The requests of one connection as they arrive: uvicorn's parser gets them one at a time; path, headers and body are counted
and checked meanwhile; the app gets each request when its head is complete.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final, NoReturn

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import MALFORMED_REQUEST, Problem
from service.http.bodies.body import ARRIVAL_PROBLEM
from service.http.connection import refusals
from service.http.connection.framing import Framing
from service.http.connection.head import body_length, with_path, without_upgrade
from service.http.connection.holdings import Holdings, Owner
from service.http.connection.limit import Activity
from service.http.connection.shared import Shared
from service.http.connection.whole_writes import WholeAnswers
from service.http.head import HEAD_KEY, Head
from service.http.problems import Answer

HEAD_SLACK_BYTES: Final = 1024
"""What a head may hold besides path and headers: method, version, and blanks, which are not counted."""
PROBES: Final = (b"/livez", b"/readyz", b"/metrics", b"/v2/health/live", b"/v2/health/ready", b"/ping")
"""Answered on any connection: otherwise whoever floods the server would also get it restarted."""


class ArrivingRequests(HttpToolsProtocol):
    """What has arrived on one connection, and which requests are still unanswered. `HttpProtocol` adds time-outs and refusals.

    The parser replaces whatever its callbacks raise by an error of its own, so they keep their `Problem` in `_head_problem`,
    from where `_feed` raises it.
    """

    shared: Shared
    transport: WholeAnswers
    _framing: Framing
    _holdings: Holdings
    _surplus = False
    """Whether this connection is one more than the limit allows: it may only ask a probe."""
    _arriving = False
    """Whether a request has begun and is not complete."""
    _in_trailers = False
    """Whether the headers that the parser reports now are trailers, which follow a body."""
    _head_bytes = 0
    """Bytes of the arriving request received while its head is not complete."""
    _counted_bytes = _counted_headers = 0
    """Bytes and number of its path, headers and trailers so far."""
    _head_problem: Problem | None = None
    _running: RequestResponseCycle | None = None
    """The request that the app was given last."""
    _rest: tuple[bytes, int] | None = None
    """Bytes that were read and are not parsed yet, and the index from which on."""
    _deaf = False
    """Whether what the client still sends is thrown away."""
    _unread = False
    """Whether the client has left an answer unread for `UNREAD_AFTER_S`."""

    def give_way(self) -> None:
        """Close this connection for the sake of another one."""
        raise NotImplementedError

    def drop(self) -> None:
        """Close this connection at once."""
        raise NotImplementedError

    def _feed(self, piece: bytes | memoryview) -> None:
        """Parse a head, or (some of) a body, or a part of either.

        Raises:
            Problem: The bytes are not valid HTTP/1.1, or exceed a limit.
        """
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                # With `Connection: close` the parser of that head takes no more.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
                self._feed(without_upgrade(self.scope["method"], self.url, self.scope["http_version"], self.headers))
                return
            self._deaf = True  # CONNECT: what follows is meant for a tunnel
        except httptools.HttpParserError:
            raise (self._head_problem or Problem(MALFORMED_REQUEST, _malformed(piece))) from None
        if not self._deaf and self._framing.between_requests == self._arriving:
            raise Problem(MALFORMED_REQUEST, "It is in doubt where this request ends.")
        if self._arriving and (self.cycle is None or self.cycle.scope is not self.scope):  # its head is not complete
            self._head_bytes += len(piece)
            if self._head_bytes > self.shared.max_head_bytes + HEAD_SLACK_BYTES:
                raise refusals.head_too_large(self.shared.max_head_bytes)

    def _should_upgrade(self) -> bool:
        """Whether uvicorn shall keep this request from the app; it asks when the client proposes another protocol.

        The parser takes the proposal for agreed and expects no body, so `_feed` gives it the same head again without it.
        """
        return self.scope["method"] != "CONNECT"  # a CONNECT proposes no protocol and has no body

    def on_message_begin(self) -> None:
        """A request begins."""
        self._unset_keepalive_if_required()
        self._arriving = True
        self._in_trailers = False
        self._head_bytes = self._counted_bytes = self._counted_headers = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the path."""
        self._counted_bytes += len(url)
        if self._counted_bytes > self.shared.max_head_bytes:
            self._stop_parsing(refusals.head_too_large(self.shared.max_head_bytes))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. A trailer counts, but is dropped: no check of headers has seen it, and others may have added it."""
        self._counted_bytes += len(name) + len(value) + 4  # colon, blank and line end
        if self._counted_bytes > self.shared.max_head_bytes:
            self._stop_parsing(refusals.head_too_large(self.shared.max_head_bytes))
        self._counted_headers += 1
        if self._counted_headers > self.shared.max_headers:
            self._stop_parsing(refusals.too_many_headers(self.shared.max_headers))
        if not self._in_trailers:
            # Blanks around a value do not belong to it (RFC 9112, 5); the parser strips only those in front.
            super().on_header(name, value.strip(b" \t"))

    def _stop_parsing(self, problem: Problem) -> NoReturn:
        self._head_problem = problem
        raise problem

    def on_headers_complete(self) -> None:
        """The head is complete: check it, then start the app."""
        self._in_trailers = True
        self._surplus = self._surplus and not self.shared.limit.promote(self)
        if self._surplus and self.url.partition(b"?")[0] not in PROBES:
            self._stop_parsing(refusals.too_many_connections(self.shared.limit.max_connections))
        version, is_tunnel = self.parser.get_http_version(), self.parser.get_method() == b"CONNECT"
        try:
            n_bytes = body_length(version, self.headers)
        except Problem as problem:
            self._stop_parsing(problem)
        self._framing.expect_body(0 if is_tunnel else n_bytes)
        if not is_tunnel and not self.url.startswith(b"/"):
            self.url = with_path(self.url)
        if version == "1.0":
            self.expect_100_continue = False  # HTTP/1.0 clients do not understand `100 Continue`
        super().on_headers_complete()
        if (self._surplus or is_tunnel) and self._app_knows():
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def serve(*events: Any) -> None:
            try:
                await app(*events)
            finally:
                self._holdings.release(cycle)

        self._running = cycle
        context, answer = copy_context(), None  # a context of its own: the gates set whose log lines these are
        # Other methods may have answers without a body, and an answer that has to wait needs a task.
        if cycle.scope["method"] == "POST" and not self._surplus and not self.flow.write_paused:
            with suppress(Exception):  # the app asks again, and fails as it does on any request
                answer = context.run(self.shared.refuse, cycle.scope)  # type: ignore[arg-type]  # apps may add keys
        if answer is None:
            context.run(super()._start_asgi_task, cycle, serve)
        else:
            self._answer_at_once(cycle, answer)

    def _answer_at_once(self, cycle: RequestResponseCycle, answer: Answer) -> None:
        """Answer a request without the app. What still comes of its body is thrown away."""
        self._holdings.release(cycle)
        cycle.response_started = cycle.response_complete = True
        cycle.body = bytearray()
        head: Head = cycle.scope[HEAD_KEY]  # type: ignore[typeddict-item]  # as above
        if refusals.CLOSE in answer.headers:
            cycle.keep_alive = False
        self.transport.write_now(
            refusals.whole(answer, head.context, self.server_state.default_headers, keep_alive=cycle.keep_alive)
        )
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body; thrown away once the request has been answered or refused."""
        cycle = self.cycle
        if cycle.response_complete or ARRIVAL_PROBLEM in cycle.scope or not self._holdings.take(cycle, len(body)):
            return
        super().on_body(body)

    def _give_up_body(self, owner: Owner) -> None:
        """There is no room for the body of `owner`: throw away what comes of it, as for any request that is answered early."""
        if owner is None:
            self._forget_rest()
            self._deaf = True
            self.cycle.keep_alive = False  # this is the last request to be answered
            if not self._unanswered():
                self.transport.close()
            return
        self._end_arrival(owner, refusals.no_room_for_body())
        owner.body = bytearray()

    def _end_arrival(self, cycle: RequestResponseCycle, problem: Problem) -> None:
        """Tell the app why the rest of a body will not come."""
        cycle.scope[ARRIVAL_PROBLEM] = problem  # type: ignore[typeddict-unknown-key]  # apps may have keys there
        cycle.message_event.set()

    def _unanswered(self) -> int:
        """Number of requests whose heads are parsed and whose answers are not sent."""
        return len(self.pipeline) + (self._running is not None and not self._running.response_complete)

    def _app_knows(self) -> bool:
        """Whether the app has been given the latest request, as it is when the head is complete."""
        return self.cycle is not None and self.cycle.scope is self.scope

    def _tell_activity(self) -> None:
        """Tell the connection limit what this connection is doing, which decides whether it may have to give way."""
        if self._unread:
            activity = Activity.UNREAD
        elif self._arriving:
            known = self._app_knows()
            others = self._unanswered() - (known and not self.cycle.response_complete)
            activity = Activity.BUSY if others else Activity.BODY if known else Activity.HEAD
        elif self.pipeline or (self._running is not None and not self._running.response_complete):
            activity = Activity.BUSY
        else:
            activity = Activity.IDLE if self._rest is None else Activity.HEAD
        self.shared.limit.change(self, activity)

    def _forget_rest(self) -> None:
        self._rest = None
        self._holdings.release(None)


def _malformed(piece: bytes | memoryview) -> str:
    """What to tell of bytes that cannot be parsed."""
    line = bytes(piece).partition(b"\r\n")[0]
    if line.isascii() or b" HTTP/" not in line:
        return "This is not valid HTTP/1.1."
    return "This is not valid HTTP/1.1: a URL has ASCII characters only; write a pound sign, for example, as %C2%A3."
