"""What runs the workers: processes of this machine, or actors of a Ray cluster. And what it tells of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from reading.bulk.parts import Job


class EngineError(RuntimeError):
    """The run cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """Some rows of a part were read."""

    job: Job
    rows: int


@dataclass(frozen=True, slots=True)
class Done:
    """A part was written."""

    job: Job
    errors: int
    """Rows of the part that could not be read."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Reading a part has raised an error."""

    job: Job
    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """A worker has ended while it had a part: killed, out of memory, or by a fault of a library."""

    job: Job
    reason: str


Event = Advanced | Done | Failed | Died


class Engine(Protocol):
    """Some workers."""

    def free(self) -> int:
        """How many workers wait for a part."""

    def give(self, job: Job) -> None:
        """Give a part to a worker that waits."""

    def wait(self, timeout_s: float) -> list[Event]:
        """What has happened, perhaps nothing.

        Raises:
            EngineError: The run cannot go on.
        """

    def close(self) -> None:
        """End all workers, also those that have a part."""
