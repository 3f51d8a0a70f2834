"""What the servers of all protocols need of whatever serves the models: the runtime, or a front process's stand-in for it."""

from __future__ import annotations

from typing import Protocol

from service.config import Settings
from service.core.metrics import Metrics
from service.core.models import Model, Models
from service.tracing.tracing import Tracing


class Tally(Protocol):
    """A number that each of several processes has, such as its connections, where a limit is on their sum."""

    def tell(self, value: int) -> None:
        """The number of this process is now so large."""
        ...

    def others(self) -> int:
        """The sum of the others' numbers, as of a moment ago."""
        ...


class Host(Protocol):
    """Models, metrics and the lifecycle of a server."""

    settings: Settings
    metrics: Metrics
    tracing: Tracing | None

    @property
    def models(self) -> Models[Model]:
        """The served models."""
        ...

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the process can still do its work, now or after warm-up."""
        ...

    def start(self) -> None:
        """Begin the warm-up. On the event loop."""
        ...

    def drain(self) -> float:
        """Turn readiness off; requests in flight go on. Returns when that began, on the monotonic clock."""
        ...

    async def stop(self) -> None:
        """Turn readiness off, run what was admitted, and end the threads."""
        ...

    async def scrape(self, openmetrics: bool) -> bytes:
        """The metrics of all processes, in the text format or as OpenMetrics.

        Raises:
            Problem: They could not be gathered in time.
        """
        ...
