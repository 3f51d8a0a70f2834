"""The checks that a request passes before it is answered. `App` has their order; each sees what earlier ones found out."""

from __future__ import annotations

from typing import Protocol

from service.errors import Problem
from service.http.head import Head


class Gate(Protocol):
    """A check of one app. It is called on the event loop, before the body of a request is read."""

    def check(self, head: Head) -> Problem | None:
        """Note in `head` what this gate finds out. Returns `None` to let the request pass, or the problem that answers it."""
        ...
