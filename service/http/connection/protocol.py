"""uvicorn's HTTP protocol, with time-outs, upgrades ignored, answers sent in one piece, and problem documents for malformed
HTTP too. What one client may send or leave unread is bounded.

The app learns of it by `scope[ARRIVAL_PROBLEM]`, which says why the rest of a body will not come; whoever waits for that body
is woken.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from service.config import Settings
from service.core.host import Tally
from service.core.metrics import Metrics
from service.errors import Problem
from service.http.connection import refusals
from service.http.connection.arriving import ArrivingRequests
from service.http.connection.framing import Framing
from service.http.connection.half_closed import HalfClosed
from service.http.connection.holdings import Holdings
from service.http.connection.shared import Refuse, Shared
from service.http.connection.slow_readers import Backlog
from service.http.connection.whole_writes import WholeAnswers
from service.http.gates.client_address import ClientAddresses
from service.http.gates.request_ids import context_of
from service.http.problems import Problems
from service.process.logs import CONTEXT_KEY

MAX_UNANSWERED: Final = 4
"""Requests of one connection that are parsed and not answered, at most; they are answered one after the other."""
SURPLUS_PATIENCE_S: Final = 1.0
"""How long a connection beyond the limit may take to send its request."""
UNREAD_AFTER_S: Final = 1.0
"""A connection whose answer stays unread for so long is closed when room is needed for another one."""
LINGER_S: Final = 5.0
"""How long what a client still sends is thrown away after it has been refused, before its connection is closed."""
DRAIN_LINGER_S: Final = 0.5
"""The same while the server stops."""
DRAIN_UNREAD_S: Final = 2.0
"""How long an answer may stay unread while the server stops."""

logger = logging.getLogger(__name__)


class HttpProtocol(ArrivingRequests):
    """One connection. It is idle, or a request arrives, or one is being answered; only answering has no time-out here.

    An idle connection is closed after the keep-alive time, also before its first request. A request has `receive_timeout_s`
    to arrive in, from its first byte to its last, also when it is answered early and the rest of its body is thrown away.
    A request that arrives at once, as most do, costs no timer. The client has `send_timeout_s` to read an answer.

    When there are too many connections, one of a client that has many is closed, or an idle one. When none can be closed, the
    new one may ask a probe, once, and nothing else.
    """

    _receive_timer: asyncio.TimerHandle | None = None
    _half_closed: HalfClosed | None = None
    """Set once the client has closed its sending side while answers are due."""
    _leaving = False
    """Whether the server is stopping."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client has connected; it is idle so far."""
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
        """Close this connection for the sake of another one; a request that is arriving is told why."""
        self.shared.metrics.connection_ended("made_room")
        if self._unread or self.transport.is_closing():
            self.transport.abort()
        elif self._arriving:
            self._refuse(refusals.too_many_connections(self.shared.limit.max_connections))
        else:
            self._deaf = self._rest is not None
            self.transport.close()

    def drop(self) -> None:
        """Close this connection at once."""
        self.transport.abort()

    def look_at_backlog(self, now_s: float) -> None:
        """Close the connection of a client that does not read its answers."""
        age_s = self._backlog.age_s(now_s)
        if age_s > (min(self.shared.send_timeout_s, DRAIN_UNREAD_S) if self._leaving else self.shared.send_timeout_s):
            self.shared.metrics.connection_ended("unread")
            self.transport.abort()
        elif self._unread != (age_s >= UNREAD_AFTER_S):
            self._unread = not self._unread
            self._tell_activity()

    def shutdown(self) -> None:
        """The server stops: answer what has been parsed, and nothing after it."""
        self._leaving = True
        self._forget_rest()
        if self.transport.is_closing():
            self.loop.call_later(DRAIN_LINGER_S, self.transport.close)
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: wake whoever waits for it, and give back what it held."""
        self._end_receive_timer()
        self._unset_keepalive_if_required()  # uvicorn leaves it running after a reset
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
            # uvicorn tells only the latest request, but an earlier one may be the one that is being answered.
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio wants to know whether to keep the connection
        """The client has closed its sending side. Returns whether to keep the connection, as for one that waits for answers."""
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
        """Parse some bytes of one or several requests."""
        if self.transport.is_closing() or self._deaf:
            return
        self._parse(data, 0)
        if self._rest is not None:
            self.shared.metrics.held_back.inc()
            self._holdings.take(None, len(data))

    def _parse(self, data: bytes, start: int) -> None:
        """Parse one request after the other from `data[start:]`, until too many of them are unanswered."""
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
        self._tell_activity()

    def on_message_complete(self) -> None:
        """The request is complete; if its answer has been sent already, the connection is idle from now on."""
        self._arriving = False
        if self._receive_timer is not None:
            self._end_receive_timer()
        super().on_message_complete()
        self._holdings.arrived(self.cycle)
        if self.cycle is not None and self.cycle.response_complete:  # `None`: parsed again without its upgrade
            self._be_idle()

    def on_response_complete(self) -> None:
        """A request is answered; part of its body, or of the next request, may still be on its way."""
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
        self._tell_activity()

    def read_on(self) -> bool:
        """Parse some of what was held back; returns whether anything was."""
        if self._rest is None:
            return False
        rest, self._rest = self._rest, None
        self._parse(*rest)
        if self._rest is None and not self.transport.is_closing():
            self._holdings.release(None)
            self.transport.reading_held = False
            self.flow.read_paused = True  # it still is, even if somebody tried to resume it meanwhile
            if not self.pipeline and len(self.cycle.body) <= HIGH_WATER_LIMIT:  # else uvicorn reads on in time
                self.flow.resume_reading()
            if not self._unanswered() and not self._arriving:
                self._be_idle()
        return True

    def _be_idle(self) -> None:
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            patience_s = self._patience_s(self.timeout_keep_alive)
            self.timeout_keep_alive_task = self.loop.call_later(patience_s, self.timeout_keep_alive_handler)

    def _patience_s(self, usual_s: float) -> float:
        return min(usual_s, SURPLUS_PATIENCE_S) if self._surplus else usual_s

    def _limit_arrival(self) -> None:
        """Give what arrives `receive_timeout_s`, unless it is the server that keeps it waiting."""
        if self.pipeline:
            self._end_receive_timer()
        elif self._receive_timer is None and not self.transport.is_closing():
            self._receive_timer = self.loop.call_later(self._patience_s(self.shared.receive_timeout_s), self._give_up)

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
        """Seconds to wait for more from the client when the connection is closed; 0: it sends nothing more."""
        if self._half_closed or not (self._arriving or self._deaf):
            return 0.0
        if not self._leaving:
            return LINGER_S
        return DRAIN_LINGER_S if self._deaf or self._app_knows() else 0.0  # else nothing was sent to it that could get lost

    def _refuse(self, problem: Problem) -> None:
        """End what arrives with this problem, and the connection after it; answers to earlier requests are still sent."""
        if self.transport.is_closing():
            return
        self._deaf = True
        self._forget_rest()
        self.shared.limit.told(self)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
            if self._app_knows() and cycle.more_body:  # else it is the request after it that is refused
                self._end_arrival(cycle, problem)
        elif self._app_knows():
            self.transport.close()
        else:
            context = context_of(self.headers or [])
            answer = self.shared.problems.answer(problem)
            self.transport.write_now(refusals.whole(answer, context, self.server_state.default_headers, keep_alive=False))
            self.transport.close()
            logger.debug("%d without the app: %s", problem.status, problem.detail, extra={CONTEXT_KEY: context})


def protocol_for(
    settings: Settings,
    metrics: Metrics,
    problems: Problems,
    addresses: ClientAddresses,
    refuse: Refuse,
    tallies: tuple[Tally, Tally] | None = None,
) -> type[HttpProtocol]:
    """The protocol class of one server, to be given to uvicorn.

    Args:
        settings: Of the service.
        metrics: Counts connections, and what is refused before the app sees it.
        problems: The app's, to word refusals alike.
        addresses: The app's, so that each client is the same to both.
        refuse: The app's, to refuse by the head alone.
        tallies: Of connections, and of bytes of bodies, where the limits are on the sums over several processes.
    """

    class Protocol(HttpProtocol):
        shared = Shared.of(settings, metrics, problems, addresses, refuse, tallies)

    return Protocol
