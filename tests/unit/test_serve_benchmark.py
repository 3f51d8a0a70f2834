"""The service's benchmark: its arithmetic, its client against a server of a few lines, and one short run; never how fast."""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from artifact.metadata import ArtifactMetadata
from benchmarks import protocols, serve
from benchmarks.protocols import PROTOCOLS, cpu_ms, load_of
from benchmarks.serving.arithmetic import (
    CpuReading,
    busy_ticks,
    cpu_use,
    mean,
    median,
    percentile,
    process_ticks,
    ratio,
    read_cpu,
)
from benchmarks.serving.artifacts import batch_request, null_artifact, single_requests
from benchmarks.serving.bare import BareModel, Topology
from benchmarks.serving.client import LOST, OK, Address, Answer, post, status_when_whole
from benchmarks.serving.loads import ClosedLoop, OpenLoop, poisson_arrivals_s, seconds_until_answered
from benchmarks.serving.report import table
from benchmarks.serving.server import Server
from benchmarks.serving.steps import FOR_GPUS, STEPS, Row, Window, medians
from service.process.cpu import cpu_budget
from tests.fakes import FakeSession, toy_runtime
from tests.grpc_calls import free_port
from tests.integration.in_process import listening
from tests.toy_artifact import METADATA, write_artifact


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0)])
def test_percentiles_are_values_that_occurred(share: float, wanted: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], share) == wanted


def test_figures_that_are_missing_stay_missing() -> None:
    assert percentile([], 0.5) is None
    assert ratio(None, 2.0) is ratio(2.0, None) is ratio(2.0, 0.0) is None
    assert ratio(1.0, 4.0) == 0.25
    assert median([None, None]) is None
    assert median([3.0, None, 1.0, 8.0]) == 3.0
    assert mean([1.0, 2.0]) == 1.5


def test_the_kernels_accounts_are_read() -> None:
    stat = "42 (a (strange) name) S 1 42 7 0 -1 4194304 99 0 0 0 250 31 5 5 20 0 3 0 46022 3133440 395"
    assert process_ticks(stat) == (7, 281)
    assert busy_ticks("cpu  100 1 30 5000 200 2 3 4 50 60\ncpu0 1 2 3\n") == 100 + 1 + 30 + 2 + 3 + 4


def test_cpu_time_is_shared_out() -> None:
    before = CpuReading(at_s=10.0, server_s=1.0, client_s=5.0, machine_s=100.0)
    after = CpuReading(at_s=12.0, server_s=3.0, client_s=5.4, machine_s=103.0)
    use = cpu_use(before, after, cores=2)
    assert use.server_s == 2.0
    assert use.client_share == pytest.approx(0.1)
    assert use.foreign_share == pytest.approx((3.0 - 2.0 - 0.4) / 4)
    assert cpu_use(before, CpuReading(12.0, 3.0, 6.0, 102.0), 2).foreign_share == 0.0


def test_only_processes_of_the_servers_session_count(tmp_path: Path) -> None:
    rest = " 0 -1 4194304 99 0 0 0 {} 0 5 5 20"
    for pid, session, ticks in ((5, 5, 100), (6, 5, 50), (7, 9, 1000)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (x) S 1 {pid} {session}" + rest.format(ticks))
    (tmp_path / "8").mkdir()  # it has just ended
    (tmp_path / "stat").write_text("cpu  100 0 0 0 0 0 0 0 0 0\n")
    ticks_per_s = 100 / read_cpu(5, tmp_path).machine_s
    assert read_cpu(5, tmp_path).server_s == 150 / ticks_per_s


def test_a_poisson_process() -> None:
    arrivals_s = poisson_arrivals_s(100.0, 50.0, seed=1)
    assert arrivals_s == sorted(arrivals_s)
    assert arrivals_s == poisson_arrivals_s(100.0, 50.0, seed=1) != poisson_arrivals_s(100.0, 50.0, seed=2)
    assert 0 < arrivals_s[0] < arrivals_s[-1] < 50.0
    gaps = np.diff(arrivals_s)
    assert len(arrivals_s) == pytest.approx(5000, rel=0.1)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)


def test_an_answer_is_whole_or_not() -> None:
    answer = b"HTTP/1.1 429 Too Many Requests\r\nserver: x\r\nContent-Length: 5\r\nretry-after: 1\r\n\r\nhello"
    assert [status_when_whole(answer[:cut]) for cut in range(len(answer))] == [None] * len(answer)
    assert status_when_whole(answer) == 429


