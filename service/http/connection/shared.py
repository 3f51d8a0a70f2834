"""What the connections of one server have in common."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from service.config import Settings
from service.core.host import Tally
from service.core.metrics import Metrics
from service.http.connection.body_budget import BodyBudget, bodies_bytes
from service.http.connection.limit import ConnectionLimit
from service.http.connection.pacing import Pace
from service.http.connection.slow_readers import SlowReaders
from service.http.gates.client_address import ClientAddresses
from service.http.problems import Answer, Problems
from service.process.open_files import max_open_files, surplus_within

Refuse = Callable[[MutableMapping[str, Any]], Answer | None]
"""What the app's gates say to the request of a scope."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Settings, counters and bounds. The addresses are the app's, so that each client is the same to both."""

    metrics: Metrics
    problems: Problems
    addresses: ClientAddresses
    refuse: Refuse
    limit: ConnectionLimit
    budget: BodyBudget
    pace: Pace
    slow_readers: SlowReaders
    receive_timeout_s: float
    send_timeout_s: float
    max_head_bytes: int
    max_headers: int

    @classmethod
    def of(
        cls,
        settings: Settings,
        metrics: Metrics,
        problems: Problems,
        addresses: ClientAddresses,
        refuse: Refuse,
        tallies: tuple[Tally, Tally] | None = None,
    ) -> Shared:
        """What a server with these settings shares. The tallies are those of connections and of bytes of bodies, if several
        processes share the limits; the other arguments are the app's."""
        of_connections, of_bodies = tallies or (None, None)
        budget = BodyBudget(bodies_bytes(settings), of_bodies)
        metrics.body_bytes.set_function(lambda: budget.held_bytes)
        most = settings.max_connections
        return cls(
            metrics,
            problems,
            addresses,
            refuse,
            ConnectionLimit(most, surplus_within(max_open_files(), most), tally=of_connections),
            budget,
            Pace(),
            SlowReaders(settings.send_timeout_s),
            settings.receive_timeout_s,
            settings.send_timeout_s,
            settings.max_head_bytes,
            settings.max_headers,
        )
