"""uvicorn's HTTP protocol, with patience that ends, upgrades that are ignored, answers in one piece and problem documents also
for what is no HTTP. What one client sends or does not read is bounded, whatever it does.

What the app sees of it: `scope[ARRIVAL_PROBLEM]` says why the rest of a body will not come; whoever waits for it is woken.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from typing import Any, Final, NoReturn

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.config import Settings
from service.core.metrics import Metrics
from service.errors import (
    HEAD_TOO_LARGE,
    MALFORMED_REQUEST,
    NO_ROOM_FOR_BODY,
    REQUEST_TIMEOUT,
    TOO_MANY_CONNECTIONS,
    Problem,
)
from service.http.bodies.parse import ARRIVAL_PROBLEM
from service.http.connection.body_budget import BodyBudget, Holding, bodies_bytes, copies_of
from service.http.connection.framing import Framing
from service.http.connection.head import body_length, with_path, without_upgrade
from service.http.connection.limit import ConnectionLimit, Stage
from service.http.connection.pacing import Pace
from service.http.connection.refusals import refusal
from service.http.connection.slow_readers import Backlog, SlowReaders
from service.http.connection.whole_writes import WholeAnswers
from service.http.gates.client_address import ClientAddresses
from service.http.gates.request_ids import context_of
from service.process.logs import CONTEXT_KEY
from service.process.open_files import max_open_files, surplus_within

READ_BYTES: Final = 2**18
"""What uvloop receives at once, at most, and with it what a connection holds of requests that are not parsed yet."""
MAX_UNANSWERED: Final = 4
"""Requests of one connection that are parsed and not answered, at most. They are answered one after the other anyhow."""
HEAD_SLACK_BYTES: Final = 1024
"""What a head may have beside path and headers: method, version, and blanks that do not count."""
SURPLUS_PATIENCE_S: Final = 1.0
"""How long a connection too many may take to ask."""
UNREAD_AFTER_S: Final = 1.0
"""An answer that is not read for so long makes room for another connection when there is none."""
DRAIN_UNREAD_S: Final = 2.0
"""How long an answer may stay unread once the server is to stop."""
LOOK_FOR_CLIENT_S: Final = (0.05, 1.0)
"""How soon, and later how often, to look whether a client that sends nothing more is there at all."""
PROBES: Final = (b"/livez", b"/readyz", b"/metrics")
"""Answered on any connection: who floods the server must not get it restarted too."""

logger = logging.getLogger(__name__)


class HeldFlow(FlowControl):
    """Does not read on while there are requests that were read and not parsed, or there is nothing more to read."""

    held = False

    def resume_reading(self) -> None:
        """Read on, unless held."""
        if not self.held:
            super().resume_reading()


class HttpProtocol(HttpToolsProtocol):
    """One connection. It is idle, or a request arrives, or one is being answered; only the last has no time-out here.

    An idle connection is closed after the keep-alive time, also before its first request. A request has `receive_timeout_s`
    to arrive in, from its first byte to its last; that includes a body which comes after its answer and is thrown away.
    A request that is there all at once, as most are, costs no timer. An answer has `send_timeout_s` to be read in.

    When there are too many connections, one of a client that has many is closed, or one that is idle. When none can be, the
    new one may only ask the probes, once.
    """

    metrics: Metrics
    receive_timeout_s: float
    send_timeout_s: float
    max_head_bytes: int
    max_headers: int
    limit: ConnectionLimit
    budget: BodyBudget
    pace: Pace
    slow_readers: SlowReaders
    addresses: ClientAddresses
    flow: HeldFlow
    transport: WholeAnswers
    _surplus = False
    """Whether there was no room for this connection."""
    _receive_timer: asyncio.TimerHandle | None = None
    _look_timer: asyncio.TimerHandle | None = None
    _arriving = False
    """Whether a request has begun and is not complete."""
    _in_trailers = False
    """Whether headers that come are those behind a body."""
    _head_bytes = 0
    """Received since it has begun, while its head is not complete."""
    _counted_bytes = _counted_headers = 0
    """Of its path, headers and trailers, so far."""
    _head_problem: Problem | None = None
    _running: RequestResponseCycle | None = None
    """The request that the app was given last."""
    _rest: tuple[bytes, int] | None = None
    """What was read and is not parsed, and from where on."""
    _deaf = False
    """Whether what comes is thrown away."""
    _half_closed = False
    """Whether the client has said that it sends nothing more, and waits for answers."""
    _leaving = False
    """Whether the server is to stop."""
    _unread = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Somebody is there, and has not said anything yet."""
        super().connection_made(WholeAnswers(transport, self.loop, self._more_may_come))
        self.flow = HeldFlow(self.transport)
        self._framing = Framing(self.max_head_bytes)
        self._backlog = Backlog(self.transport)
        self._holdings: dict[RequestResponseCycle | None, Holding] = {}
        """Of the bodies here; under `None` what is not parsed."""
        self._peer = self.client[0] if self.client else ""
        share = None if self.addresses.is_trusted(self._peer) else self.addresses.client_of(self._peer, ())
        self.metrics.connections.inc()
        self._surplus = not self.limit.enter(self, share)
        self.slow_readers.watch(self.connections, self.loop)  # type: ignore[arg-type]  # they are all of this class
        self._be_idle()

    def give_way(self) -> None:
        """Close this connection for the sake of another."""
        self.metrics.connection_ended("made_room")
        if self._unread or self.transport.is_closing():
            self.transport.abort()
        elif self._arriving:
            self._refuse(self._too_many_connections())
        else:
            self._deaf = self._rest is not None
            self.transport.close()

    def drop(self) -> None:
        """Close it at once."""
        self.transport.abort()

    def look_at_backlog(self, now_s: float) -> None:
        """Give up a client that does not read its answers."""
        age_s = self._backlog.age_s(now_s)
        if age_s > (min(self.send_timeout_s, DRAIN_UNREAD_S) if self._leaving else self.send_timeout_s):
            self.metrics.connection_ended("unread")
            self.transport.abort()
        elif self._unread != (age_s >= UNREAD_AFTER_S):
            self._unread = not self._unread
            self._tell_stage()

    def shutdown(self) -> None:
        """Answer what was parsed, and no more."""
        self._leaving = True
        self._forget_rest()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._end_receive_timer()
        self._unset_keepalive_if_required()  # which uvicorn leaves running when the connection was reset
        if self._look_timer is not None:
            self._look_timer.cancel()
        self.metrics.connections.dec()
        self.limit.leave(self)
        self._rest = None
        for cycle, _ in self.pipeline:
            self._release(cycle)
        self._release(None)
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            # uvicorn tells the latest request only, and one before it may be the one that is being answered.
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio wants to know whether to keep the connection
        """The client sends nothing more. It may be gone; or it has asked, and waits for its answers."""
        self.transport.flush()
        if self._half_closed or self.transport.is_closing():
            return False
        if self._arriving and not self._deaf:
            if self._app_knows() and not self.cycle.response_complete:
                if not self.pipeline:
                    return False  # it left while it was sending
                self._release(self.pipeline.popleft()[0])
            self._arriving = False
            self._end_receive_timer()
        if not self._unanswered():
            return False
        self._half_closed = self.flow.held = True
        if self._running is not None and not self._running.response_started:
            self.transport.announce()
        self._look_for_client(LOOK_FOR_CLIENT_S[0])
        return True

    def _look_for_client(self, after_s: float) -> None:
        """Who closed the connection altogether looks like who sends nothing more, until something is sent to it."""
        self._look_timer = self.loop.call_later(after_s, self._look, min(2 * after_s, LOOK_FOR_CLIENT_S[1]))

    def _look(self, next_s: float) -> None:
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self._look_for_client(next_s)

    def data_received(self, data: bytes) -> None:
        """Some bytes of one or several requests."""
        if self.transport.is_closing() or self._deaf:
            return
        self._parse(data, 0)
        if self._rest is not None:
            self.metrics.held_back.inc()
            self._take(None, len(data))

    def _parse(self, data: bytes, start: int) -> None:
        """Read one request after the other, until too many of them have no answer."""
        while start < len(data) and not self._deaf:
            if self._framing.between_requests and self._unanswered() >= MAX_UNANSWERED:
                self._rest = data, start
                self.flow.pause_reading()
                self.flow.held = True
                break
            try:
                end = self._framing.end_of_piece(data, start)
                self._feed(data if end - start == len(data) else memoryview(data)[start:end])
            except Problem as problem:
                self._refuse(problem)
                return
            start = end
        if self._arriving:
            self._limit_arrival()
        self._tell_stage()

    def _feed(self, piece: bytes | memoryview) -> None:
        """Parse a head, or (some of) a body, or a part of either.

        Raises:
            Problem: it is not what it should be.
        """
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                # The parser of that head may have come to its end, with `Connection: close`.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
                self._feed(without_upgrade(self.scope["method"], self.url, self.scope["http_version"], self.headers))
                return
            self._deaf = True  # it was to be a tunnel
        except httptools.HttpParserError:
            raise (self._head_problem or Problem(MALFORMED_REQUEST, "This is not valid HTTP/1.1.")) from None
        if not self._deaf and self._framing.between_requests == self._arriving:
            raise Problem(MALFORMED_REQUEST, "It is in doubt where this request ends.")
        if self._arriving and not self._app_knows():
            self._head_bytes += len(piece)
            if self._head_bytes > self.max_head_bytes + HEAD_SLACK_BYTES:
                raise self._head_too_large()

    def _should_upgrade(self) -> bool:
        """Whether the app shall not see this request yet; asked by uvicorn when the client proposes another protocol.

        The parser takes that for agreed, and looks for no body. So it gets the same head again, with nothing proposed.
        """
        return self.scope["method"] != "CONNECT"  # which proposes no protocol, and has no body

    def on_message_begin(self) -> None:
        """A request begins."""
        self._unset_keepalive_if_required()
        self._arriving = True
        self._in_trailers = False
        self._head_bytes = self._counted_bytes = self._counted_headers = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the path."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; or a trailer, which is none: nobody checked it in time, and it may come from somebody else."""
        self._count(len(name) + len(value) + 4)  # with colon, blank and the end of the line
        value = value.strip(b" \t")  # blanks around it are no part of it (RFC 9112, 5), and the parser leaves those behind it
        self._counted_headers += 1
        if self._counted_headers > self.max_headers:
            detail = f"A request may have {self.max_headers} headers at most (PARSEQ_MAX_HEADERS)."
            self._stop_parsing(Problem(HEAD_TOO_LARGE, detail))
        if not self._in_trailers:
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
        self._in_trailers = True
        self._surplus = self._surplus and not self.limit.promote(self)
        if self._surplus and self.url.partition(b"?")[0] not in PROBES:
            self._stop_parsing(self._too_many_connections())
        version, is_tunnel = self.parser.get_http_version(), self.parser.get_method() == b"CONNECT"
        try:
            n_bytes = body_length(version, self.headers)
        except Problem as problem:
            self._stop_parsing(problem)
        self._framing.expect_body(0 if is_tunnel else n_bytes)
        if not is_tunnel:
            self.url = with_path(self.url)
        if version == "1.0":
            self.expect_100_continue = False  # a client of that time does not know what to make of the answer
        super().on_headers_complete()
        if self._app_knows() and (self._surplus or is_tunnel):
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def serve(*events: Any) -> None:
            try:
                await app(*events)
            finally:
                self._release(cycle)

        self._running = cycle
        super()._start_asgi_task(cycle, serve)

    def on_body(self, body: bytes) -> None:
        """A part of the body, which is thrown away when nobody wants it any more."""
        cycle = self.cycle
        if cycle.response_complete or ARRIVAL_PROBLEM in cycle.scope or not self._take(cycle, len(body)):
            return
        super().on_body(body)

    def _take(self, cycle: RequestResponseCycle | None, n_bytes: int) -> bool:
        """Whether there is room for more of a body, or (`None`) for what is not parsed yet."""
        holding = self._holdings.get(cycle)
        if holding is None:
            headers = cycle.scope["headers"] if cycle is not None else ()
            client = self.addresses.client_of(self._peer, headers)
            holding = self._holdings[cycle] = Holding(client, partial(self._give_up_body, cycle), copies_of(headers))
        return self.budget.take(holding, n_bytes)

    def _give_up_body(self, cycle: RequestResponseCycle | None) -> None:
        """There is no room for it. What comes of it is thrown away, as it is for any request that is answered early."""
        if cycle is None:
            self._forget_rest()
            self._deaf = True
            self.cycle.keep_alive = False  # the last one that will be answered
            if not self._unanswered():
                self.transport.close()
            return
        detail = "The server holds too many bodies of requests at once (PARSEQ_MAX_BODIES_BYTES). Try again."
        cycle.scope[ARRIVAL_PROBLEM] = Problem(  # type: ignore[typeddict-unknown-key]  # apps may have keys there
            NO_ROOM_FOR_BODY, detail, headers={"Retry-After": "1"}
        )
        cycle.body = bytearray()
        cycle.message_event.set()

    def _release(self, cycle: RequestResponseCycle | None) -> None:
        holding = self._holdings.pop(cycle, None)
        if holding is not None:
            self.budget.release(holding)

    def _forget_rest(self) -> None:
        self._rest = None
        self._release(None)

    def on_message_complete(self) -> None:
        """The request is here; if its answer has gone already, the connection is idle from now on."""
        self._arriving = False
        if self._receive_timer is not None:
            self._end_receive_timer()
        super().on_message_complete()
        holding = self._holdings.get(self.cycle)
        if holding is not None:
            holding.arriving = False
        if self.cycle is not None and self.cycle.response_complete:  # `None`: it has to begin again without its upgrade
            self._be_idle()

    def on_response_complete(self) -> None:
        """A request is answered; part of it, or of the next one, may still be on its way."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._half_closed and not self._unanswered():
            self.transport.close()
            return
        if self._rest is not None:
            self._unset_keepalive_if_required()
            if not self._unanswered():
                self.pace.wait(self, self.loop)
        elif self._arriving:
            self._unset_keepalive_if_required()
            self._limit_arrival()
        self._tell_stage()

    def read_on(self) -> bool:
        """Parse some of what was held back, if there is any."""
        if self._rest is None:
            return False
        rest, self._rest = self._rest, None
        self._parse(*rest)
        if self._rest is None and not self.transport.is_closing():
            self._release(None)
            self.flow.held = False
            if not self.pipeline and len(self.cycle.body) <= HIGH_WATER_LIMIT:  # else uvicorn reads on in time
                self.flow.resume_reading()
            if not self._unanswered() and not self._arriving:
                self._be_idle()
        return True

    def _unanswered(self) -> int:
        """Requests of which the head has been parsed and the answer has not gone."""
        return len(self.pipeline) + (self._running is not None and not self._running.response_complete)

    def _tell_stage(self) -> None:
        if self._unread:
            stage = Stage.UNREAD
        elif self._arriving:
            known = self._app_knows()
            others = self._unanswered() - (known and not self.cycle.response_complete)
            stage = Stage.BUSY if others else Stage.BODY if known else Stage.HEAD
        elif self._unanswered():
            stage = Stage.BUSY
        else:
            stage = Stage.IDLE if self._rest is None else Stage.HEAD
        self.limit.change(self, stage)

    def _be_idle(self) -> None:
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            patience_s = self._patience_s(self.timeout_keep_alive)
            self.timeout_keep_alive_task = self.loop.call_later(patience_s, self.timeout_keep_alive_handler)

    def _patience_s(self, usual_s: float) -> float:
        return min(usual_s, SURPLUS_PATIENCE_S) if self._surplus else usual_s

    def _limit_arrival(self) -> None:
        """See to it that what arrives is given up in time, unless it is the server that lets it wait."""
        if self.pipeline:
            self._end_receive_timer()
        elif self._receive_timer is None and not self.transport.is_closing():
            self._receive_timer = self.loop.call_later(self._patience_s(self.receive_timeout_s), self._give_up)

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

    def _more_may_come(self) -> bool:
        """Whether the client may still be sending when the connection is closed."""
        return (self._arriving or self._deaf) and not self._half_closed and not self._leaving

    def _refuse(self, problem: Problem) -> None:
        """End what arrives and then the connection, but no answer to what came before."""
        if self.transport.is_closing():
            return
        self._deaf = True
        self._forget_rest()
        self.limit.told(self)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
            if self._app_knows() and cycle.more_body:  # else it is what comes after that request
                cycle.scope[ARRIVAL_PROBLEM] = problem  # type: ignore[typeddict-unknown-key]  # as above
                cycle.message_event.set()
        elif self._app_knows():
            self.transport.close()
        else:
            context = context_of(self.headers or [])
            self.transport.write(refusal(problem, context, self.server_state.default_headers))
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

    Protocol.metrics = metrics
    most = settings.max_connections
    Protocol.limit = ConnectionLimit(most, surplus_within(max_open_files(), most))
    Protocol.addresses = ClientAddresses(settings.trusted_proxies)
    Protocol.budget = budget = BodyBudget(bodies_bytes(settings))
    metrics.body_bytes.set_function(lambda: budget.held_bytes)
    Protocol.pace = Pace()
    Protocol.slow_readers = SlowReaders(settings.send_timeout_s)
    Protocol.receive_timeout_s, Protocol.send_timeout_s = settings.receive_timeout_s, settings.send_timeout_s
    Protocol.max_head_bytes, Protocol.max_headers = settings.max_head_bytes, settings.max_headers
    return Protocol
