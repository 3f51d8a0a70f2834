"""Signals, exit codes and reloads of a real process."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import onnx
import pytest

from artifact.metadata import KNOWN_ANSWER_KEY
from tests.integration.server import PATIENCE_S, ROOT, ServerProcess, environment, failed_start, running, wait_until_refused
from tests.toy_artifact import METADATA, png_of, write_artifact

pytestmark = pytest.mark.usefixtures("both_forms")

PNG = {"content-type": "image/png"}
ENDLESS = 500
"""Matrix products a crop: a run lasts so long that a drain of 30 of them can be interrupted."""
PATIENT: dict[str, object] = {"lanes": 1, "max_batch_size": 1, "request_timeout_ms": 600_000, "max_queue_wait_ms": 600_000}
BROKEN_AFTER_THE_START = """
import sys
from service.__main__ import main
from service.core.served_model import ServedModel

def fail(_model):
    raise RuntimeError("the device answers no more")

ServedModel.check = fail
sys.exit(main(sys.argv[1:]))
"""
CHECKED_WITHOUT_END = """
import sys
from service.__main__ import run
from service.core.served_model import ServedModel

check = ServedModel.check

def go_on(model):
    check(model)
    print("checked once more", file=sys.stderr, flush=True)
    while True:
        check(model)

