"""The whole service as its users meet it: a real process, a real artifact, real sockets."""

from __future__ import annotations

import asyncio
import base64
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import BODY_TOO_LARGE, EMPTY_BODY, MALFORMED_REQUEST, UNSUPPORTED_MEDIA_TYPE, Kind
from tests.integration.server import PATIENCE_S, ROOT, ServerProcess, command, environment, failed_start, running
from tests.toy_artifact import confidence_of, png_of, write_artifact

PNG = {"content-type": "image/png"}
SLOW = 20
"""Matrix products a crop: a run lasts milliseconds, so that requests pile up behind it."""
ONE_LANE: dict[str, object] = {
    "lanes": 1,
    "intra_op_threads": 1,
    "request_timeout_ms": 1000 * PATIENCE_S,
    "max_queue_wait_ms": 1000 * PATIENCE_S,
}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("toy") / "toy.onnx")


@pytest.fixture(scope="module")
def slow_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("slow") / "slow.onnx", work=SLOW)


@pytest.fixture(scope="module")
def server(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running(artifact, log, max_body_bytes=2_000_000, forked=True) as process:
        yield process


def post(server: ServerProcess, **options: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/recognize", timeout=PATIENCE_S, **options)


def post_all(server: ServerProcess, texts: list[str]) -> list[httpx.Response]:
    """One request for each text, all at the same time, each on its own connection."""

    async def run() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=len(texts))
        async with httpx.AsyncClient(limits=limits, timeout=PATIENCE_S) as client:
            url = f"{server.url}/v1/recognize"
            return await asyncio.gather(*(client.post(url, content=png_of(text), headers=PNG) for text in texts))

    return asyncio.run(run())


def test_a_raw_body(server: ServerProcess) -> None:
    answer = post(server, content=png_of("raw"), headers=PNG).json()
    assert answer["text"] == "raw"
    assert answer["confidence"] == pytest.approx(confidence_of("raw"), abs=1e-6)


def test_a_form_file(server: ServerProcess) -> None:
    answer = post(server, files={"file": ("word.png", png_of("form"))}).json()
    assert (answer["id"], answer["text"]) == ("word.png", "form")


def test_head_leaves_the_connection_usable(server: ServerProcess) -> None:
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=PATIENCE_S)
    for path in ("/", "/docs", "/metrics", "/v1/models", "/livez", "/nowhere", "/v1/recognize"):
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == ({"/nowhere": 404, "/v1/recognize": 405}.get(path, 200), b"")
        assert int(answer.headers["content-length"]) > 0
    connection.request("GET", "/livez")
    assert connection.getresponse().read() == b'{"status":"alive"}'
    connection.close()


def test_several_form_files(server: ServerProcess) -> None:
    files = [("file", (f"{index}.png", png_of(f"text{index}"))) for index in range(3)]
    results = post(server, files=files).json()["results"]
    assert [(result["id"], result["text"]) for result in results] == [(f"{i}.png", f"text{i}") for i in range(3)]


def test_a_list_of_32_with_one_corrupt_crop_gives_31_texts_and_one_error(server: ServerProcess) -> None:
    contents = [png_of(f"crop{index}") for index in range(32)]
    contents[13] = contents[13][:60]
    images = [{"id": f"id{index}", "content": base64.b64encode(content).decode()} for index, content in enumerate(contents)]
    response = post(server, json={"images": images})
    assert response.status_code == 200
    results = response.json()["results"]
    assert [result["id"] for result in results] == [f"id{index}" for index in range(32)]
    assert results[13]["error"]["status"] == 422
    assert [result["text"] for result in results if "text" in result] == [f"crop{i}" for i in range(32) if i != 13]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, EMPTY_BODY),
        ({"content": b"{not json", "headers": {"content-type": "application/json"}}, MALFORMED_REQUEST),
        ({"content": b"hello", "headers": {"content-type": "text/plain"}}, UNSUPPORTED_MEDIA_TYPE),
        ({"content": bytes(2_000_001), "headers": PNG}, BODY_TOO_LARGE),
    ],
)
def test_bad_requests(server: ServerProcess, options: dict[str, Any], kind: Kind) -> None:
    response = post(server, **options)
    assert response.status_code == kind.status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == kind.type


def test_a_body_streamed_beyond_the_limit_is_refused(server: ServerProcess) -> None:
    chunks = (bytes(100_000) for _ in range(40))
    assert post(server, content=chunks, headers=PNG).status_code == 413


def test_a_client_that_leaves_does_no_harm(server: ServerProcess) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for cut in (10, 60, 10_000):
        body = png_of("gone")
        head = f"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall((head.encode() + body)[:cut])
    assert post(server, content=png_of("still"), headers=PNG).json()["text"] == "still"
    assert server.process.poll() is None


