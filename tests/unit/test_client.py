"""The client against a server that refuses, breaks off, is slow or answers nonsense; both clients do all of it alike."""

from __future__ import annotations

import asyncio
import io
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from parseq_client import (
    AsyncClient,
    BusyError,
    Client,
    CropError,
    DeadlineError,
    NotFoundError,
    ParseqError,
    Region,
    RequestError,
    ServerError,
    UnauthorizedError,
    UnreachableError,
)
from parseq_client.retries import Patience, retry_after_s
from tests.fakes import FakeClock
from tests.misbehaving_server import misbehaving, problem, read_as

CROPS = [b"crop %d" % number for number in range(20)]


class Both:
    """Calls a method of the one client or of the other, and keeps how long it slept."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous
        self.slept_s: list[float] = []

    def __call__(self, url: str, method: str, *arguments: Any, of_client: dict[str, Any] | None = None, **options: Any) -> Any:
        settings = {"timeout_s": 20.0, **(of_client or {})}
        if not self.asynchronous:
            with Client(url, sleep=self.slept_s.append, **settings) as client:
                return getattr(client, method)(*arguments, **options)

        async def sleep(seconds: float) -> None:
            self.slept_s.append(seconds)

        async def call() -> Any:
            async with AsyncClient(url, sleep=sleep, **settings) as client:
                return await getattr(client, method)(*arguments, **options)

        return asyncio.run(call())


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def do(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)


def texts(results: Sequence[Any]) -> list[str]:
    return [result.text for result in results]


def test_a_busy_server_is_asked_again_after_what_it_says(do: Both) -> None:
    busy = problem(429, "queue-full", Retry_After="2")
    with misbehaving(busy, problem(503, "not-ready", Retry_After="1"), problem(503, "not-ready")) as server:
        assert do(server.url, "read", b"x").text == "0"
    first, second, third = do.slept_s
    assert 2 <= first <= 2.6
    assert 1 <= second <= 1.35
    assert 0.5 <= third <= 1


def test_a_server_that_wants_more_time_than_there_is_is_not_waited_for(do: Both) -> None:
    with (
        misbehaving(problem(429, "queue-full", Retry_After="60")) as server,
        pytest.raises(BusyError, match="Because") as error,
    ):
        do(server.url, "read", b"x", timeout_s=10)
    assert do.slept_s == []
    assert error.value.problem is not None
    assert (error.value.problem.slug, error.value.problem.status, error.value.request_id) == ("queue-full", 429, "the-id")


def test_attempts_end(do: Both) -> None:
    with misbehaving(*[problem(503, "not-ready")] * 5) as server:
        with pytest.raises(BusyError):
            do(server.url, "read", b"x", of_client={"attempts": 3})
        assert len(server.requests) == 3


def test_unless_attempts_are_counted_the_time_alone_decides(do: Both) -> None:
    with misbehaving(*[problem(503, "not-ready")] * 20) as server:
        assert do(server.url, "read", b"x").text == "0"
        assert len(server.requests) == 21


def test_a_connection_that_breaks_off_is_made_anew(do: Both) -> None:
    with misbehaving("reset", "reset") as server:
        assert do(server.url, "read", b"x").text == "0"
        assert len(server.requests) == 3


def test_nobody_there(do: Both) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UnreachableError, match=rf"no answer from http://127.0.0.1:{port} in 3 attempts: "):
        do(f"http://127.0.0.1:{port}", "read", b"x", of_client={"attempts": 3})
    assert len(do.slept_s) == 2
    assert do(f"http://127.0.0.1:{port}", "is_ready") is False


def test_a_slow_answer_is_given_up_at_the_deadline(do: Both) -> None:
    with misbehaving("slow") as server:
        started_s = time.monotonic()
        with pytest.raises(DeadlineError):
            do(server.url, "read", b"x", timeout_s=0.4)
        assert time.monotonic() - started_s < 9  # all of it would take ten
        assert 200 < int(server.headers[0]["X-Request-Timeout-Ms"]) <= 400


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, RequestError), (401, UnauthorizedError), (404, NotFoundError), (409, RequestError), (500, ServerError)],
)
def test_what_will_not_do_better_is_not_sent_again(do: Both, status: int, kind: type[ParseqError]) -> None:
    with misbehaving(problem(status, "so")) as server:
        with pytest.raises(kind, match=f"{status}: It is so. Because."):
            do(server.url, "read", b"x")
        assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"results": []}', b'{"results": [{"text": "a"}]}'])
def test_an_answer_of_something_else_is_told(do: Both, body: bytes) -> None:
    with misbehaving((200, {}, body)) as server, pytest.raises(ServerError, match="parseq-service"):
        do(server.url, "read", b"x")


def test_an_error_page_of_a_gateway_has_no_problem_document(do: Both) -> None:
    with misbehaving((403, {}, b"<html>")) as server, pytest.raises(UnauthorizedError, match="403: Forbidden") as error:
        do(server.url, "read", b"x")
    assert error.value.problem is None


def test_many_crops_go_in_few_requests_and_come_in_order(do: Both) -> None:
    with misbehaving() as server:
        results = do(server.url, "read_many", iter(CROPS), of_client={"crops_per_request": 6, "connections": 2})
        assert texts(results) == [result.id for result in results] == [str(number) for number in range(20)]
        assert sorted(map(len, server.requests)) == [2, 6, 6, 6]
        assert server.most_at_once <= 2
        assert do(server.url, "read_many", []) == []


def test_the_limits_of_the_service_hold(do: Both) -> None:
    with misbehaving() as server:
        server.limits = {"max_body_bytes": 3000, "max_crops_per_request": 3, "max_regions": 4}
        assert len(do(server.url, "read_many", [b"x" * 1200] * 5 + [b"x"] * 5 + [b"x" * 9000])) == 11
        assert sorted(map(len, server.requests)) == [1, 1, 1, 1, 2, 2, 3] or max(map(len, server.requests)) == 3
        assert all(
            int(each["Content-Length"]) <= 3000
            for each, ids in zip(server.headers, server.requests, strict=True)
            if len(ids) > 1
        )


def test_a_request_that_is_too_large_is_halved(do: Both) -> None:
    def at_most_two(ids: list[str]) -> Any:
        return read_as(ids) if len(ids) <= 2 else problem(413, "body-too-large")

    def none(_ids: list[str]) -> Any:
        return problem(413, "body-too-large")

    with misbehaving(*[at_most_two] * 8) as server:
        assert texts(do(server.url, "read_many", CROPS[:7], of_client={"attempts": 1})) == list("0123456")
    with misbehaving(none, none, none) as server:
        results = do(server.url, "read_many", CROPS[:2])
        assert [result.error.slug for result in results] == ["body-too-large"] * 2


def test_a_crop_that_fails_does_not_fail_the_others(do: Both) -> None:
    def mixed(ids: list[str]) -> Any:
        _, _, answer = read_as(ids)
        answer["results"][1] = {"id": ids[1], "error": problem(422, "unreadable-image")[2]}
        return 200, {}, answer

    with misbehaving(mixed) as server:
        first, second, third = do(server.url, "read_many", CROPS[:3])
    assert (first.ok, second.ok, third.text) == (True, False, "2")
    assert second.error.slug == "unreadable-image"
    assert second.text == ""


def test_crops_that_were_not_reached_in_time_are_asked_for_again(do: Both) -> None:
    def late(ids: list[str]) -> Any:
        _, _, answer = read_as(ids)
        answer["results"][0] = {"id": ids[0], "error": problem(504, "deadline-expired")[2]}
        return 200, {}, answer

    with misbehaving(late) as server:
        assert texts(do(server.url, "read_many", CROPS[:3])) == ["0", "1", "2"]
        assert server.requests == [["0", "1", "2"], ["0"]]
    with misbehaving(late, late) as server, pytest.raises(DeadlineError):
        do(server.url, "read", b"x", of_client={"attempts": 2})


def test_one_crop_without_a_text_is_an_error(do: Both) -> None:
    refused = 200, {}, {"results": [{"id": "0", "error": problem(422, "unreadable-image")[2]}]}
    with misbehaving(refused) as server, pytest.raises(CropError, match="It is unreadable-image") as error:
        do(server.url, "read", b"x")
    assert error.value.problem is not None
    assert error.value.problem.slug == "unreadable-image"


def test_options_key_and_headers_are_sent(do: Both) -> None:
    with misbehaving() as server:
        of_client = {"api_key": "sesame", "headers": {"X-Mine": "1"}}  # pragma: allowlist secret
        do(f"{server.url}/ocr/", "read", b"x", charset="chars:+&", alternatives=3, characters=True, of_client=of_client)
        assert server.paths == ["/ocr/v1/recognize?charset=chars%3A%2B%26&alternatives=3&characters=true&list=true"]
        assert (server.headers[0]["X-API-Key"], server.headers[0]["X-Mine"]) == ("sesame", "1")
        with pytest.raises(TypeError, match="no such option: charsets"):
            do(server.url, "read", b"x", charsets="digits")
    assert "sesame" not in repr(Client("http://localhost", api_key="sesame").settings)  # pragma: allowlist secret


def test_regions_go_in_as_many_requests_as_the_service_wants(do: Both) -> None:
    with misbehaving() as server:
        given = [Region(box=(0, 0, 5, 5), id="title"), (0, 0, 5, 5), [(0, 0), (5, 0), (5, 5), (0, 5)], *[(1, 1, 2, 2)] * 3]
        results = do(server.url, "read_regions", b"page", given)
        assert [result.id for result in results] == ["title", "1", "2", "3", "4", "5"]
        assert list(map(len, server.requests)) == [4, 2]
        assert server.paths[1:] == ["/v1/regions"] * 2
        assert do(server.url, "read_regions", b"page", []) == []


def test_pictures_may_be_given_in_many_ways(do: Both, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    given = [b"x", bytearray(b"x"), tmp_path / "a.png", str(tmp_path / "a.png"), io.BytesIO(b"x"), Image.new("RGB", (2, 2))]
    with misbehaving() as server:
        assert len(do(server.url, "read_many", given)) == 6
        with pytest.raises(FileNotFoundError):
            do(server.url, "read", tmp_path / "b.png")
        for nothing in (3, io.StringIO("x")):
            with pytest.raises(TypeError, match="no image"):
                do(server.url, "read", nothing)


def test_results_come_while_crops_are_still_made() -> None:
    made = 0

    def crops() -> Iterator[bytes]:
        nonlocal made
        while made < 1000:
            made += 1
            yield b"x"

    with misbehaving() as server, Client(server.url, connections=2) as client:
        each = client.read_each(crops())
        assert next(each).text == "0"
        assert made < 100
        each.close()  # type: ignore[attr-defined]


def test_a_failed_request_ends_the_others() -> None:
    with misbehaving(problem(401, "unauthorized")) as server, Client(server.url) as client:
        with pytest.raises(UnauthorizedError):
            client.read_many(CROPS)
        assert client.read(b"x").ok


def test_a_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    import ssl

    def refuse(_request: httpx.Request) -> httpx.Response:
        # As httpx has it: its own error, from that of the library beneath, from Python's.
        beneath = OSError("certificate verify failed")
        beneath.__context__ = ssl.SSLCertVerificationError("self-signed")
        raise httpx.ConnectError("certificate verify failed") from beneath

    slept_s: list[float] = []
    client = Client("https://localhost", transport=httpx.MockTransport(refuse), sleep=slept_s.append)
    with client, pytest.raises(UnreachableError, match="certificate"):
        client.read(b"x")
    assert slept_s == []


@pytest.mark.parametrize(
    ("change", "named"),
    [({"url": "localhost:8000"}, "url"), ({"timeout_s": 0.01}, "timeout_s"), ({"connections": 0}, "connections")],
)
def test_settings_that_cannot_be_are_told(change: dict[str, Any], named: str) -> None:
    arguments = {"url": "http://localhost", **change}
    with pytest.raises(ValueError, match=named):
        Client(**arguments)


def patience(chance: Callable[[], float], timeout_s: float = 100.0, attempts: int = 9) -> Patience:
    return Patience(timeout_s, attempts, FakeClock(), chance)


def test_pauses_double_and_differ_between_clients() -> None:
    for chance, expected in ((lambda: 0.0, [0.125, 0.25, 0.5, 1]), (lambda: 1.0, [0.25, 0.5, 1, 2])):
        mine, pauses_s = patience(chance), []
        for mine.sent in range(1, 5):
            pauses_s.append(mine.pause_s(None))
        assert pauses_s == expected
    late = patience(lambda: 1.0)
    late.sent = 8
    assert late.pause_s(None) == 8.0


def test_the_pause_fits_into_the_time_that_is_left() -> None:
    mine = patience(lambda: 1.0, timeout_s=2.2)
    mine.sent = 1
    assert mine.pause_s(2.0) == pytest.approx(2.1)
    assert mine.pause_s(2.5) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("3", 3), (None, None), ("soon", None), ("Thu, 01 Jan 2026 00:00:30 GMT", 30), ("Thu, 01 Jan 2015 00:00:00 GMT", 0)],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, lambda: datetime(2026, 1, 1, tzinfo=UTC)) == expected
