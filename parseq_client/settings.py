"""How a client is set, whether it is the one or the other."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from parseq_client.retries import MIN_TIMEOUT_S, Patience

KEY_HEADER: Final = "X-API-Key"


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What both clients are made with; their own documentation says what each is."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    attempts: int | None = None
    connections: int = 4
    crops_per_request: int = 32
    headers: Mapping[str, str] = field(default_factory=dict)
    verify: ssl.SSLContext | bool = True

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            ValueError: One cannot be so; the message names it.
        """
        try:
            address = httpx.URL(self.url)
        except httpx.InvalidURL:
            address = httpx.URL()
        if address.scheme not in ("http", "https") or not address.host:
            raise ValueError(f"url: {self.url!r} is no address of a service; http://HOST:PORT or https://HOST:PORT is one")
        for name, least in (("timeout_s", MIN_TIMEOUT_S), ("attempts", 1), ("connections", 1), ("crops_per_request", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")

    def of_http(self) -> dict[str, Any]:
        """Arguments for the client of httpx. What is behind the address (`https://example.org/ocr`) stays before each path."""
        key = {} if self.api_key is None else {KEY_HEADER: self.api_key}
        limits = httpx.Limits(max_connections=self.connections, max_keepalive_connections=self.connections)
        base_url = self.url.rstrip("/")
        # To read the system's certificates takes longer than many a request; no redirect is followed, so HTTP never needs them.
        verify = self.verify if base_url.lower().startswith("https:") else False
        return {"base_url": base_url, "headers": {**self.headers, **key}, "limits": limits, "verify": verify}

    def patience(self, timeout_s: float | None) -> Patience:
        """For one call.

        Raises:
            ValueError: The time is shorter than any the service accepts.
        """
        wanted_s = self.timeout_s if timeout_s is None else timeout_s
        if wanted_s < MIN_TIMEOUT_S:
            raise ValueError(f"timeout_s must be at least {MIN_TIMEOUT_S}, not {wanted_s}")
        return Patience(wanted_s, self.attempts)