def test_headers_go_in_and_out(server: ServerProcess) -> None:
    answer = post(server, content=png_of("raw"), headers={**PNG, "x-request-id": "mine", "x-request-timeout-ms": "60000"})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["server-timing"].endswith(f"total;dur={answer.json()['timings']['total_ms']}")
    refused = post(server, content=png_of("raw"), headers={**PNG, "x-request-id": "mine", "x-request-timeout-ms": "soon"})
    assert (refused.status_code, refused.headers["x-request-id"]) == (400, "mine")
    made = {httpx.get(f"{server.url}/livez").headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2


BODIES: dict[str, tuple[bytes, int]] = {
    "image/png": (png_of("a"), 1),
    "multipart/form-data; boundary=x": (
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n' + png_of("a") + b"\r\n--x--\r\n",
        1,
    ),
    "application/json": (b'{"images":[' + b",".join([b'{"content":"%s"}' % base64.b64encode(png_of("a"))] * 2) + b"]}", 2),
}


def test_the_crops_of_clients_that_left_are_not_run(slow_artifact: Path, tmp_path: Path) -> None:
    with running(
        slow_artifact, tmp_path / "log", forked=True, **ONE_LANE, max_batch_size=1, max_batch_queue_wait_ms=60_000
    ) as server:
        host, port = server.url.removeprefix("http://").split(":")
        busy = {"images": [{"content": base64.b64encode(png_of("busy")).decode()}] * 100}
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(post, server, json=busy)
            wait_until(lambda: server.metric("parseq_crops_admitted_total") == 100)
            wanted = 100
            for content_type, (body, n_crops) in BODIES.items():
                head = f"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n"
                head += f"Content-Length: {len(body)}\r\n\r\n"
                with socket.create_connection((host, int(port))) as connection:
                    connection.sendall(head.encode() + body)
                    wanted += n_crops
                    wait_until(lambda wanted=wanted: server.metric("parseq_crops_admitted_total") == wanted)
            assert answer.result().status_code == 200
        wait_until(lambda: server.metric("parseq_requests_in_flight") == 0)
        ended = {name: server.metric(f'parseq_crops_total{{outcome="{name}"}}') for name in ("done", "cancelled")}
        assert sum(ended.values()) == 104
        assert ended["cancelled"] >= 1


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.001)


def test_two_hundred_at_once_all_answer_and_share_batches(slow_artifact: Path, tmp_path: Path) -> None:
    with running(slow_artifact, tmp_path / "log", forked=True, **ONE_LANE, max_batch_size=8) as server:
        texts = [f"word{index}" for index in range(200)]
        answers = post_all(server, texts)
        assert [answer.json().get("text") for answer in answers] == texts
        assert server.metric("parseq_batch_size_crops_sum") == 200
        assert server.metric("parseq_batch_size_crops_count") < 200
        assert server.metric('parseq_batch_size_crops_bucket{le="1.0"}') < server.metric("parseq_batch_size_crops_count")
        assert server.metric('parseq_crops_total{outcome="done"}') == 200
        assert server.metric("parseq_requests_in_flight") == 0
        assert server.terminate() == 0


def test_a_full_queue_refuses_some_and_answers_the_others(slow_artifact: Path, tmp_path: Path) -> None:
    limits = {**ONE_LANE, "max_batch_size": 1, "max_queue_items": 2, "max_crops_per_request": 2}
    with running(slow_artifact, tmp_path / "log", forked=True, **limits) as server:
        texts = [f"word{index}" for index in range(60)]
        answers = post_all(server, texts)
        assert {answer.status_code for answer in answers} == {200, 429}
        for text, answer in zip(texts, answers, strict=True):
            if answer.status_code == 200:
                assert answer.json()["text"] == text
            else:
                assert int(answer.headers["retry-after"]) >= 1
        refused = sum(answer.status_code == 429 for answer in answers)
        assert server.metric('parseq_crops_refused_total{reason="queue_full"}') == refused
        assert server.metric("parseq_crops_admitted_total") == 60 - refused


def test_sigterm_answers_what_is_in_flight_and_exits_with_0(slow_artifact: Path, tmp_path: Path) -> None:
    async def scenario(server: ServerProcess) -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            url = f"{server.url}/v1/recognize"
            posts = [asyncio.ensure_future(client.post(url, content=png_of(f"w{index}"), headers=PNG)) for index in range(32)]
            while server_admitted(await client.get(f"{server.url}/metrics")) < 32:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            server.process.terminate()
            return await asyncio.gather(*posts)

    with running(slow_artifact, tmp_path / "log", forked=True, **ONE_LANE) as server:
        answers = asyncio.run(scenario(server))
        assert [answer.json()["text"] for answer in answers] == [f"w{index}" for index in range(32)]
        assert server.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in server.log.read_text()


def server_admitted(response: httpx.Response) -> float:
    [line] = [line for line in response.text.splitlines() if line.startswith("parseq_crops_admitted_total{")]
    return float(line.split()[1])


def test_a_file_that_is_no_artifact_ends_the_start_with_one_line_and_exit_code_3(tmp_path: Path) -> None:
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk")
    done = subprocess.run(
        command(), cwd=ROOT, env=environment(artifact=junk), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("parseq-serve: ")
    assert done.stderr.count("\n") == 1
    assert "not an ONNX file" in done.stderr


def test_an_artifact_that_fails_its_warm_up_is_one_line(tmp_path: Path) -> None:
    broken = write_artifact(tmp_path / "broken.onnx", broken=True)
    code, line = failed_start(tmp_path / "log", "--port", "0", artifact=broken, log_level="error")
    assert code == 3
    assert line.startswith("parseq-serve: ")
    assert line.count("\n") == 1
    assert "failed its warm-up" in line


def test_a_start_measures_and_leaves_nothing_behind(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "toy.onnx")
    with running(artifact, tmp_path / "log", tune=1, forked=True) as server:
        assert post(server, content=png_of("tuned"), headers=PNG).json()["text"] == "tuned"
        assert "a restart measures again)" in (tmp_path / "log").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "toy.onnx"]