def test_requests_say_how_long_they_are() -> None:
    for request in [*single_requests(), batch_request(3)]:
        head, _, body = request.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
    assert len(json.loads(batch_request(3).partition(b"\r\n\r\n")[2])["images"]) == 3


def test_a_row_of_medians() -> None:
    slices = [Row("c1", "m", ratio=value, refused=0, goodput=None) for value in (0.9, 0.7, 0.8)]
    row = medians(slices)
    assert (row.step, row.model, row.ratio, row.refused, row.goodput, row.slices) == ("c1", "m", 0.8, 0, None, 3)
    assert "0.80" in table([row])


def test_a_window_counts_readings_only() -> None:
    answers = [Answer(0.0, 1.0, OK), Answer(0.0, 1.5, 429), Answer(0.5, 2.0, OK), Answer(0.0, 2.0, LOST)]
    cpu = cpu_use(CpuReading(0, 0, 0, 0), CpuReading(2, 1, 0, 1), 2)
    assert Window(2.0, answers, cpu).rate() == 1.0
    assert Window(2.0, answers, cpu).rate(crops_per_request=32) == 32.0


class Counting(asyncio.Protocol):
    """Answers every request in two pieces: first `refusals` times 429, then 200; hangs up after `hang_up_after` requests."""

    def __init__(self, state: dict[str, int]) -> None:
        self.state = state

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert data.startswith(b"POST /v1/recognize HTTP/1.1\r\n")
        self.state["seen"] += 1
        if self.state["seen"] == self.state["hang_up_after"]:
            self.transport.abort()
            return
        status = 429 if self.state["seen"] <= self.state["refusals"] else 200
        self.transport.write(b"HTTP/1.1 %d X\r\ncontent-len" % status)
        asyncio.get_running_loop().call_soon(self.transport.write, b"gth: 2\r\n\r\n{}")


