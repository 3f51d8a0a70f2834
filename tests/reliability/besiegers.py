"""One process with many attackers at once: they ask far ahead, read nothing, never finish, or post what is slow to decode."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache

from benchmarks.serving.client import post
from service.images.jpeg import MAX_FULL_SCANS
from tests.hostile_images import FULL_SIDE, png, scan_bomb

Address = tuple[str, int]

AHEAD_BYTES = 2**18
"""Of requests that a pipelining client sends in one piece."""
AHEAD = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
)
PAGES = AHEAD[0] * 400
"""Answers to them are far more than the buffers of a socket hold."""
HALF_HEAD = b"POST /v1/recognize HTTP/1.1"
SEND_S, HOLD_S, AGAIN_S = 1.0, 1.0, 0.05
MUTE_HOLD_S = 20.0
CONNECT_S = 5.0
SMALL_BUFFER_BYTES = 4096
ESTABLISHED = 1
"""The first byte of `TCP_INFO`."""
NICENESS = 5
"""Real attackers take no core of the server's."""
PIPELINING, MUTE, HALF, LIST = "pipelining", "does not read", "half a head", "slow list"


@dataclass(frozen=True, slots=True)
class Force:
    """How many there are of each kind."""

    pipelining: int = 35
    mute: int = 50
    half_heads: int = 200
    list_images: int = 128
    """Images in one slow list; there is one such client."""
    list_every_s: float = 30.0
    own_addresses: bool = False
    """Whether they come from addresses (127.0.0.2 and on) other than the good clients'."""


@dataclass(slots=True)
class Seen:
    """What they did and were told, by kind."""

    opened: Counter[str] = field(default_factory=Counter)
    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    sent_bytes: Counter[str] = field(default_factory=Counter)


def besiege(address: Address, force: Force, seconds: float) -> Seen:
    """Attack for so long, in this process."""
    if os.nice(0) < NICENESS:
        os.nice(NICENESS)
    return asyncio.run(_Besiegers(address, force).attack(seconds))


@cache
def slow_list(n_images: int) -> bytes:
    """A request with images that are small as files, permitted, and slow to decode: some 0.1 s each."""
    files = (scan_bomb(MAX_FULL_SCANS - 8), png(FULL_SIDE, FULL_SIDE, color=6, depth=16))
    contents = [base64.b64encode(file).decode() for file in files]
    images = [{"content": contents[index % len(contents)]} for index in range(n_images)]
    return post(json.dumps({"images": images}).encode(), "application/json")


class _Besiegers:
    def __init__(self, address: Address, force: Force) -> None:
        self._address = address
        self._force = force
        self._seen = Seen()

    async def attack(self, seconds: float) -> Seen:
        force = self._force
        tasks = [asyncio.create_task(self._post_slow_lists())]
        tasks += [asyncio.create_task(self._pipeline(number)) for number in range(force.pipelining)]
        tasks += [asyncio.create_task(self._ask_and_never_read()) for _ in range(force.mute)]
        tasks += [asyncio.create_task(self._begin_and_never_end()) for _ in range(force.half_heads)]
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()  # it has failed: nothing else ends one of them
        return self._seen

    async def _pipeline(self, number: int) -> None:
        request = AHEAD[number % len(AHEAD)]
        content = request * (AHEAD_BYTES // len(request))
        while True:
            async with self._connected(PIPELINING) as connection:
                await self._send(PIPELINING, connection, content)
                await asyncio.sleep(HOLD_S)

    async def _ask_and_never_read(self) -> None:
        while True:
            async with self._connected(MUTE) as connection:
                await self._send(MUTE, connection, PAGES)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(MUTE_HOLD_S):
                        while _is_established(connection):  # noqa: ASYNC110
                            await asyncio.sleep(0.5)
                        self._seen.told[MUTE, "cut off"] += 1

    async def _begin_and_never_end(self) -> None:
        while True:
            async with self._connected(HALF) as connection:
                await self._send(HALF, connection, HALF_HEAD)
                self._seen.told[HALF, await _status(connection)] += 1

    async def _post_slow_lists(self) -> None:
        async with asyncio.TaskGroup() as lists:
            while True:
                lists.create_task(self._post_slow_list())
                await asyncio.sleep(self._force.list_every_s)

    async def _post_slow_list(self) -> None:
        async with self._connected(LIST) as connection:
            await self._send(LIST, connection, slow_list(self._force.list_images), patience_s=self._force.list_every_s)
            self._seen.told[LIST, await _status(connection)] += 1

    @asynccontextmanager
    async def _connected(self, kind: str) -> AsyncIterator[socket.socket]:
        """A connection, as soon as there can be one; afterwards it is hung up, whatever is still on its way."""
        connection = await self._connect(kind)
        with connection:
            yield connection
        await asyncio.sleep(AGAIN_S)

    async def _connect(self, kind: str) -> socket.socket:
        while True:
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
            connection.setblocking(False)
            try:
                if self._force.own_addresses:
                    connection.bind((f"127.0.0.{2 + self._seen.opened.total() % 8}", 0))
                async with asyncio.timeout(CONNECT_S):
                    await asyncio.get_running_loop().sock_connect(connection, self._address)
            except BaseException as error:
                connection.close()
                if not isinstance(error, (OSError, TimeoutError)):
                    raise
                self._seen.told[kind, "not let in"] += 1
                await asyncio.sleep(AGAIN_S)
            else:
                self._seen.opened[kind] += 1
                return connection

    async def _send(self, kind: str, connection: socket.socket, content: bytes, patience_s: float = SEND_S) -> None:
        """As much as is taken in the time."""
        left = memoryview(content)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(patience_s):
                while left:
                    await asyncio.get_running_loop().sock_sendall(connection, left[: 2**14])
                    self._seen.sent_bytes[kind] += len(left[: 2**14])
                    left = left[2**14 :]


def _is_established(connection: socket.socket) -> bool:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED


async def _status(connection: socket.socket) -> str:
    """Of the answer, when one comes."""
    try:
        begin = await asyncio.get_running_loop().sock_recv(connection, 64)
    except OSError:
        return "cut off"
    found = re.match(rb"HTTP/1\.1 (\d+)", begin)
    return found[1].decode() if found else "cut off"
