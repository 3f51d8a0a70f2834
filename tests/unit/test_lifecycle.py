"""What happens to a server that runs: self-checks, lanes that hang, and another model while requests come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from artifact.metadata import ArtifactMetadata
from service.config import Settings
from service.core.metrics import Metrics
from service.core.runtime import Runtime
from service.core.served_model import ServedModel
from service.core.watchdog import Watchdog
from service.errors import NOT_ALIVE, StartupError
from service.process.logs import FORMAT, RequestFormatter
from service.process.request import RequestContext, current_request
from service.sessions.artifact import LoadedArtifact
from service.sessions.self_check import KnownAnswer
from service.sessions.topology import Topology
from tests.fakes import FakeClock, FakeSession, LaneKilled, read_toy, serving, toy_runtime, toy_settings, until
from tests.toy_artifact import METADATA, pixels_of, png_of

OFTEN_S = 0.001


def garbage(crops: Any) -> Any:
    ids, confidences = read_toy(crops)
    return ids + 1, confidences


def failing(_crops: Any) -> Any:
    raise RuntimeError("the device is gone")


def killed(_crops: Any) -> Any:
    raise LaneKilled


def watched(session: FakeSession, **settings: Any) -> tuple[Runtime, list[str]]:
    """A runtime that checks itself all the time, and what it said when it gave up."""
    runtime, told = toy_runtime(session, **{"self_check_interval_s": OFTEN_S, **settings}), []
    runtime._on_unhealthy = told.append
    return runtime, told


@pytest.mark.parametrize("answer", [garbage, failing])
def test_a_model_that_fails_its_self_check_twice_is_given_up(answer: Callable[[Any], Any]) -> None:
    session = FakeSession()
    runtime, told = watched(session)

    async def scenario() -> None:
        async with serving(runtime) as client:
            assert (await client.get("/livez")).status_code == 200
            session.answer = answer
            await until(lambda: bool(told))
            assert (await client.get("/livez")).json()["type"] == NOT_ALIVE.type
            assert (await client.get("/readyz")).status_code == 503
            assert 'parseq_self_checks_total{outcome="wrong"} 2.0' in (await client.get("/metrics")).text

    asyncio.run(scenario())
    assert told == ["the known crop was not read rightly 2 times in a row"]


def test_one_hiccup_is_forgiven() -> None:
    session = FakeSession()
    runtime, told = watched(session)

    def hiccup(crops: Any) -> Any:
        session.answer = None
        return garbage(crops)

    async def scenario() -> None:
        async with serving(runtime) as client:
            for _ in range(3):
                session.answer = hiccup
                seen = runtime.metrics.self_checks.labels("right")._value.get()
                await until(lambda seen=seen: runtime.metrics.self_checks.labels("right")._value.get() > seen + 1)
            assert (await client.get("/livez")).status_code == 200

    asyncio.run(scenario())
    assert not told


def test_a_run_that_never_ends_is_noticed() -> None:
    session = FakeSession()
    runtime, told = watched(session, self_check_interval_s=0, stuck_after_s=0.05)

    async def scenario() -> None:
        async with serving(runtime) as client:
            session.gate.clear()
            asking = asyncio.ensure_future(client.post("/v1/recognize", content=png_of("a")))
            await until(lambda: bool(told))
            assert (await client.get("/livez")).status_code == 503
            session.gate.set()
            await asking

    asyncio.run(scenario())
    assert told == ["an inference run has not ended within 0.05 s (PARSEQ_STUCK_AFTER_S)"]


def test_a_self_check_that_never_ends_is_noticed() -> None:
    session = FakeSession()
    runtime, told = watched(session, stuck_after_s=0.05)

    async def scenario() -> None:
        async with serving(runtime):
            session.gate.clear()
            await until(lambda: bool(told))
            session.gate.set()

    asyncio.run(scenario())
    assert told == ["the known crop has not been read within 0.05 s (PARSEQ_STUCK_AFTER_S)"]


class Lanes:
    """What a watchdog sees of an engine."""

    alive = True

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.run_began_s: float | None = None

    @property
    def longest_run_s(self) -> float:
        return 0.0 if self.run_began_s is None else self.clock() - self.run_began_s


class Dog:
    """A watchdog that looks every second, as long as it is not kept from it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.lanes = Lanes(self.clock)
        model = cast(ServedModel, SimpleNamespace(engine=self.lanes))
        self.dog = Watchdog(lambda: model, 0, 60, Metrics(), lambda _reason: None, self.clock)
        self.dog.look(1)

    def looks_for(self, seconds: int) -> str | None:
        for _ in range(seconds):
            self.clock.advance(1)
            if (reason := self.dog.look(1)) is not None:
                return reason
        return None

    def looks_after_a_pause_of(self, seconds: float) -> str | None:
        self.clock.advance(seconds)
        return self.dog.look(1)


