"""What a request passes before it is answered. `App` has them in their order; each sees what those before it found out."""

from __future__ import annotations

from typing import Protocol

from service.errors import Problem
from service.http.head import Head


class Gate(Protocol):
    """Of one app. It is asked on the event loop, before the body of a request is read."""

    def check(self, head: Head) -> Problem | None:
        """Note in `head` what this gate is to find out; `None` lets the request pass, a problem is its answer."""
        ...
