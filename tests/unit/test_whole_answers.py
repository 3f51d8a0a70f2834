"""Answers leave in one piece."""

from __future__ import annotations

import asyncio

from service.http.connection.whole_writes import WholeAnswers
from tests.fakes import until


class Recorder(asyncio.Transport):
    """What was done with a transport, in order."""

    def __init__(self) -> None:
        super().__init__({"peername": ("client", 1)})
        self.done: list[str | bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.done.append(bytes(data))

    def close(self) -> None:
        self.done.append("close")

    def is_closing(self) -> bool:
        return "close" in self.done

    def pause_reading(self) -> None:
        self.done.append("pause")

    def resume_reading(self) -> None:
        self.done.append("resume")

    def write_eof(self) -> None:
        self.done.append("eof")

    def abort(self) -> None:
        self.done.append("abort")

    def get_write_buffer_size(self) -> int:
        return 7


def after(*written: bytes, close: bool = False, rounds: int = 2) -> list[str | bytes]:
    """What a transport was told when these were written in a row."""

    async def write() -> list[str | bytes]:
        recorder = Recorder()
        transport = WholeAnswers(recorder, asyncio.get_running_loop())
        for data in written:
            transport.write(data)
        if close:
            transport.close()
            assert transport.is_closing()
        for _ in range(rounds):
            await asyncio.sleep(0)
        return list(recorder.done)  # the loop goes on

    return asyncio.run(write())


def test_head_and_body_leave_together_and_at_once() -> None:
    assert after(b"head", b"body", rounds=0) == [b"headbody"]


def test_a_head_alone_leaves_soon() -> None:
    assert after(b"head", rounds=0) == []
    assert after(b"head") == [b"head"]
    assert after(b"head", b"") == [b"head"]


def test_nothing_is_kept_when_the_connection_is_closed() -> None:
    assert after(b"head", close=True, rounds=0) == [b"head", "close"]
    assert after(b"head", b"body", close=True) == [b"headbody", "close"]
    assert after(close=True) == ["close"]


def test_what_is_held_is_dropped_when_the_connection_is_lost() -> None:
    async def lose() -> None:
        recorder = Recorder()
        WholeAnswers(recorder, asyncio.get_running_loop()).write(b"head")
        recorder.close()
        await asyncio.sleep(0)
        assert recorder.done == ["close"]

    asyncio.run(lose())


def test_nothing_is_written_to_who_is_gone() -> None:
    async def lose() -> None:
        recorder = Recorder()
        transport = WholeAnswers(recorder, asyncio.get_running_loop())
        recorder.close()
        for data in (b"head", b"body", b"head"):
            transport.write(data)
        transport.pause_reading()
        transport.resume_reading()
        await asyncio.sleep(0)
        assert recorder.done == ["close"]

    asyncio.run(lose())


def test_a_client_that_still_sends_is_listened_to_for_a_while() -> None:
    async def refuse() -> None:
        recorder = Recorder()
        transport = WholeAnswers(recorder, asyncio.get_running_loop(), lambda: 0.01)
        transport.write(b"no")
        transport.close()
        assert recorder.done == [b"no", "eof", "resume"]
        assert transport.is_closing()
        transport.write(b"more")
        await asyncio.sleep(0)
        assert recorder.done == [b"no", "eof", "resume"]
        await until(lambda: "close" in recorder.done)

    asyncio.run(refuse())


def test_closing_twice_does_not_wait() -> None:
    async def hurry() -> None:
        recorder = Recorder()
        transport = WholeAnswers(recorder, asyncio.get_running_loop(), lambda: 0.01)
        transport.close()
        transport.close()
        assert recorder.done == ["eof", "resume", "close"]

    asyncio.run(hurry())


def test_what_was_announced_is_not_said_again() -> None:
    async def announce() -> None:
        recorder = Recorder()
        transport = WholeAnswers(recorder, asyncio.get_running_loop())
        transport.announce()
        for data in (b"HTTP/1.1 200 OK", b"body", b"HTTP/1.1 200 OK", b"body"):
            transport.write(data)
        assert recorder.done == [b"HTTP/1.1 ", b"200 OKbody", b"HTTP/1.1 200 OKbody"]
        assert transport.sent_bytes == sum(len(data) for data in recorder.done)

    asyncio.run(announce())


def test_what_waits_is_bounded() -> None:
    assert after(b"1", b"2", b"3", b"4", b"5", rounds=0) == [b"12", b"34"]
    assert after(b"1", b"2", b"3", b"4", b"5") == [b"12", b"34", b"5"]


def test_the_rest_is_the_transports() -> None:
    async def use() -> None:
        recorder = Recorder()
        transport = WholeAnswers(recorder, asyncio.get_running_loop())
        assert not transport.is_closing()
        transport.pause_reading()
        transport.resume_reading()
        transport.abort()
        assert recorder.done == ["pause", "resume", "abort"]
        assert transport.get_write_buffer_size() == 7
        assert transport.get_extra_info("peername") == ("client", 1)
        assert transport.get_extra_info("socket", "none") == "none"

    asyncio.run(use())