STUCK = "an inference run has not ended within 60 s (PARSEQ_STUCK_AFTER_S)"


def test_a_pause_of_the_whole_process_is_no_time_of_a_run() -> None:
    dog = Dog()
    dog.lanes.run_began_s = dog.clock()
    assert dog.looks_for(30) is None
    assert dog.looks_after_a_pause_of(75) is None
    assert dog.looks_for(25) is None
    assert dog.looks_after_a_pause_of(3600) is None
    assert dog.looks_for(10) == STUCK  # it is, all the same


def test_a_run_that_began_after_a_pause_has_no_more_time_than_others() -> None:
    dog = Dog()
    assert dog.looks_after_a_pause_of(75) is None
    dog.lanes.run_began_s = dog.clock()
    assert dog.looks_for(60) is None
    assert dog.looks_for(1) == STUCK


def test_a_pause_amid_a_look_is_none_of_the_run_either() -> None:
    dog = Dog()
    dog.lanes.run_began_s = dog.clock()

    class Paused(Lanes):
        @property
        def longest_run_s(self) -> float:
            before = super().longest_run_s
            self.clock.advance(75)
            return before

    dog.lanes.__class__ = Paused
    assert dog.looks_for(1) is None
    dog.lanes.__class__ = Lanes
    assert dog.looks_for(57) is None
    assert dog.looks_for(5) == STUCK


def test_looks_that_are_always_late_still_find_a_run_that_hangs() -> None:
    dog = Dog()
    dog.lanes.run_began_s = dog.clock()
    assert any(dog.looks_after_a_pause_of(4) == STUCK for _ in range(70))


def test_a_self_check_is_not_charged_with_a_pause() -> None:
    dog = Dog()
    dog.dog._check_started_s = dog.clock()
    assert dog.looks_for(30) is None
    assert dog.looks_after_a_pause_of(75) is None
    assert dog.looks_for(25) is None
    assert dog.looks_for(10) == "the known crop has not been read within 60 s (PARSEQ_STUCK_AFTER_S)"


def test_a_lane_that_dies_ends_the_process() -> None:
    session = FakeSession()
    runtime, told = watched(session, self_check_interval_s=0, stuck_after_s=0.05)

    async def scenario() -> None:
        async with serving(runtime) as client:
            session.answer = killed
            assert (await client.post("/v1/recognize", content=png_of("a"))).status_code == 503
            await until(lambda: bool(told))

    asyncio.run(scenario())
    assert told == ["an inference lane died"]


def test_a_model_that_does_not_read_what_its_exporter_read_does_not_start() -> None:
    settings = toy_settings()
    topology = toy_runtime().models.default.artifact.topology
    wrong = KnownAnswer(pixels_of("abc"), (1, 2, 3))
    runtime = Runtime(settings, LoadedArtifact(METADATA, FakeSession(), "cpu", topology, known_answer=wrong))
    told: list[str] = []
    runtime._on_failure = told.append

    async def scenario() -> None:
        async with serving(runtime) as client:
            assert (await client.get("/readyz")).status_code == 503

    asyncio.run(scenario())
    assert len(told) == 1
    assert "WrongAnswerError" in told[0]


class Shelf:
    """Where reloads find their artifacts: one after the other, or the error to raise."""

    def __init__(self, *artifacts: LoadedArtifact | Exception) -> None:
        self.artifacts = list(artifacts)

    def load(self, _settings: Settings, _like: Topology, _budget: int) -> LoadedArtifact:
        found = self.artifacts.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def named(name: str, session: FakeSession) -> LoadedArtifact:
    metadata: ArtifactMetadata = replace(METADATA, model_name=name)
    return LoadedArtifact(metadata, session, "cpu", toy_runtime().models.default.artifact.topology)


def reloadable(first: FakeSession, *artifacts: LoadedArtifact | Exception) -> Runtime:
    return Runtime(toy_settings(), named("first", first), load=Shelf(*artifacts).load)


async def model_of(client: httpx.AsyncClient) -> str:
    response = await client.post("/v1/recognize", content=png_of("abc"))
    assert (response.status_code, response.json()["text"]) == (200, "abc")
    return str(response.json()["model"])


def test_a_reload_serves_the_new_model_and_the_old_one_finishes_what_it_has() -> None:
    old, new = FakeSession(), FakeSession()
    runtime = reloadable(old, named("second", new))

    async def scenario() -> None:
        async with serving(runtime) as client:
            assert await model_of(client) == "first"
            before = runtime.models.default.engine
            old.gate.clear()
            in_flight = [asyncio.ensure_future(model_of(client)) for _ in range(5)]
            await until(lambda: before.in_flight == 5)
            runtime.reload()
            await until(lambda: runtime.models.default.engine is not before)
            assert await model_of(client) == "second"
            assert [model["name"] for model in (await client.get("/v1/models")).json()["models"]] == ["second"]
            old.gate.set()
            assert await asyncio.gather(*in_flight) == ["first"] * 5
            text = (await client.get("/metrics")).text
            assert 'parseq_model_reloads_total{outcome="done"} 1.0' in text
            assert 'name="second"' in text
            assert "parseq_crops_in_flight 0.0" in text

    asyncio.run(scenario())


