"""Front processes and the engine's process are killed at random under load: nothing is doubled, mixed up or leaked."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.integration.fronts import (
    children_of,
    fork_server_of,
    fronts_of,
    is_alive,
    open_files,
    shared_memory,
    wait_for_fronts,
)
from tests.integration.server import PATIENCE_S, ServerProcess, come_to_rest, outcomes, running, unsettled
from tests.toy_artifact import png_of, write_artifact

PNG = {"content-type": "image/png"}
KILLS = 4
CLIENTS = 12
PAUSE_S = 0.005
"""Of a client: new fronts need the machine as well."""
SEED = int(os.environ.get("PARSEQ_TEST_SEED", "0"))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="front processes need Linux")


async def ask(url: str, client: int, told: Counter[str], stop: asyncio.Event) -> None:
    """Post words that nobody else posts, over connections that are made anew when they break."""
    number = 0
    async with httpx.AsyncClient(timeout=PATIENCE_S) as connection:
        while not stop.is_set():
            number += 1
            words = [f"c{client}n{number}", f"c{client}n{number}b"][: 1 + number % 2]
            try:
                if len(words) == 1:
                    response = await connection.post(f"{url}/v1/recognize", content=png_of(words[0]), headers=PNG)
                    texts = [response.json().get("text")]
                else:
                    files = [("image", (word, png_of(word), "image/png")) for word in words]
                    response = await connection.post(f"{url}/v1/recognize", files=files)
                    texts = [each.get("text") for each in response.json()["results"]]
            except httpx.TransportError:
                told["broken"] += 1
                await asyncio.sleep(0.01)
                continue
            assert response.status_code == 200, response.text
            assert texts == words
            told["right"] += 1
            await asyncio.sleep(PAUSE_S)


async def kill_some(server: ServerProcess, told: Counter[str]) -> None:
    chance = random.Random(SEED)
    for _ in range(KILLS):
        n_right = told["right"]
        while told["right"] < n_right + 50:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(chance.uniform(0, 0.05))
        os.kill(chance.choice(fronts_of(server)), signal.SIGKILL)
        await asyncio.to_thread(wait_for_fronts, server, 2)


async def chaos(server: ServerProcess) -> Counter[str]:
    told, stop = Counter[str](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for client in range(CLIENTS):
            group.create_task(ask(server.url, client, told, stop))
        await kill_some(server, told)
        stop.set()
    return told


def test_fronts_that_die_take_only_their_own_connections_along(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "toy.onnx", work=1)
    with running(artifact, tmp_path / "log", http_workers=2) as server:
        come_to_rest(server)
        files, memory = open_files(server.process.pid), shared_memory(server.process.pid)
        assert memory == 3  # the board, and the slots of two fronts
        told = asyncio.run(chaos(server))
        come_to_rest(server)
        assert told["right"] > KILLS * 50
        assert 0 < told["broken"] <= KILLS * CLIENTS
        assert server.metric("parseq_front_restarts_total") == KILLS
        assert unsettled(server) == 0
        assert outcomes(server)["failed"] == outcomes(server)["expired"] == 0
        assert outcomes(server)["done"] + outcomes(server)["cancelled"] >= told["right"]
        assert server.metric('parseq_request_duration_seconds_count{status="200"}') > 0
        assert open_files(server.process.pid) == files
        assert shared_memory(server.process.pid) == memory
        assert len(fronts_of(server)) == 2
        assert server.terminate() == 0


def wait_for_the_end_of(processes: list[int]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while any(is_alive(pid) for pid in processes):
        assert time.monotonic() < end_s
        time.sleep(0.01)


async def kill_engine(server: ServerProcess) -> Counter[str]:
    told, stop = Counter[str](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for client in range(CLIENTS):
            group.create_task(ask(server.url, client, told, stop))
        while told["right"] < 100:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        server.process.kill()
        while told["broken"] < CLIENTS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        stop.set()
    return told


def test_an_engine_that_is_killed_under_load_takes_all_along_and_nobody_is_told_a_wrong_word(tmp_path: Path) -> None:
    with running(write_artifact(tmp_path / "toy.onnx", work=1), tmp_path / "log", http_workers=2) as server:
        fronts = [*fronts_of(server), fork_server_of(server)]
        asyncio.run(kill_engine(server))  # which compares each answer
        assert server.process.wait(PATIENCE_S) == -signal.SIGKILL
        wait_for_the_end_of(fronts)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_front_outlives_the_engine(tmp_path: Path, number: int) -> None:
    with running(write_artifact(tmp_path / "toy.onnx"), tmp_path / "log", http_workers=2) as server:
        fronts = fronts_of(server)
        assert len(fronts) == 2
        server.process.send_signal(number)
        assert server.process.wait(PATIENCE_S) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        wait_for_the_end_of(fronts)


async def ask_all(clients: list[httpx.AsyncClient], n_each: int) -> list[asyncio.Task[list[str]]]:
    """Each posts so many words, one after the other, over its connection; what it was told."""

    async def ask(number: int, client: httpx.AsyncClient) -> list[str]:
        posts = [await client.post("/v1/recognize", content=png_of(f"c{number}n{n}"), headers=PNG) for n in range(n_each)]
        return [each.json()["text"] for each in posts]

    return [asyncio.create_task(ask(number, client)) for number, client in enumerate(clients)]


async def stop_one(server: ServerProcess, front: int) -> tuple[int, list[list[str]]]:
    """Stop a front while it is asked, until others are answered; how many are not, and in the end the answers of all."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S)) for _ in range(CLIENTS)
        ]
        await asyncio.gather(*await ask_all(clients, 1))  # now each has its connection
        tasks = await ask_all(clients, 30)
        await asyncio.sleep(0.05)
        os.kill(front, signal.SIGSTOP)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(tasks, timeout=1.0)
            n_stuck = sum(not task.done() for task in tasks)
        finally:
            os.kill(front, signal.SIGCONT)
        return n_stuck, await asyncio.gather(*tasks)


def test_one_front_is_stopped_the_fork_server_is_killed_and_signals_to_fronts_are_not_for_them(tmp_path: Path) -> None:
    """A terminal, or systemd, sends signals to all processes of the service; the engine's decides."""
    with running(write_artifact(tmp_path / "toy.onnx"), tmp_path / "log", http_workers=2) as server:
        fronts = fronts_of(server)
        n_stuck, texts = asyncio.run(stop_one(server, fronts[0]))
        assert n_stuck < CLIENTS
        assert texts == [[f"c{client}n{number}" for number in range(30)] for client in range(CLIENTS)]
        come_to_rest(server)
        for pid in fronts:
            for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(pid, each)
        assert httpx.post(f"{server.url}/v1/recognize", content=png_of("still"), headers=PNG).json()["text"] == "still"
        assert fronts_of(server) == fronts
        os.kill(fork_server_of(server), signal.SIGKILL)
        os.kill(fronts[1], signal.SIGKILL)
        while len(children_of(server.process.pid)) != 1 or len(fronts_of(server)) != 1:  # the other is an orphan now
            time.sleep(0.01)
        wait_for_fronts(server, 2)
        assert is_alive(fronts[0])
        assert server.terminate() == 0
        assert not is_alive(fronts[0])
