"""Which client a request comes from, by address: the peer's own, or the one for which a trusted proxy forwards.

Behind a gateway all clients have its address. If that is trusted (`PARSEQ_TRUSTED_PROXIES`), the client is the last address of
`X-Forwarded-For` that is not a trusted proxy's. From anybody else the header is ignored, since anybody can write it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from service.config import ip_networks_of
from service.http.head import Head

FORWARDED_FOR: Final = b"x-forwarded-for"
IPV6_PREFIX: Final = 64
"""Bits of an IPv6 address that tell a client: each customer of a provider can choose the rest freely."""


class ClientAddresses:
    """Tells clients apart.

    Args:
        trusted: Addresses and networks in CIDR notation, with commas between them; empty: no proxy is trusted.

    Raises:
        ValueError: One of them is neither.
    """

    def __init__(self, trusted: str = "") -> None:
        self._trusted = ip_networks_of(trusted)
        self._client = lru_cache(4096)(_client_of)
        self._is_trusted = lru_cache(4096)(self._look_up)

    def is_trusted(self, peer: str) -> bool:
        """Whether the address `peer` is a proxy whose `X-Forwarded-For` counts."""
        return bool(self._trusted) and self._is_trusted(peer)

    def check(self, head: Head) -> None:
        """Set `head.client`, unless it is known already."""
        if head.client is None and head.peer is not None:
            head.client = self.client_of(head.peer, head.lines) if self._trusted else self._client(head.peer)

    def client_of(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The client behind a request: an IPv4 address, or the first 64 bits of an IPv6 one.

        Args:
            peer: Address of the other end of the connection.
            headers: Of the request, names in lower case.
        """
        if not self._trusted or not self._is_trusted(peer):
            return self._client(peer)
        forwarded = b",".join(value for name, value in headers if name == FORWARDED_FOR)
        for hop in reversed(forwarded.decode("latin-1").split(",")):
            address = _without_port(hop.strip())
            if not address:
                continue
            if not self.is_trusted(address):
                return self._client(address)
        return self._client(peer)

    def _look_up(self, peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        if (
            isinstance(address, IPv6Address) and address.ipv4_mapped is not None
        ):  # how a socket for both families shows IPv4 addresses
            address = address.ipv4_mapped
        return any(address in network for network in self._trusted)


def _without_port(hop: str) -> str:
    """The address without the port that some gateways add: `203.0.113.9:51234` or `[2001:db8::1]:443`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _client_of(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]  # a socket in the file system, or something else that a proxy wrote: each counts as a client
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, IPV6_PREFIX), strict=False))
