"""The clients of the proofs against a server that cheats: what they are there to find, they find."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from tests.chaos.wild_requests import WildRequest
from tests.reliability.clients import Crowd, Record

REQUESTS = 3


class Same:
    def next(self) -> WildRequest:
        return WildRequest("image/png", b"body", ["word"], single=True)


def answer(request_id: str, text: str = "word") -> bytes:
    body = json.dumps({"text": text})
    return f"HTTP/1.1 200 OK\r\nX-Request-Id: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def record_of(cheat: str) -> Record:
    """What clients see of a server that cheats in this way, always."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(1000):
            found = re.search(rb"X-Request-Id: (\S+)", head)
            assert found
            request_id = found[1].decode()
            match cheat:
                case "other id":
                    writer.write(answer("another"))
                case "other text":
                    writer.write(answer(request_id, "another"))
                case "twice":
                    writer.write(2 * answer(request_id))
                case "cut":
                    writer.write(answer(request_id)[:-1])
                    break
                case _:
                    writer.write(answer(request_id))
        writer.close()

    async def scenario() -> Record:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            crowd = Crowd(server.sockets[0].getsockname(), Same())
            await crowd.closed(1, lambda: crowd.record.sent < REQUESTS)
            return crowd.record

    return asyncio.run(scenario())


def test_an_honest_server() -> None:
    record = record_of("not at all")
    assert (record.statuses[200], record.wrong, record.lost, record.doubled) == (REQUESTS, 0, 0, 0)
    assert not record.complaints


@pytest.mark.parametrize("cheat", ["other id", "other text"])
def test_wrong_answers(cheat: str) -> None:
    record = record_of(cheat)
    assert (record.wrong, record.lost) == (REQUESTS, 0)
    assert len(record.complaints) == REQUESTS


def test_answers_that_come_twice() -> None:
    record = record_of("twice")
    assert record.wrong or record.doubled  # taken for the answer to the next request, or found at the end


def test_answers_that_are_cut_off() -> None:
    assert record_of("cut").lost == REQUESTS