def test_a_reload_that_fails_changes_nothing() -> None:
    broken = FakeSession()
    broken.answer = failing
    runtime = reloadable(
        FakeSession(), StartupError("no artifact there"), named("broken", broken), named("good", FakeSession())
    )

    async def scenario() -> None:
        async with serving(runtime) as client:
            for n_failed in (1, 2):
                runtime.reload()
                sample = f'parseq_model_reloads_total{{outcome="failed"}} {n_failed}.0'
                while sample not in (await client.get("/metrics")).text:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                assert await model_of(client) == "first"
            before = runtime.models.default.engine
            runtime.reload()
            await until(lambda: runtime.models.default.engine is not before)
            assert await model_of(client) == "good"

    asyncio.run(scenario())


def test_a_reload_asked_for_during_another_one_comes_after_it() -> None:
    first, second, third = (FakeSession() for _ in range(3))
    second.gate.clear()
    runtime = reloadable(first, named("second", second), named("third", third))

    async def scenario() -> None:
        async with serving(runtime) as client:
            runtime.reload()
            await asyncio.to_thread(second.wait_entered)  # its warm-up
            for _ in range(3):
                runtime.reload()
            second.gate.set()
            await until(lambda: runtime.models.default.artifact.metadata.model_name == "third")
            assert await model_of(client) == "third"

    asyncio.run(scenario())


def test_no_request_is_lost_by_reloads() -> None:
    sessions = [FakeSession() for _ in range(6)]
    runtime = reloadable(sessions[0], *(named(f"m{index}", session) for index, session in enumerate(sessions[1:])))

    async def scenario() -> None:
        async with serving(runtime) as client:
            names: set[str] = set()

            async def ask() -> None:
                while runtime.metrics.reloads.labels("done")._value.get() < 5:
                    names.add(await model_of(client))

            asking = [asyncio.ensure_future(ask()) for _ in range(8)]
            while not all(task.done() for task in asking):
                runtime.reload()
                await asyncio.sleep(0.001)
            await asyncio.gather(*asking)
            assert names >= {"first", "m0"}

    asyncio.run(scenario())


def test_a_reload_asked_for_before_the_model_is_warm_comes_after_its_warm_up() -> None:
    first = FakeSession()
    first.gate.clear()
    runtime = reloadable(first, named("second", FakeSession()))
    runtime.ask_to_reload()  # before the server runs

    async def scenario() -> None:
        async with serving(runtime, wait=False) as client:
            await asyncio.to_thread(first.wait_entered)  # its warm-up
            runtime.ask_to_reload()
            assert not runtime.ready
            first.gate.set()
            await until(lambda: runtime.models.default.artifact.metadata.model_name == "second")
            assert await model_of(client) == "second"

    asyncio.run(scenario())
    assert runtime.metrics.reloads.labels("done")._value.get() == 1


def test_a_reload_asked_for_after_the_end_is_let_go() -> None:
    runtime = reloadable(FakeSession())

    async def scenario() -> None:
        async with serving(runtime):
            pass

    asyncio.run(scenario())
    runtime.ask_to_reload()


def test_what_is_logged_of_a_reload_names_no_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    formatter = RequestFormatter(FORMAT)
    lines: list[str] = []

    class Catcher(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(formatter.format(record))

    catcher = Catcher()
    logging.getLogger("service.core.runtime").addHandler(catcher)
    runtime = reloadable(FakeSession(), StartupError("no artifact there"), named("second", FakeSession()))

    def ask_amid_a_request(ask: Callable[[], None]) -> None:
        current_request.set(RequestContext("somebody"))
        ask()

    async def scenario() -> None:
        async with serving(runtime):
            Context().run(ask_amid_a_request, runtime.ask_to_reload)
            await until(lambda: any("was not reloaded" in line for line in lines))
            Context().run(ask_amid_a_request, runtime.reload)
            await until(lambda: any("reloaded: model second" in line for line in lines))
            runtime.drain()
            Context().run(ask_amid_a_request, runtime.ask_to_reload)
            await until(lambda: any("not reloading" in line for line in lines))

    try:
        asyncio.run(scenario())
    finally:
        logging.getLogger("service.core.runtime").removeHandler(catcher)
    assert lines
    assert not [line for line in lines if "somebody" in line]
