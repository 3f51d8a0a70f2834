"""Several models in one process: found by name, warmed up, checked, reloaded and drained together."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from artifact.text import Reading
from service.config import Settings
from service.core.catalogue import model_sources
from service.core.crop_decoder import EncodedImage
from service.core.models import ModelEntry, Models, ModelSource
from service.core.runtime import Runtime
from service.core.served_model import ServedModel
from service.engine.types import EngineDownError
from service.errors import StartupError
from service.sessions.artifact import LoadedArtifact, load_artifact
from service.sessions.topology import Topology, plan_topology
from tests.fakes import PATIENCE_S, FakeSession, new_item, toy_settings, until, with_client
from tests.toy_artifact import CHARSET, METADATA, png_of, write_artifact

BACKWARDS = replace(METADATA, model_name="backwards", charset=CHARSET[::-1])
BUDGET = 2
PNG = {"content-type": "image/png"}
Load = Callable[[Settings, Topology | None, int], LoadedArtifact]


def reads_backwards(text: str) -> str:
    return "".join(CHARSET[::-1][CHARSET.index(char)] for char in text)


def opened(path: Path) -> tuple[Settings, LoadedArtifact]:
    settings = toy_settings(artifact=path)
    return settings, load_artifact(settings, budget=BUDGET)


def entry_of(path: Path, load: Load = load_artifact, **values: Any) -> ModelEntry:
    settings, artifact = opened(path)
    return ModelEntry(artifact, ModelSource(partial(load, settings), **values))


def backwards_at(path: Path, **values: Any) -> Path:
    return write_artifact(path, metadata=BACKWARDS.to_map(), **values)


def two_models(tmp_path: Path, load: Load = load_artifact, **values: Any) -> tuple[Runtime, list[str]]:
    """A runtime of the toy and its mirror image, and what it says when it cannot start."""
    first, told = entry_of(write_artifact(tmp_path / "toy.onnx")), list[str]()
    second = entry_of(backwards_at(tmp_path / "backwards.onnx", **values), load, aliases=("mirror",))
    return Runtime(toy_settings(), [first, second], told.append, budget=BUDGET), told


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
    assert (models.default, list(models), len(models)) == (first, [first, second], 2)
    third = named("c", "x")
    models.serve([third, second])
    assert (models.default, models.get("x"), models.get("a"), list(models)) == (third, third, None, [third, second])


def test_a_name_belongs_to_one_model() -> None:
    with pytest.raises(StartupError, match="'x'"):
        Models([named("a", "x"), named("x")])
    first, second = named("a"), named("b", "y")
    models = Models([first, second])
    with pytest.raises(StartupError, match="'y'"):
        models.serve([named("y"), second])
    assert (models.default, models.get("a"), models.get("y")) == (first, first, second)


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

    def load(settings: Settings, like: Topology | None, budget: int) -> LoadedArtifact:
        assert budget == BUDGET  # any of them may be the only one that is busy
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
    def load(settings: Settings, like: Topology | None, budget: int) -> LoadedArtifact:
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
    source = ModelSource(cast("Callable[[Topology | None, int], LoadedArtifact]", None))
    entries = [ModelEntry(artifact, source) for artifact in (first, second)]
    runtime = Runtime(settings, entries, on_unhealthy=ill.append, budget=BUDGET)

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


# -- A folder of models ----------------------------------------------------------------------------------------------------


def folder_runtime(folder: Path, **values: Any) -> Runtime:
    settings = toy_settings(artifact=folder, **values)
    find = partial(model_sources, settings)
    return Runtime(settings, [ModelEntry(source.open(None, BUDGET), source) for source in find()], find=find, budget=BUDGET)


def reloads(runtime: Runtime, outcome: str = "done") -> float:
    return float(runtime.metrics.reloads.labels(outcome)._value.get())


def test_a_reload_that_adds_a_model_and_removes_the_first_loses_no_request(tmp_path: Path) -> None:
    write_artifact(tmp_path / "first.onnx")
    runtime = folder_runtime(tmp_path)
    texts: list[str] = []

    async def scenario(client: httpx.AsyncClient) -> None:
        async def ask(text: str) -> None:
            while runtime.models.get("first") is not None or len(texts) < 200:
                answer = await client.post("/v1/recognize", content=png_of(text), headers=PNG)
                assert answer.status_code == 200, answer.text
                by = {"first": text, "second": reads_backwards(text)}[answer.json()["model"]]
                assert answer.json()["text"] == by
                texts.append(answer.json()["model"])

        old = runtime.models.default.engine
        asking = [asyncio.ensure_future(ask(text)) for text in ("abc", "xyz", "k", "0")]
        await until(lambda: len(texts) > 20)
        backwards_at(tmp_path / "second.onnx")
        (tmp_path / "first.onnx").unlink()
        runtime.reload()
        await until(lambda: runtime.models.get("first") is None)
        await asyncio.gather(*asking)
        await until(lambda: not any(thread.is_alive() for thread in old._threads))

    with_client(runtime, scenario)
    assert set(texts) == {"first", "second"}
    assert (reloads(runtime), reloads(runtime, "failed")) == (1, 0)


def test_a_request_that_was_let_in_for_a_model_is_answered_by_it_though_it_is_removed_meanwhile(tmp_path: Path) -> None:
    write_artifact(tmp_path / "first.onnx")
    backwards_at(tmp_path / "second.onnx")
    runtime = folder_runtime(tmp_path)
    gone = asyncio.Event()

    async def slowly(content: bytes) -> AsyncIterator[bytes]:
        yield content[:10]
        await gone.wait()
        yield content[10:]

    async def scenario(client: httpx.AsyncClient) -> None:
        address = "/v1/recognize?model=first"
        asking = asyncio.ensure_future(client.post(address, content=slowly(png_of("abc")), headers=PNG))
        first = find(runtime, "first")
        await until(lambda: first.n_requests == 1)
        (tmp_path / "first.onnx").unlink()
        runtime.reload()
        await until(lambda: runtime.models.get("first") is None)
        answer = await client.post(address, content=png_of("abc"), headers=PNG)
        assert answer.status_code == 404
        assert answer.json()["detail"] == "There is no model `first`; those there are: second."
        gone.set()
        answer = await asking
        assert (answer.status_code, answer.json()["text"], answer.json()["model"]) == (200, "abc", "first")
        assert first.n_requests == 0

    with_client(runtime, scenario)


def test_a_reload_of_which_a_part_fails_removes_nothing(tmp_path: Path) -> None:
    write_artifact(tmp_path / "first.onnx")
    runtime = folder_runtime(tmp_path)

    async def scenario(_client: httpx.AsyncClient) -> None:
        (tmp_path / "first.onnx").rename(tmp_path / "third.onnx")
        (tmp_path / "second.onnx").write_bytes(b"junk")
        runtime.reload()
        await until(lambda: reloads(runtime, "failed") == 1)
        await until(lambda: runtime.models.get("third") is not None)
        assert runtime.models.default is find(runtime, "first")
        (tmp_path / "second.onnx").unlink()
        runtime.reload()
        await until(lambda: runtime.models.get("first") is None)
        assert runtime.models.default is find(runtime, "third")
        (tmp_path / "third.onnx").unlink()
        runtime.reload()
        await until(lambda: reloads(runtime, "failed") == 2)
        assert await read(runtime.models.default, "abc") == "abc"

    with_client(runtime, scenario)


def test_a_model_that_was_added_is_watched_and_one_that_was_removed_is_not(tmp_path: Path) -> None:
    write_artifact(tmp_path / "first.onnx")
    runtime = folder_runtime(tmp_path, self_check_interval_s=0.001)
    ill: list[str] = []
    runtime._on_unhealthy = ill.append

    async def scenario(_client: httpx.AsyncClient) -> None:
        first = runtime.models.default
        backwards_at(tmp_path / "second.onnx")
        (tmp_path / "first.onnx").unlink()
        runtime.reload()
        await until(lambda: runtime.models.get("first") is None)
        first._known_answer = None  # a check of it would fail
        before = runtime.metrics.self_checks.labels("right")._value.get()
        await until(lambda: runtime.metrics.self_checks.labels("right")._value.get() > before + 3)
        assert ill == []
        runtime.models.default._known_answer = None
        await until(lambda: bool(ill))

    with_client(runtime, scenario)


def test_what_names_no_model_goes_to_the_default_one_and_metrics_tell_them_apart(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a.onnx")
    backwards_at(tmp_path / "b.onnx")
    runtime = folder_runtime(tmp_path, default_model="b")

    async def scenario(client: httpx.AsyncClient) -> None:
        for address, model, text in (
            ("/v1/recognize", "b", reads_backwards("abc")),
            ("/v1/recognize?model=a", "a", "abc"),
            ("/recognize?list=1&model=b", "b", reads_backwards("abc")),
            ("/invocations", "b", reads_backwards("abc")),
        ):
            answer = (await client.post(address, content=png_of("abc"), headers=PNG)).json()
            assert answer["model"] == model
            assert answer.get("text", answer.get("results", [{}])[0].get("text")) == text
            assert answer["model_version"] == find(runtime, model).version
        listed = (await client.get("/v1/models")).json()["models"]
        assert [model["name"] for model in listed] == ["b", "a"]
        digest = hashlib.sha256((tmp_path / "a.onnx").read_bytes()).hexdigest()
        assert (listed[1]["sha256"], listed[1]["version"]) == (digest, digest[:12])
        text = (await client.get("/metrics")).text
        assert 'parseq_crops_total{model="a",outcome="done"} 1.0' in text
        assert 'parseq_crops_total{model="b",outcome="done"} 3.0' in text

    with_client(runtime, scenario)


# -- What PARSEQ_ARTIFACT names ----------------------------------------------------------------------------------------------


def names_of(setting: str | Path, default: str = "") -> list[str | None]:
    return [source.name for source in model_sources(toy_settings(artifact=Path(setting), default_model=default))]


def test_files_and_folders_are_called_as_they_are_or_as_the_setting_says(tmp_path: Path) -> None:
    for name in ("b.onnx", "a.onnx", ".hidden.onnx", "notes.txt", "one/x.onnx", "odd,name=y.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    a, one = tmp_path / "a.onnx", tmp_path / "one"
    [single] = model_sources(toy_settings(artifact=a))
    assert (single.name, single.aliases) == (None, ("a",))
    [odd] = model_sources(toy_settings(artifact=tmp_path / "odd,name=y.onnx"))
    assert odd.name is None
    assert names_of(f"{a}, {one}") == ["a", "x"]
    assert names_of(f"plates={a},{tmp_path / 'b.onnx'},") == ["plates", "b"]
    assert names_of(f"served={one}") == ["served"]
    assert names_of(one) == ["x"]
    (tmp_path / "odd,name=y.onnx").unlink()
    assert names_of(tmp_path) == ["a", "b"]
    assert names_of(tmp_path, default="b") == ["b", "a"]


@pytest.mark.parametrize(
    ("setting", "default", "told"),
    [
        ("{0}/a.onnx,{0}/a.onnx", "", "twice"),
        ("{0}/a.onnx,{0}/one/../a.onnx", "", "twice"),
        ("{0}/a.onnx,{0}/one/a.onnx", "", "are both called 'a': name one of them, as other="),
        ("x={0}/a.onnx,x={0}/one/a.onnx", "", "are both called 'x'"),
        ("{0}/empty", "", "has no .onnx file"),
        ("x={0}", "", "cannot all be called 'x'"),
        ("{0}", "c", "PARSEQ_DEFAULT_MODEL=c is none of the models, which are a, b"),
        ("{0}/my model.onnx,{0}/a.onnx", "", "which no address can have"),
        ("..={0}/a.onnx,{0}/b.onnx", "", "would be called '..', which no address can have"),
        (".={0}/a.onnx,{0}/b.onnx", "", "would be called '.', which no address can have"),
        ("x\x07={0}/a.onnx,{0}/b.onnx", "", "which no address can have"),
        ("x\udcff={0}/a.onnx,{0}/b.onnx", "", "which no address can have"),
        (",", "", "names no file"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_told(tmp_path: Path, setting: str, default: str, told: str) -> None:
    for name in ("a.onnx", "b.onnx", "one/a.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StartupError, match=re.escape(told)):
        names_of(setting.format(tmp_path), default)


def test_a_default_that_a_single_model_is_not_called_is_told(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "file.onnx")
    for default in ("file", "toy", ""):
        assert folder_runtime(path, default_model=default).models.default.name == "toy"
    with pytest.raises(StartupError, match="PARSEQ_DEFAULT_MODEL=other is none of the models, which are toy"):
        folder_runtime(path, default_model="other")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "file.onnx")
    with pytest.raises(StartupError, match=r"there is no artifact at .*nosuch"):
        folder_runtime(Path(f"{path},{tmp_path / 'nosuch.onnx'}"))
