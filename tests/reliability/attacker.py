"""One process that posts hostile requests, one after the other, while others trickle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from dataclasses import dataclass
from functools import cache

import uvloop

from service.errors import REQUEST_TIMEOUT, URN_PREFIX
from tests.fakes import PATIENCE_S
from tests.reliability.hostile_requests import HostileRequest, hostile_requests

PAUSE_S = 0.1
"""Between the answer to one hostile request and the next one."""
LORISES = 20
TRICKLE_S = 0.2
LORIS = "slow loris"
LORIS_HEAD = b"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"

Address = tuple[str, int]


@dataclass(frozen=True)
class Told:
    """How one hostile request was answered."""

    name: str
    answer: str
    permitted: bool
    duration_s: float


def attack_for(address: Address, phase_s: float) -> list[Told]:
    """Attack for so long, or with each request once for no time at all."""
    return uvloop.run(_attack(address, phase_s))


@cache
def _encoded() -> list[tuple[HostileRequest, bytes]]:
    return [(request, request.encoded()) for request in hostile_requests()]


_next = 0
"""The request to go on with: a phase may be too short for all."""


async def _attack(address: Address, phase_s: float) -> list[Told]:
    global _next
    told: list[Told] = []
    requests = _encoded()
    if phase_s == 0:
        return [await _post(address, request, encoded) for request, encoded in requests]
    trickling = [asyncio.create_task(_trickle_for_ever(address, told)) for _ in range(LORISES)]
    end_s = time.monotonic() + phase_s
    while time.monotonic() < end_s:
        told.append(await _post(address, *requests[_next % len(requests)]))
        _next += 1
        await asyncio.sleep(PAUSE_S)
    for task in trickling:
        if not task.done():
            task.cancel()
    for outcome in await asyncio.gather(*trickling, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    return told


async def _post(address: Address, request: HostileRequest, encoded: bytes) -> Told:
    started_s = time.monotonic()
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(encoded)
        with contextlib.suppress(ConnectionError):  # it may say no and hang up before all is sent
            await writer.drain()
        async with asyncio.timeout(PATIENCE_S):
            answer = await _told(reader)
    finally:
        writer.transport.abort()
    permitted = {f"{kind.status} {kind.slug}" for kind in request.kinds}
    return Told(request.name, answer, answer in permitted, time.monotonic() - started_s)


async def _trickle_for_ever(address: Address, told: list[Told]) -> None:
    while True:
        started_s = time.monotonic()
        reader, writer = await asyncio.open_connection(*address)
        answer = asyncio.create_task(_told(reader))
        try:
            writer.write(LORIS_HEAD)
            while not answer.done():
                writer.write(b"x")
                await asyncio.sleep(TRICKLE_S)
            permitted = answer.result() == f"{REQUEST_TIMEOUT.status} {REQUEST_TIMEOUT.slug}"
            told.append(Told(LORIS, answer.result(), permitted, time.monotonic() - started_s))
        finally:
            answer.cancel()
            writer.transport.abort()


async def _told(reader: asyncio.StreamReader) -> str:
    """Status and problem of one answer; of a list of results, their one problem."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head, re.I)
        assert length, head
        document = json.loads(await reader.readexactly(int(length[1])))
    except (ConnectionError, asyncio.IncompleteReadError):
        return "no answer"
    if "results" in document:
        problems = {(result.get("error") or {"type": "read"})["type"] for result in document["results"]}
        document = document["results"][0]["error"] if len(problems) == 1 else {"status": 200, "type": " ".join(problems)}
    return f"{document.get('status', 200)} {document.get('type', 'read').removeprefix(URN_PREFIX)}"