ServedModel.check = go_on
run(sys.argv[1:])
"""


def wait_for(server: ServerProcess, line: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while line not in server.log.read_text():
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < end_s, server.log.read_text()
        time.sleep(0.02)


def named(path: Path, name: str) -> Path:
    """A toy artifact that calls itself so, put in place as a deployment would: whole, at once."""
    draft = write_artifact(path.with_suffix(".draft"), metadata=replace(METADATA, model_name=name).to_map())
    draft.replace(path)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_sighup_serves_the_artifact_file_as_it_is_now_without_losing_a_request(tmp_path: Path) -> None:
    artifact = named(tmp_path / "toy.onnx", "first")

    async def ask(client: httpx.AsyncClient, url: str, told: list[tuple[int, str, bool]], stop: asyncio.Event) -> None:
        while not stop.is_set():
            text = f"w{len(told)}"
            response = await client.post(f"{url}/v1/recognize", content=png_of(text), headers=PNG)
            told.append((response.status_code, response.json()["model"], response.json()["text"] == text))

    async def some_more(told: list[tuple[int, str, bool]]) -> None:
        n_told = len(told)
        while len(told) < n_told + 16:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def scenario(server: ServerProcess) -> list[tuple[int, str, bool]]:
        told: list[tuple[int, str, bool]] = []
        stop = asyncio.Event()
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            asking = [asyncio.ensure_future(ask(client, server.url, told, stop)) for _ in range(8)]
            await some_more(told)
            for name in ("second", "third"):
                named(artifact, name)
                server.process.send_signal(signal.SIGHUP)
                await asyncio.to_thread(wait_for, server, f"reloaded: model {name}")
            artifact.write_bytes(b"junk")
            server.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(wait_for, server, "the artifact was not reloaded")
            await some_more(told)
            stop.set()
            await asyncio.gather(*asking)
        return told

    with running(artifact, tmp_path / "log", forked=True) as server:
        told = asyncio.run(scenario(server))
        assert {status for status, _, _ in told} == {200}
        assert all(right for _, _, right in told)
        assert told[0][1] == "first"
        assert told[-1][1] == "third"
        assert server.metric('parseq_model_reloads_total{outcome="done"}') == 2
        assert server.metric('parseq_model_reloads_total{outcome="failed"}') == 1
        assert server.terminate() == 0
        assert "Traceback" not in server.log.read_text()


def test_a_second_signal_ends_the_drain(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "endless.onnx", work=ENDLESS)
    with running(artifact, tmp_path / "log", forked=True, **PATIENT) as server:

        async def scenario() -> int:
            async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
                url = f"{server.url}/v1/recognize"
                posts = [asyncio.ensure_future(client.post(url, content=png_of("a"), headers=PNG)) for _ in range(30)]
                while await asyncio.to_thread(server.metric, "parseq_crops_admitted_total") < 30:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                server.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(wait_until_refused, server)
                assert server.process.poll() is None  # it drains
                server.process.send_signal(signal.SIGTERM)
                code = await asyncio.to_thread(server.process.wait, PATIENCE_S)
                for post in posts:
                    post.cancel()
                return code

        assert asyncio.run(scenario()) == 1
        assert "told to stop a second time" in server.log.read_text()
        assert "Traceback" not in server.log.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP")
def test_a_pause_of_the_whole_process_is_no_run_that_hangs(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "endless.onnx", work=ENDLESS)
    stuck_after_s = 4
    with running(
        artifact, tmp_path / "log", forked=True, **PATIENT, stuck_after_s=stuck_after_s, self_check_interval_s=0
    ) as server:

        async def scenario() -> list[int]:
            async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
                url = f"{server.url}/v1/recognize"
                posts = [asyncio.ensure_future(client.post(url, content=png_of("a"), headers=PNG)) for _ in range(12)]
                while await asyncio.to_thread(server.metric, "parseq_crops_admitted_total") < 12:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                server.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(1.5 * stuck_after_s)
                assert not all(post.done() for post in posts)  # one is being read
                server.process.send_signal(signal.SIGCONT)
                return [response.status_code for response in await asyncio.gather(*posts)]

        assert asyncio.run(scenario()) == [200] * 12
        assert server.terminate() == 0
        assert "unhealthy" not in server.log.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_what_is_logged_of_signals_names_no_request(tmp_path: Path) -> None:
    artifact = named(tmp_path / "toy.onnx", "first")

    with running(artifact, tmp_path / "log", forked=True) as server:
        for number in range(10):
            named(artifact, f"m{number}")
            # The signal then interrupts what the event loop does for this request, or what is left of it.
            httpx.get(f"{server.url}/readyz", headers={"x-request-id": "somebody"})
            server.process.send_signal(signal.SIGHUP)
            wait_for(server, f"reloaded: model m{number} ")
        assert server.terminate() == 0
        assert "somebody" not in server.log.read_text()


def test_a_server_that_breaks_ends_with_exit_code_4_and_one_line(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "toy.onnx")
    done = subprocess.run(
        [sys.executable, "-c", BROKEN_AFTER_THE_START, "--port", "0", "--artifact", str(artifact)],
        cwd=ROOT,
        env=environment(self_check_interval_s=0.05),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 4, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last == "parseq-serve: ended, to be restarted: the known crop was not read rightly 2 times in a row"
    assert "Traceback" not in done.stderr


def test_the_process_ends_in_order_while_a_thread_is_in_the_model(tmp_path: Path) -> None:
    """Python's own end would pull the interpreter from under it, and the process would be aborted."""
    log, artifact = tmp_path / "log", write_artifact(tmp_path / "toy.onnx")
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", CHECKED_WITHOUT_END, "--port", "0", "--artifact", str(artifact)],
            cwd=ROOT,
            env=environment(self_check_interval_s=0.05),
            stderr=stderr,
        )
    server = ServerProcess(process, log, "")
    try:
        wait_for(server, "checked once more")
        assert server.terminate() == 0
    finally:
        process.kill()
        process.wait(PATIENCE_S)
    assert log.read_text().rstrip().endswith("service.core.runtime: stopped"), log.read_text()


def test_an_artifact_that_reads_its_known_crop_wrongly_does_not_start(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "toy.onnx")
    proto = onnx.load(artifact)
    entry = proto.metadata_props.add()
    entry.key = KNOWN_ANSWER_KEY
    entry.value = json.dumps({"png": base64.b64encode(png_of("abc")).decode(), "text": "abd"})
    onnx.save(proto, artifact)
    code, told = failed_start(tmp_path / "log", "--port", "0", "--artifact", str(artifact), log_level="error")
    assert code == 3
    assert "WrongAnswerError: the known crop reads as" in told