async def listen(refusals: int = 0, hang_up_after: int = -1) -> tuple[asyncio.Server, Address, dict[str, int]]:
    state = {"seen": 0, "refusals": refusals, "hang_up_after": hang_up_after}
    server = await asyncio.get_running_loop().create_server(lambda: Counting(state), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    return server, (host, port), state


def test_a_closed_loop_has_one_request_in_flight_on_each_connection() -> None:
    async def scenario() -> None:
        server, address, state = await listen()
        load = ClosedLoop(address, [post(b"a", "image/png"), post(b"b", "image/png")], 3)
        await load.start()
        while len(load.traffic.answers) < 30:
            await load.traffic.next_answer()
            assert load.traffic.in_flight <= 3
        await load.stop()
        assert load.traffic.in_flight == 0
        assert {answer.status for answer in load.traffic.answers} == {OK}
        assert state["seen"] == len(load.traffic.answers)
        assert all(answer.latency_s > 0 for answer in load.traffic.answers)
        server.close()

    asyncio.run(scenario())


def test_an_open_loop_offers_all_its_posts_and_counts_what_was_lost() -> None:
    async def scenario() -> None:
        server, address, state = await listen(refusals=2, hang_up_after=5)
        load = OpenLoop(address, [post(b"a", "image/png")], 200.0, 0.2, seed=3)
        await load.run()
        await load.stop()
        statuses = sorted(answer.status for answer in load.traffic.answers)
        assert load.offered == state["seen"] == len(statuses) == len(poisson_arrivals_s(200.0, 0.2, seed=3))
        assert statuses == [LOST, *[OK] * (load.offered - 3), 429, 429]
        server.close()

    asyncio.run(scenario())


def test_the_probe_asks_until_it_is_answered() -> None:
    async def scenario() -> None:
        server, address, state = await listen(refusals=3)
        assert await seconds_until_answered(address, post(b"a", "image/png"), pause_s=0.001) is not None
        assert state["seen"] == 4
        server.close()

    asyncio.run(scenario())


def test_the_null_artifact_has_the_interface_of_the_other(tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(str(null_artifact(METADATA, tmp_path)), providers=["CPUExecutionProvider"])
    metadata = ArtifactMetadata.from_map(session.get_modelmeta().custom_metadata_map)
    assert (metadata.charset, metadata.max_label_length) == (METADATA.charset, METADATA.max_label_length)
    token_ids, confidences = session.run(None, {"images": np.zeros((3, 32, 128, 3), np.uint8)})
    assert token_ids.shape == confidences.shape == (3, METADATA.max_label_length + 1)
    assert (token_ids == token_ids[0]).all()


def test_the_bare_session_is_tried_in_every_topology(tmp_path: Path) -> None:
    bare = BareModel(write_artifact(tmp_path / "toy.onnx"), cores=2)
    assert len(bare.candidates()) == 6
    assert bare.best(0.001) in bare.candidates()
    pace = bare.measure(Topology(2, 1, 8), 0.01)
    assert min(pace.crops_per_s, pace.crops_per_cpu_s) > 0
    assert len(BareModel(tmp_path / "toy.onnx", cores=1).candidates()) == 3


ONE_UNTUNED = ["--slices", "1", "--setting", "tune=0"]
"""What servers measure when they start is not theirs to tell."""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Runs of the benchmark in this process: load and the bare session are measured for moments."""
    monkeypatch.setattr("benchmarks.serving.steps.RAMP_S", 0.1)
    monkeypatch.setattr("benchmarks.serving.steps.BARE_S", 0.03)
    monkeypatch.setattr(serve, "SEARCH_S", 0.01)
    monkeypatch.setattr(serve, "WORK_FOLDER", tmp_path / "work")
    yield
    gc.enable()


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_a_short_run_of_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact, report = write_artifact(tmp_path / "toy.onnx"), tmp_path / "rows.json"
    options = ["--artifact", str(artifact), *ONE_UNTUNED, "--slice-s", "0.25", "--json", str(report)]
    monkeypatch.setattr(sys, "argv", ["serve", *options])
    assert serve.main() == 0
    rows = {row["step"]: row for row in json.loads(report.read_text(encoding="utf-8"))}
    assert set(rows) == set(STEPS) - FOR_GPUS
    assert all(row["model"] == "toy" and row["p50_ms"] > 0 and row["failed"] == 0 for row in rows.values())
    assert all(
        rows[step]["ratio"] > 0 and rows[step]["ratio_best"] > 0 for step in ("c1", "c8", "c32", "c64", "r70", "batch32")
    )
    assert rows["null_c64"]["ratio"] is None
    assert rows["overload4x"]["recovery_s"] > 0
    assert rows["mixed"]["slowdown"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_a_short_run_of_two_models_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, report = [str(write_artifact(tmp_path / f"{name}.onnx")) for name in "ab"], tmp_path / "rows.json"
    options = ["--models", "--artifact", *paths, "--step", "c8", *ONE_UNTUNED, "--slice-s", "0.1", "--json", str(report)]
    monkeypatch.setattr(sys, "argv", ["serve", *options])
    assert serve.main() == 0
    rows = json.loads(report.read_text(encoding="utf-8"))
    assert [row["model"] for row in rows] == [f"{name}, others {beside}" for name in "ab" for beside in ("idle", "busy")]
    assert all(row["p50_ms"] > 0 and row["failed"] == 0 for row in rows)


def test_every_protocol_is_asked_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    # A stand-in: the session of this process is also that of its neighbours, whose time is gone when they end.
    readings = itertools.cycle([CpuReading(0.0, 1.0, 0.0, 2.0), CpuReading(1.0, 1.5, 0.0, 3.0)])
    monkeypatch.setattr(protocols, "read_cpu", lambda _session: next(readings))
    session = FakeSession()
    steps = METADATA.max_label_length + 1
    session.answer = lambda crops: (np.zeros((len(crops), steps), np.int64), np.ones((len(crops), steps), np.float32))
    runtime = toy_runtime(session, grpc_port=free_port())
    with listening(runtime) as address:
        server = Server(address, os.getsid(0), "")
        for protocol in PROTOCOLS:
            load = load_of(protocol, server, runtime.settings.grpc_port, "toy", 2)
            one_ms, others = asyncio.run(cpu_ms(load, server, 0.05))
            assert load.n_answered() > 0
            assert 500 / load.n_answered() <= one_ms <= 500
            assert others == pytest.approx(0.5 / cpu_budget())
        for protocol in PROTOCOLS[1:]:
            load = load_of(protocol, server, runtime.settings.grpc_port, "nosuch", 1)
            with pytest.raises(SystemExit, match=r"404|no model `nosuch`"):
                asyncio.run(cpu_ms(load, server, 0.05))


def test_each_number_of_front_processes_is_a_server_of_its_own() -> None:
    args = argparse.Namespace(setting=["lanes=1"], workers=[1, 2])
    assert [settings for _, settings in serve.forms("m", args)] == [
        {"lanes": "1", "http_workers": "1"},
        {"lanes": "1", "http_workers": "2"},
    ]
    assert serve.forms("m", argparse.Namespace(setting=[], workers=[])) == [("m", {})]
