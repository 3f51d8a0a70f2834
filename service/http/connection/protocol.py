"""uvicorn's HTTP protocol, with patience that ends, upgrades that are ignored, answers in one piece and problem documents also
for what is no HTTP. What one client sends or does not read is bounded, whatever it does.

What the app sees of it: `scope[ARRIVAL_PROBLEM]` says why the rest of a body will not come; whoever waits for it is woken.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, NoReturn

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.config import Settings
from service.core.metrics import Metrics
from service.errors import MALFORMED_REQUEST, Problem
from service.http.bodies.body import ARRIVAL_PROBLEM
from service.http.connection import refusals
from service.http.connection.framing import Framing
from service.http.connection.half_closed import HalfClosed
from service.http.connection.head import body_length, with_path, without_upgrade
from service.http.connection.holdings import Holdings, Owner
from service.http.connection.limit import Stage
from service.http.connection.shared import Shared
from service.http.connection.slow_readers import Backlog
from service.http.connection.whole_writes import WholeAnswers
from service.http.gates.client_address import ClientAddresses
from service.http.gates.request_ids import context_of
from service.http.problems import Problems
from service.process.logs import CONTEXT_KEY

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
LINGER_S: Final = 5.0
"""How long what a client still sends is thrown away once it has been refused."""
DRAIN_LINGER_S: Final = 0.5
"""The same once the server is to stop."""
DRAIN_UNREAD_S: Final = 2.0
"""How long an answer may stay unread once the server is to stop."""
PROBES: Final = (b"/livez", b"/readyz", b"/metrics", b"/v2/health/live", b"/v2/health/ready", b"/ping")
"""Answered on any connection: who floods the server must not get it restarted too."""

logger = logging.getLogger(__name__)


class HttpProtocol(HttpToolsProtocol):
    """One connection. It is idle, or a request arrives, or one is being answered; only the last has no time-out here.

    An idle connection is closed after the keep-alive time, also before its first request. A request has `receive_timeout_s`
    to arrive in, from its first byte to its last; that includes a body which comes after its answer and is thrown away.
    A request that is there all at once, as most are, costs no timer. An answer has `send_timeout_s` to be read in.

    When there are too many connections, one of a client that has many is closed, or one that is idle. When none can be, the
    new one may only ask the probes, once.
    """

    shared: Shared
    transport: WholeAnswers
    _surplus = False
    """Whether there was no room for this connection."""
    _receive_timer: asyncio.TimerHandle | None = None
    _half_closed: HalfClosed | None = None
    """Set once the client has said that it sends nothing more, and waits for answers."""
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
    _leaving = False
    """Whether the server is to stop."""
    _unread = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Somebody is there, and has not said anything yet."""
        super().connection_made(WholeAnswers(transport, self.loop, self._linger_s))
        shared = self.shared
        self._framing = Framing(shared.max_head_bytes)
        self._backlog = Backlog(self.transport)
        peer = self.client[0] if self.client else ""
        self._holdings = Holdings(shared, peer, self._give_up_body)
        share = None if shared.addresses.is_trusted(peer) else shared.addresses.client_of(peer, ())
        shared.metrics.connections.inc()
        self._surplus = not shared.limit.enter(self, share)
        shared.slow_readers.watch(self.connections, self.loop)  # type: ignore[arg-type]  # they are all of this class
        self._be_idle()

    def give_way(self) -> None:
        """Close this connection for the sake of another."""
        self.shared.metrics.connection_ended("made_room")
        if self._unread or self.transport.is_closing():
            self.transport.abort()
        elif self._arriving:
            self._refuse(refusals.too_many_connections(self.shared.limit.max_connections))
        else:
            self._deaf = self._rest is not None
            self.transport.close()

    def drop(self) -> None:
        """Close it at once."""
        self.transport.abort()

    def look_at_backlog(self, now_s: float) -> None:
        """Give up a client that does not read its answers."""
        age_s = self._backlog.age_s(now_s)
        if age_s > (min(self.shared.send_timeout_s, DRAIN_UNREAD_S) if self._leaving else self.shared.send_timeout_s):
            self.shared.metrics.connection_ended("unread")
            self.transport.abort()
        elif self._unread != (age_s >= UNREAD_AFTER_S):
            self._unread = not self._unread
            self._tell_stage()

    def shutdown(self) -> None:
        """Answer what was parsed, and no more."""
        self._leaving = True
        self._forget_rest()
        if self.transport.is_closing():
            self.loop.call_later(DRAIN_LINGER_S, self.transport.close)
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._end_receive_timer()
        self._unset_keepalive_if_required()  # which uvicorn leaves running when the connection was reset
        if self._half_closed is not None:
            self._half_closed.stop()
        self.shared.metrics.connections.dec()
        self.shared.limit.leave(self)
        self._rest = None
        for cycle, _ in self.pipeline:
            self._holdings.release(cycle)
        self._holdings.release(None)
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
                self._holdings.release(self.pipeline.popleft()[0])
            self._arriving = False
            self._end_receive_timer()
        if not self._unanswered():
            return False
        self.transport.reading_held = True
        self._half_closed = HalfClosed(self.transport, self.loop)
        if self._running is not None and not self._running.response_started:
            self.transport.announce()
        return True

    def data_received(self, data: bytes) -> None:
        """Some bytes of one or several requests."""
        if self.transport.is_closing() or self._deaf:
            return
        self._parse(data, 0)
        if self._rest is not None:
            self.shared.metrics.held_back.inc()
            self._holdings.take(None, len(data))

    def _parse(self, data: bytes, start: int) -> None:
        """Read one request after the other, until too many of them have no answer."""
        while start < len(data) and not self._deaf:
            if (
                len(self.pipeline) >= MAX_UNANSWERED - 1
                and self._framing.between_requests
                and self._unanswered() >= MAX_UNANSWERED
            ):
                self._rest = data, start
                self.flow.pause_reading()
                self.transport.reading_held = True
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
            Problem: It is not what it should be.
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
        if self._arriving and (self.cycle is None or self.cycle.scope is not self.scope):  # its head is not complete
            self._head_bytes += len(piece)
            if self._head_bytes > self.shared.max_head_bytes + HEAD_SLACK_BYTES:
                raise refusals.head_too_large(self.shared.max_head_bytes)

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
        self._counted_bytes += len(url)
        if self._counted_bytes > self.shared.max_head_bytes:
            self._stop_parsing(refusals.head_too_large(self.shared.max_head_bytes))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; or a trailer, which is none: nobody checked it in time, and it may come from somebody else."""
        self._counted_bytes += len(name) + len(value) + 4  # with colon, blank and the end of the line
        if self._counted_bytes > self.shared.max_head_bytes:
            self._stop_parsing(refusals.head_too_large(self.shared.max_head_bytes))
        self._counted_headers += 1
        if self._counted_headers > self.shared.max_headers:
            self._stop_parsing(refusals.too_many_headers(self.shared.max_headers))
        if not self._in_trailers:
            # Blanks around a value are no part of it (RFC 9112, 5), and the parser leaves those behind it.
            super().on_header(name, value.strip(b" \t"))

    def _stop_parsing(self, problem: Problem) -> NoReturn:
        self._head_problem = problem
        raise problem

    def on_headers_complete(self) -> None:
        """The head is here; the app is called."""
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
            self.expect_100_continue = False  # a client of that time does not know what to make of the answer
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
        super()._start_asgi_task(cycle, serve)

    def on_body(self, body: bytes) -> None:
        """A part of the body, which is thrown away when nobody wants it any more."""
        cycle = self.cycle
        if cycle.response_complete or ARRIVAL_PROBLEM in cycle.scope or not self._holdings.take(cycle, len(body)):
            return
        super().on_body(body)

    def _give_up_body(self, owner: Owner) -> None:
        """There is no room for it. What comes of it is thrown away, as it is for any request that is answered early."""
        if owner is None:
            self._forget_rest()
            self._deaf = True
            self.cycle.keep_alive = False  # the last one that will be answered
            if not self._unanswered():
                self.transport.close()
            return
        self._end_arrival(owner, refusals.no_room_for_body())
        owner.body = bytearray()

    def _end_arrival(self, cycle: RequestResponseCycle, problem: Problem) -> None:
        """Tell the app why the rest of a body will not come."""
        cycle.scope[ARRIVAL_PROBLEM] = problem  # type: ignore[typeddict-unknown-key]  # apps may have keys there
        cycle.message_event.set()

    def _forget_rest(self) -> None:
        self._rest = None
        self._holdings.release(None)

    def on_message_complete(self) -> None:
        """The request is here; if its answer has gone already, the connection is idle from now on."""
        self._arriving = False
        if self._receive_timer is not None:
            self._end_receive_timer()
        super().on_message_complete()
        self._holdings.arrived(self.cycle)
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
                self.shared.pace.wait(self, self.loop)
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
            self._holdings.release(None)
            self.transport.reading_held = False
            self.flow.read_paused = True  # so it is, whoever tried to resume it meanwhile
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
        elif self.pipeline or (self._running is not None and not self._running.response_complete):
            stage = Stage.BUSY
        else:
            stage = Stage.IDLE if self._rest is None else Stage.HEAD
        self.shared.limit.change(self, stage)

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
            self._receive_timer = self.loop.call_later(self._patience_s(self.shared.receive_timeout_s), self._give_up)

    def _app_knows(self) -> bool:
        """Whether the request that arrives, or came last, has been handed to the app, as it is when its head is there."""
        return self.cycle is not None and self.cycle.scope is self.scope

    def _end_receive_timer(self) -> None:
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _give_up(self) -> None:
        self._receive_timer = None
        shared = self.shared
        if self._surplus:
            self._refuse(refusals.too_many_connections(shared.limit.max_connections))
        else:
            self._refuse(refusals.too_slow(shared.receive_timeout_s))

    def _linger_s(self) -> float:
        """How long to listen on when the connection is closed: the client may still be sending."""
        if self._half_closed or not (self._arriving or self._deaf):
            return 0.0
        if not self._leaving:
            return LINGER_S
        return DRAIN_LINGER_S if self._deaf or self._app_knows() else 0.0  # else it has not been told anything

    def _refuse(self, problem: Problem) -> None:
        """End what arrives and then the connection, but no answer to what came before."""
        if self.transport.is_closing():
            return
        self._deaf = True
        self._forget_rest()
        self.shared.limit.told(self)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
            if self._app_knows() and cycle.more_body:  # else it is what comes after that request
                self._end_arrival(cycle, problem)
        elif self._app_knows():
            self.transport.close()
        else:
            context = context_of(self.headers or [])
            answer = self.shared.problems.answer(problem)
            self.transport.write(refusals.refusal(answer, context, self.server_state.default_headers))
            self.transport.close()
            logger.debug("%d without the app: %s", problem.status, problem.detail, extra={CONTEXT_KEY: context})


def protocol_for(settings: Settings, metrics: Metrics, problems: Problems, addresses: ClientAddresses) -> type[HttpProtocol]:
    """The protocol of one server.

    Args:
        settings: Of the service.
        metrics: Told of what the app knows nothing of.
        problems: Tells what is refused without the app; the app's.
        addresses: Tells clients apart; the app's.
    """

    class Protocol(HttpProtocol):
        shared = Shared.of(settings, metrics, problems, addresses)

    return Protocol
