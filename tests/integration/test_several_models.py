"""Several models in a server of its own process: named by the command line, changed by SIGHUP while requests come."""

from __future__ import annotations

import asyncio
import re
import signal
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.integration.server import PATIENCE_S, ServerProcess, failed_start, running
from tests.open_inference import as_json, outputs_of
from tests.toy_artifact import CHARSET, METADATA, png_of, write_artifact

N_CLIENTS = 8
TEXT = "abc"
MIRRORED = "".join(CHARSET[::-1][CHARSET.index(char)] for char in TEXT)


def mirror_at(path: Path) -> Path:
    return write_artifact(path, metadata=replace(METADATA, charset=CHARSET[::-1]).to_map())


def test_a_reload_that_adds_a_model_and_removes_the_first_loses_no_request(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    write_artifact(folder / "first.onnx", work=1)

    async def scenario(server: ServerProcess) -> list[str]:
        seen: list[str] = []

        async def ask(client: httpx.AsyncClient) -> None:
            while seen.count("second") < 20 * N_CLIENTS:
                answer = await client.post("/v1/recognize", content=png_of(TEXT), headers={"content-type": "image/png"})
                assert answer.status_code == 200, answer.text
                document = answer.json()
                assert document["text"] == {"first": TEXT, "second": MIRRORED}[document["model"]]
                seen.append(document["model"])

        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
            asking = [asyncio.ensure_future(ask(client)) for _ in range(N_CLIENTS)]
            while len(seen) < 50:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            mirror_at(folder / "second.onnx")
            (folder / "first.onnx").unlink()
            server.process.send_signal(signal.SIGHUP)
            await asyncio.gather(*asking)
            models = (await client.get("/v1/models")).json()["models"]
            assert [model["name"] for model in models] == ["second"]
            answer = await client.post("/v2/models/first/infer", json=as_json(png_of(TEXT)))
            assert (answer.status_code, answer.json()["error"]) == (404, "There is no model `first`; those there are: second.")
            found = outputs_of(await client.post("/v2/models/second/infer", json=as_json(png_of(TEXT))))
            assert found["text"] == [MIRRORED]
        return seen

    with running(folder, tmp_path / "log", forked=True) as server:
        seen = asyncio.run(scenario(server))
        assert {"first", "second"} == set(seen)
        assert "not served any more: model first" in server.log.read_text()
        assert server.terminate() == 0
        assert "Traceback" not in server.log.read_text()


def test_models_are_named_and_one_is_the_default(tmp_path: Path) -> None:
    first, second = write_artifact(tmp_path / "a.onnx"), mirror_at(tmp_path / "b.onnx")
    with running(Path(f"{first},plates={second}"), tmp_path / "log", default_model="plates", forked=True) as server:
        for query, model, text in (("", "plates", MIRRORED), ("?model=a", "a", TEXT), ("?model=plates", "plates", MIRRORED)):
            document = httpx.post(f"{server.url}/v1/recognize{query}", files={"f": png_of(TEXT)}).json()
            assert (document["model"], document["text"]) == (model, text)
        assert server.metric('parseq_crops_total{outcome="done"}') == 3
        log = server.log.read_text()
        assert re.search(r"ready after .*: model plates .*; model a ", log)


@pytest.mark.parametrize(
    ("artifact", "settings", "told"),
    [
        ("{0}/a.onnx,{0}/nosuch.onnx", {}, "there is no artifact at {0}/nosuch.onnx"),
        ("{0}/a.onnx,a={0}/b.onnx", {}, "are both called 'a'"),
        ("{0}", {"default_model": "c"}, "PARSEQ_DEFAULT_MODEL=c is none of the models, which are a, b"),
    ],
)
def test_a_start_that_cannot_be_meant_ends_with_one_line(
    tmp_path: Path, artifact: str, settings: dict[str, str], told: str
) -> None:
    for name in ("a.onnx", "b.onnx"):
        write_artifact(tmp_path / name)
    code, line = failed_start(tmp_path / "log", "--port", "0", "--artifact", artifact.format(tmp_path), **settings)
    assert code == 3
    assert line.count("\n") == 1
    assert told.format(tmp_path) in line
