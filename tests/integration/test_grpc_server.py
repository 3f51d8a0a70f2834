"""gRPC by a server of its own process, asked by Triton's client: drain, reload, memory, what ends the start."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.grpc_calls import Caller, free_port, request_of
from tests.integration.server import PATIENCE_S, ROOT, ServerProcess, environment, failed_start, running, wait_until_refused
from tests.integration.test_lifecycle import ENDLESS, PATIENT, wait_for
from tests.integration.test_several_models import MIRRORED, TEXT, mirror_at
from tests.toy_artifact import confidence_of, png_of, write_artifact

TEXTS = ["abc", "x1"]
N_CLIENTS = 4
MIB = 2**20
ENDLESS_CALLS = 90

Started = tuple[ServerProcess, Caller]


@contextmanager
def grpc_running(artifact: Path, log: Path, **settings: object) -> Iterator[Started]:
    """A server that is ready, and a client that sends anything."""
    port = free_port()
    with running(artifact, log, grpc_port=port, forked=True, **settings) as server:
        caller = Caller(f"127.0.0.1:{port}", server.url)
        with caller.channel:
            yield server, caller


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("grpc")
    with grpc_running(write_artifact(folder / "toy.onnx"), folder / "log", log_format="json", log_level="debug") as found:
        yield found


@pytest.fixture(scope="module")
def client(started: Started) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(started[1].address) as client:
        yield client


def images(files: list[bytes], column: bool = False) -> list[triton.InferInput]:
    array = np.array(files, dtype=np.object_).reshape([len(files), 1] if column else [len(files)])
    tensor = triton.InferInput("images", list(array.shape), "BYTES")
    tensor.set_data_from_numpy(array)
    return [tensor]


def start(server: ServerProcess, caller: Caller, n_calls: int) -> list[Any]:
    """Calls that have been let in."""
    calls = [caller.start("ModelInfer", request_of(png_of("abc"))) for _ in range(n_calls)]
    ends_s = time.monotonic() + PATIENCE_S
    while server.metric("parseq_crops_admitted_total") < n_calls:
        assert time.monotonic() < ends_s, [call.exception() for call in calls if call.done()]
        time.sleep(0.01)
    return calls


FILES = [png_of(text) for text in TEXTS]


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("options", [{}, {"priority": 1, "timeout": 5_000_000, "parameters": {"mine": True}}])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_crops_are_read(client: triton.InferenceServerClient, column: bool, options: Any, compression: str | None) -> None:
    answer = client.infer("toy", images(FILES, column), request_id="r-1", compression_algorithm=compression, **options)
    shape = (2, 1) if column else (2,)
    assert answer.as_numpy("text").shape == answer.as_numpy("confidence").shape == shape
    assert [text.decode() for text in answer.as_numpy("text").reshape(-1)] == TEXTS
    expected = [pytest.approx(confidence_of(text), abs=1e-6) for text in TEXTS]
    assert answer.as_numpy("confidence").reshape(-1).tolist() == expected
    response = answer.get_response()
    [version] = client.get_model_metadata("toy").versions
    assert (response.id, response.model_name, response.model_version) == ("r-1", "toy", version)


def test_outputs_are_chosen(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in ("error", "character_confidences")]
    answer = client.infer("toy", images([FILES[0], b"junk"]), outputs=outputs)
    assert answer.as_numpy("text") is None
    assert [bool(error) for error in answer.as_numpy("error")] == [False, True]
    assert answer.as_numpy("character_confidences").shape == (2, 3)


def test_what_there_is_is_described(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("toy")
    assert client.get_model_metadata("toy").inputs[0].name == "images"
    assert [model.name for model in client.get_model_repository_index().models] == ["toy"]
    for status, told, ask in (
        ("NOT_FOUND", "those there are: toy", lambda: client.infer("nosuch", images(FILES))),
        ("INVALID_ARGUMENT", "SIGHUP", lambda: client.load_model("toy")),
        ("INVALID_ARGUMENT", "SIGHUP", lambda: client.unload_model("toy")),
        ("UNIMPLEMENTED", "", lambda: client.get_model_config("toy")),
    ):
        with pytest.raises(InferenceServerException) as caught:
            ask()
        assert caught.value.status() == f"StatusCode.{status}"
        assert told in caught.value.message()


def test_log_lines_name_their_request(started: Started) -> None:
    server, caller = started
    caller.infer(request_of(FILES[0]), metadata=[("x-request-id", "told-in-the-log")])
    wait_for(server, "told-in-the-log")
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if "told-in-the-log" in line]
    assert [(line["request_id"], line["logger"]) for line in lines] == [("told-in-the-log", "service.http.request_observer")]
    assert "/inference.GRPCInferenceService/ModelInfer: 200 in " in lines[0]["message"]


def peak_mib(server: ServerProcess) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_small_on_the_wire_stays_small_in_memory(started: Started) -> None:
    server, caller = started
    caller.infer(request_of(FILES[0]))
    before = peak_mib(server)
    bombs = [
        (b"\x2a\x00" * 4 * MIB, None),  # four million empty tensors
        (b"\x22\x00" * 4 * MIB, None),
        (request_of(b"\0" * 128 * MIB).SerializeToString(), grpc.Compression.Gzip),
    ]
    for data, compression in bombs:
        error = caller.refused(data, compression=compression)
        assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert peak_mib(server) - before < 100
    assert caller.infer(request_of(FILES[0]))


def test_a_drain_answers_what_is_in_flight_and_takes_no_more(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "toy.onnx", work=100)
    with grpc_running(artifact, tmp_path / "log", **PATIENT) as (server, caller):
        watch = caller.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert next(watch) == b"\x08\x01"
        calls = start(server, caller, 8)
        server.process.send_signal(signal.SIGTERM)
        assert next(watch) == b"\x08\x02"
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        for call in calls:
            assert call.result()
        late = caller.refused(request_of(png_of("abc")))
        assert late.code() is grpc.StatusCode.UNAVAILABLE
        assert server.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_calls_that_outlast_the_drain_are_cancelled(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "toy.onnx", work=ENDLESS)
    settings = {**PATIENT, "drain_timeout_s": 1}
    with grpc_running(artifact, tmp_path / "log", **settings) as (server, caller):
        calls = start(server, caller, ENDLESS_CALLS)
        server.process.send_signal(signal.SIGTERM)
        # Which of them come last is up to the client's threads.
        codes = {call.exception().code() for call in calls if call.exception() is not None}
        assert codes
        assert codes <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        assert server.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_a_second_signal_ends_the_server_at_once(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "toy.onnx", work=ENDLESS)
    with grpc_running(artifact, tmp_path / "log", **PATIENT) as (server, caller):
        calls = start(server, caller, ENDLESS_CALLS)
        server.process.send_signal(signal.SIGTERM)
        wait_until_refused(server)
        server.process.send_signal(signal.SIGTERM)
        assert any(call.exception() is not None for call in calls)
        assert server.process.wait(PATIENCE_S) == 1
        assert "Traceback" not in server.log.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_a_reload_that_replaces_the_model_loses_no_call(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    write_artifact(folder / "first.onnx", work=1)
    with grpc_running(folder, tmp_path / "log") as (server, caller):
        gone = threading.Event()
        n_read: list[str] = []

        def ask(_client: int) -> None:
            request = request_of(png_of(TEXT), typed=True, model_name="first")
            while not gone.is_set():
                call = caller.start("ModelInfer", request)
                if (error := call.exception()) is not None:
                    assert error.code() is grpc.StatusCode.NOT_FOUND, error
                    assert "those there are: second." in error.details()
                    gone.set()
                else:
                    n_read.append(TEXT)

        with ThreadPoolExecutor(N_CLIENTS) as pool:
            asking = [pool.submit(ask, client) for client in range(N_CLIENTS)]
            while len(n_read) < 20:
                pass
            mirror_at(folder / "second.onnx")
            (folder / "first.onnx").unlink()
            server.process.send_signal(signal.SIGHUP)
            for each in asking:
                each.result()
        answer = caller.infer(request_of(png_of(TEXT), typed=True, model_name="second"))
        assert list(answer.outputs[0].contents.bytes_contents) == [MIRRORED.encode()]
        wait_for(server, "not served any more: model first")
        assert server.terminate() == 0
        assert "Traceback" not in server.log.read_text()


WITHOUT_GRPC = "import sys; sys.modules['grpc'] = None; from service.__main__ import main; sys.exit(main(sys.argv[1:]))"


def test_what_ends_the_start_is_one_line(tmp_path: Path) -> None:
    arguments = ["--port", "0", "--artifact", str(write_artifact(tmp_path / "toy.onnx"))]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, told = failed_start(tmp_path / "log", *arguments, grpc_port=port)
        assert code == 3
        assert f"cannot listen on 127.0.0.1 port {port}" in told
        assert "PARSEQ_GRPC_PORT" in told
        assert "Traceback" not in told
    start = [sys.executable, "-c", WITHOUT_GRPC, *arguments]
    settings = environment(grpc_port=free_port())
    done = subprocess.run(start, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 3
    assert "needs the package grpc: install the extra `grpc`" in done.stderr
    assert "Traceback" not in done.stderr
