"""Several models in one process: found by name, warmed up, checked, reloaded and drained together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from artifact.text import Reading
from service.config import Settings
from service.core.models import ModelEntry, Models, cores_of_each
from service.core.recognizer import EncodedImage
from service.core.runtime import Runtime
from service.core.served_model import ServedModel
from service.engine.types import EngineDownError
from service.errors import StartupError
from service.sessions.artifact import LoadedArtifact, load_artifact
from service.sessions.topology import Topology, plan_topology
from tests.fakes import PATIENCE_S, FakeSession, new_item, toy_settings, until
from tests.toy_artifact import CHARSET, METADATA, png_of, write_artifact

BACKWARDS = replace(METADATA, model_name="backwards", charset=CHARSET[::-1])
BUDGET = 2
Load = Callable[[Settings, Topology, int], LoadedArtifact]


def reads_backwards(text: str) -> str:
    return "".join(CHARSET[::-1][CHARSET.index(char)] for char in text)


def opened(path: Path) -> tuple[Settings, LoadedArtifact]:
    settings = toy_settings(artifact=path)
    return settings, load_artifact(settings, budget=cores_of_each(BUDGET, 2))


def entry_of(path: Path, load: Load = load_artifact, **values: Any) -> ModelEntry:
    settings, artifact = opened(path)
    return ModelEntry(artifact, partial(load, settings), **values)


def backwards_at(path: Path, **values: Any) -> Path:
    return write_artifact(path, metadata=BACKWARDS.to_map(), **values)


def two_models(tmp_path: Path, load: Load = load_artifact, **values: Any) -> tuple[Runtime, list[str]]:
    """A runtime of the toy and its mirror image, and what it says when it cannot start."""
    settings, first = opened(write_artifact(tmp_path / "toy.onnx"))
    second, told = entry_of(backwards_at(tmp_path / "backwards.onnx", **values), load, aliases=("mirror",)), list[str]()
    return Runtime(settings, first, told.append, more_models=[second], budget=BUDGET), told


@asynccontextmanager
async def running(runtime: Runtime) -> AsyncIterator[None]:
    runtime.start()
    try:
        await runtime.warmed_up()
        yield
    finally:
        await runtime.stop()


async def stays() -> None:
    await asyncio.Event().wait()


async def read(model: ServedModel, text: str) -> str:
    [result] = await model.recognizer.recognize([EncodedImage(None, png_of(text))], PATIENCE_S, stays)
    assert isinstance(result.reading, Reading)
    return result.reading.text


def find(runtime: Runtime, name: str) -> ServedModel:
    found = runtime.models.get(name)
    assert found is not None
    return found


def named(name: str, *aliases: str) -> ServedModel:
    """What `Models` sees of a model."""
    model = object.__new__(ServedModel)
    model.name, model.aliases = name, aliases
    return model


def test_models_are_found_by_name_and_alias() -> None:
    first, second = named("a", "x"), named("b", "y", "b")
    models = Models([first, second])
    assert [models.get(name) for name in ("a", "x", "b", "y", "c")] == [first, first, second, second, None]
    assert (models.default, list(models), models[1]) == (first, [first, second], second)
    third = named("c", "x")
    models.replace(0, third)
    assert (models.default, models.get("x"), models.get("a"), list(models)) == (third, third, None, [third, second])


def test_a_name_belongs_to_one_model() -> None:
    with pytest.raises(StartupError, match="'x'"):
        Models([named("a", "x"), named("x")])
    first, second = named("a"), named("b", "y")
    models = Models([first, second])
    with pytest.raises(StartupError, match="'y'"):
        models.replace(0, named("y"))
    assert (models.default, models.get("a"), models.get("y")) == (first, first, second)


def test_models_share_the_cores() -> None:
    assert [cores_of_each(5, n_models) for n_models in (1, 2, 8)] == [5, 2, 1]


def test_both_models_read_and_drain_together(tmp_path: Path) -> None:
    runtime, told = two_models(tmp_path)

    async def scenario() -> None:
        async with running(runtime):
            assert runtime.ready
            first, second = runtime.models.default, find(runtime, "mirror")
            assert await asyncio.gather(read(first, "abc"), read(second, "abc")) == ["abc", reads_backwards("abc")]
            info = {sample.labels["name"] for sample in runtime.metrics.model.collect()[0].samples}
            assert info == {"toy", "backwards"}
            asking = asyncio.gather(read(first, "xyz"), read(second, "xyz"))
            await asyncio.sleep(0)
        assert await asking == ["xyz", reads_backwards("xyz")]
        assert not runtime.ready
        for model in runtime.models:
            with pytest.raises(EngineDownError):
                model.engine.admit([new_item()])

    asyncio.run(scenario())
    assert told == []


def test_one_model_reloads_while_the_other_serves(tmp_path: Path) -> None:
    gate, entered = threading.Event(), threading.Event()

    def load(settings: Settings, like: Topology, budget: int) -> LoadedArtifact:
        assert budget == cores_of_each(BUDGET, 2)
        entered.set()
        assert gate.wait(PATIENCE_S)
        artifact = load_artifact(settings, like, budget)
        return replace(artifact, metadata=replace(artifact.metadata, model_name="again"))

    runtime, _ = two_models(tmp_path, load)

    async def scenario() -> None:
        async with running(runtime):
            old = find(runtime, "backwards")
            runtime.reload()
            assert await asyncio.to_thread(entered.wait, PATIENCE_S)
            assert await read(runtime.models.default, "abc") == "abc"
            assert await read(find(runtime, "backwards"), "abc") == reads_backwards("abc")
            gate.set()
            await until(lambda: runtime.models.get("again") is not None)
            assert runtime.models.get("backwards") is None
            assert find(runtime, "mirror") is find(runtime, "again") is not old
            assert await read(find(runtime, "mirror"), "abc") == reads_backwards("abc")
            assert await read(runtime.models.default, "abc") == "abc"

    asyncio.run(scenario())
    assert runtime.metrics.reloads.labels("done")._value.get() == 2


def test_a_reload_may_not_take_the_name_of_another_model(tmp_path: Path) -> None:
    def load(settings: Settings, like: Topology, budget: int) -> LoadedArtifact:
        artifact = load_artifact(settings, like, budget)
        return replace(artifact, metadata=replace(artifact.metadata, model_name="toy"))

    runtime, _ = two_models(tmp_path, load)

    async def scenario() -> None:
        async with running(runtime):
            before = find(runtime, "backwards")
            runtime.reload()
            await until(lambda: runtime.metrics.reloads.labels("failed")._value.get() == 1)
            assert find(runtime, "backwards") is before
            assert await read(before, "abc") == reads_backwards("abc")

    asyncio.run(scenario())


def test_a_model_that_fails_its_warm_up_fails_the_start(tmp_path: Path) -> None:
    runtime, told = two_models(tmp_path, broken=True)

    async def scenario() -> None:
        async with running(runtime):
            assert not runtime.ready
            with pytest.raises(EngineDownError):
                runtime.models.default.engine.admit([new_item()])

    asyncio.run(scenario())
    assert len(told) == 1
    assert told[0].startswith("model backwards: the artifact failed its warm-up")


def test_each_model_is_watched_and_what_waits_is_counted_together() -> None:
    sessions = FakeSession(), FakeSession()
    settings = toy_settings(self_check_interval_s=0.001)
    first, second = (
        LoadedArtifact(replace(METADATA, model_name=name), session, "cpu", plan_topology(settings, "cpu", 1))
        for name, session in zip("ab", sessions, strict=True)
    )
    ill: list[str] = []
    entry = ModelEntry(second, cast("Callable[[Topology, int], LoadedArtifact]", None))
    runtime = Runtime(settings, first, on_unhealthy=ill.append, more_models=[entry], budget=BUDGET)

    async def scenario() -> None:
        async with running(runtime):
            assert runtime.alive
            for session in sessions:
                session.gate.clear()
            asking = [asyncio.ensure_future(read(model, "abc")) for model in runtime.models]
            await until(lambda: runtime.metrics.crops_in_flight.collect()[0].samples[0].value == 2)
            sessions[1].answer = lambda _crops: (_ for _ in ()).throw(RuntimeError("the device is gone"))
            for session in sessions:
                session.gate.set()
            await until(lambda: bool(ill))
            assert not runtime.alive
            await asyncio.gather(*asking, return_exceptions=True)

    asyncio.run(scenario())
    assert ill == ["the known crop was not read rightly 2 times in a row"]
