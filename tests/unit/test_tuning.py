from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.runtime import Runtime
from service.sessions import opening
from service.sessions.artifact import LoadedArtifact, load_artifact
from service.sessions.session import word_crops
from service.sessions.topology import Candidate, Sweep, Topology, lane_candidates, plan_topology, sizes_up_to, wide_candidate
from service.sessions.tuning import choose, pays_alone, sweep
from tests.fakes import FakeClock, FakeSession, read_toy, request, toy_settings
from tests.toy_artifact import HEIGHT, METADATA, WIDTH, pixels_of, png_of, write_artifact

LONG_S = 1000.0
SIZES = (1, 2, 4, 8)
OPTIONS = [Candidate(2, 1), Candidate(1, 2)]


class TimedSession:
    """Takes `duration_s(n)` for a batch when `lanes` run at once, on a clock that stands still otherwise."""

    def __init__(self, clock: FakeClock, lanes: int, duration_s: Callable[[int], float]) -> None:
        self.clock, self.lanes, self.duration_s = clock, lanes, duration_s
        self.batches: list[int] = []
        self.in_flight = self.most_in_flight = 0
        self._together = threading.Barrier(lanes)
        self._lock = threading.Lock()

    def run(self, crops: NDArray[np.uint8]) -> tuple[Any, Any]:
        with self._lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.batches.append(len(crops))
        self._together.wait(60)  # breaks when a lane runs without the others
        self.clock.advance(self.duration_s(len(crops)) / self.lanes)
        with self._lock:
            self.in_flight -= 1
        return read_toy(crops)


def measure(duration_s: Callable[[int], float], lanes: int = 2, largest: int = 32, limit_s: float = LONG_S) -> Sweep:
    clock = FakeClock()
    session = TimedSession(clock, lanes, duration_s)
    [found] = sweep([(Candidate(lanes, 1), session)], (HEIGHT, WIDTH), sizes_up_to(largest), limit_s, clock)
    assert session.most_in_flight == lanes
    return found


def swept(lanes: int, threads: int, **rates: float) -> Sweep:
    """A sweep that found these crops per second: `at_4=100`."""
    sizes = {int(name.removeprefix("at_")): rate for name, rate in rates.items()}
    return Sweep(Candidate(lanes, threads), {size: lanes * size / rate for size, rate in sizes.items()})


def test_a_sweep_times_runs_of_all_lanes_at_once() -> None:
    found = measure(lambda n: 0.010 + 0.002 * n)
    assert found.durations_s == pytest.approx({n: 0.010 + 0.002 * n for n in (1, 2, 4, 8, 16, 32)})
    assert found.crops_per_s(8) == pytest.approx(2 * 8 / 0.026)
    assert found.knee == 32


def test_a_sweep_ends_where_larger_batches_are_slower() -> None:
    found = measure(lambda n: 0.004 + 0.004 * n + (0.1 if n > 8 else 0.0))
    assert list(found.durations_s) == [1, 2, 4, 8, 16]
    assert found.knee == 8


def test_a_sweep_ends_when_its_time_is_up_but_measures_something() -> None:
    assert list(measure(lambda _n: 5.0, limit_s=1.0).durations_s) == [1]
    assert list(measure(lambda _n: 5.0, limit_s=40.0).durations_s) == [1, 2]


def test_the_first_run_and_a_hiccup_do_not_count() -> None:
    slow = iter([60.0, 3.0])
    found = measure(lambda _n: next(slow, 0.01), lanes=1, largest=1)
    assert found.durations_s == pytest.approx({1: 0.01})


def contenders(clock: FakeClock, *durations_s: Callable[[int], float]) -> tuple[list[Any], list[tuple[int, int]]]:
    """Candidates of one lane with these durations of a run, and a list of what is run: index of the candidate, crops."""
    order: list[tuple[int, int]] = []

    def session(index: int, duration_s: Callable[[int], float]) -> TimedSession:
        def noted_s(n_crops: int) -> float:
            order.append((index, n_crops))
            return duration_s(n_crops)

        return TimedSession(clock, 1, noted_s)

    return [(Candidate(1, 1 + index), session(index, each)) for index, each in enumerate(durations_s)], order


def test_candidates_are_measured_in_turn_and_twice() -> None:
    """Whatever slows the machine down for a while slows all of them."""
    clock = FakeClock()
    sessions, order = contenders(clock, lambda n: 0.1 * n, lambda n: 0.2 * n)
    first, second = sweep(sessions, (HEIGHT, WIDTH), (1, 2), LONG_S, clock)
    each_size = [(0, 1), (1, 1)] * 3 + [(0, 2), (1, 2)] * 3
    assert order == [(0, 1), (1, 1)] + each_size * 2
    assert (first.candidate, second.candidate) == (Candidate(1, 1), Candidate(1, 2))
    assert first.durations_s == pytest.approx({1: 0.1, 2: 0.2})
    assert second.durations_s == pytest.approx({1: 0.2, 2: 0.4})


def test_a_machine_that_is_slow_for_a_while_fools_nobody() -> None:
    clock = FakeClock()

    def at_its_pace(n_crops: int) -> float:
        return 0.01 * n_crops * (1.5 if 0.3 < clock() < 0.9 else 1.0)

    sessions, _ = contenders(clock, at_its_pace, at_its_pace)
    first, second = sweep(sessions, (HEIGHT, WIDTH), (1, 2, 4), LONG_S, clock)
    assert first.durations_s == second.durations_s == pytest.approx({1: 0.01, 2: 0.02, 4: 0.04})


def test_larger_batches_are_tried_while_one_candidate_gains_from_them() -> None:
    clock = FakeClock()
    sessions, _ = contenders(clock, lambda n: 0.1 * n * n, lambda n: 0.1 + 0.01 * n + (9.0 if n > 4 else 0.0))
    found = sweep(sessions, (HEIGHT, WIDTH), (1, 2, 4, 8, 16), LONG_S, clock)
    assert [list(each.durations_s) for each in found] == [[1, 2, 4, 8]] * 2
    assert [each.knee for each in found] == [1, 4]


@pytest.mark.parametrize("size", [(32, 128), (48, 320), (16, 64)])
def test_crops_of_the_sweep_have_a_word_on_them(size: tuple[int, int]) -> None:
    crops = word_crops(*size, 3)
    assert [(crop.shape, crop.dtype) for crop in crops] == [((*size, 3), np.uint8)] * 3
    dark = crops[0].min(axis=(0, 2)) < 128
    assert dark.mean() > 0.3  # letters all along it
    assert (crops[0].max(axis=(0, 2)) > 200).all()  # on light ground


@pytest.mark.parametrize("cap", [1, 6, 32])
def test_no_batch_of_a_sweep_is_over_the_largest(cap: int) -> None:
    assert max(measure(lambda _n: 0.01, largest=cap).durations_s) == cap


def test_the_knee_is_the_smallest_batch_that_is_as_good_as_the_best() -> None:
    assert swept(2, 1, at_1=307, at_2=340, at_4=362, at_8=362, at_16=331).knee == 4
    assert swept(1, 1, at_1=100, at_2=99).knee == 1


def test_on_a_gpu_the_knee_is_a_bucket_and_a_padded_batch_costs_what_its_bucket_does() -> None:
    found = swept(1, 1, at_1=100, at_2=200, at_4=390, at_8=500, at_16=500)
    topology = plan_topology(toy_settings(lanes=0), "cuda", 8, found=found, origin="measured")
    assert topology.max_batch_size == found.knee == 8
    durations_s = topology.padded(topology.durations_s)
    assert list(durations_s) == list(range(1, 9))
    assert durations_s[5] == durations_s[8] == found.durations_s[8]
    assert durations_s[3] == found.durations_s[4]


def test_the_choice_follows_the_rates() -> None:
    lanes, threads = swept(2, 1, at_1=300, at_4=360), swept(1, 2, at_1=250, at_4=330)
    assert choose([lanes, threads]) is lanes
    fast, faster = swept(2, 2, at_1=250, at_4=400), swept(1, 4, at_1=300, at_4=420)
    assert choose([lanes, fast, faster]) is faster


def test_the_most_likely_candidate_is_left_only_for_a_clearly_better_one() -> None:
    lanes = swept(2, 1, at_1=100, at_8=360)
    assert choose([lanes, swept(1, 2, at_1=390, at_8=395)]) is lanes
    better = swept(1, 2, at_1=390, at_8=397)
    assert choose([lanes, better]) is better


@pytest.mark.parametrize(("wide_s", "pays"), [(0.079, True), (0.081, False), (0.2, False)])
def test_a_second_session_pays_when_a_crop_that_is_alone_is_read_much_sooner(wide_s: float, pays: bool) -> None:
    clock = FakeClock()
    wide, usual = TimedSession(clock, 1, lambda _n: wide_s), TimedSession(clock, 1, lambda _n: 0.1)
    assert pays_alone(wide, usual, (HEIGHT, WIDTH), clock) is pays
    assert set(wide.batches) == set(usual.batches) == {1}


def test_a_hiccup_does_not_decide_whether_a_second_session_pays() -> None:
    clock, hiccups = FakeClock(), iter([0.5, 0.05, 0.5, 0.5, 0.5, 0.5])
    wide, usual = TimedSession(clock, 1, lambda _n: next(hiccups, 0.05)), TimedSession(clock, 1, lambda _n: 0.1)
    assert pays_alone(wide, usual, (HEIGHT, WIDTH), clock)
    lucky = iter([0.01, 0.1, 0.01])
    wide = TimedSession(clock, 1, lambda _n: next(lucky, 0.1))
    assert not pays_alone(wide, usual, (HEIGHT, WIDTH), clock)


def test_only_a_cpu_whose_lanes_are_open_has_a_candidate_for_a_crop_that_is_alone() -> None:
    def wide(provider: str, budget: int, **settings: Any) -> Candidate | None:
        return wide_candidate(lane_candidates(toy_settings(**{"lanes": 0, **settings}), provider, budget, 1), provider)

    assert (wide("cpu", 2), wide("openvino", 6)) == (Candidate(1, 2), Candidate(1, 6))
    assert wide("cpu", 1) is wide("cpu", 2, lanes=2) is wide("cpu", 2, intra_op_threads=1) is None
    assert wide("cuda", 8, intra_op_threads=4) is None


def test_candidates_stay_within_the_budget() -> None:
    assert lane_candidates(toy_settings(lanes=0), "cpu", 1, 1) == [Candidate(1, 1)]
    assert lane_candidates(toy_settings(lanes=0), "cpu", 2, 1) == [Candidate(2, 1), Candidate(1, 2)]
    assert lane_candidates(toy_settings(lanes=0), "openvino", 8, 1) == [Candidate(8, 1), Candidate(4, 2), Candidate(1, 8)]
    assert lane_candidates(toy_settings(lanes=0), "cuda", 8, 3) == [Candidate(3, 1), Candidate(6, 1)]


def test_set_lanes_and_threads_are_the_only_candidate() -> None:
    assert lane_candidates(toy_settings(lanes=2), "cpu", 8, 1) == [Candidate(2, 4)]
    assert lane_candidates(toy_settings(lanes=0, intra_op_threads=4), "cpu", 8, 1) == [Candidate(2, 4)]
    assert lane_candidates(toy_settings(lanes=3, intra_op_threads=5), "cpu", 1, 1) == [Candidate(3, 5)]
    assert lane_candidates(toy_settings(lanes=5), "tensorrt", 8, 2) == [Candidate(5, 1)]


def test_what_is_usual_is_planned_where_nothing_is_measured() -> None:
    assert plan_topology(toy_settings(lanes=0), "cpu", 4) == Topology(4, 1, 8)
    assert plan_topology(toy_settings(lanes=0), "cpu", 1) == Topology(1, 1, 8)
    gpu = plan_topology(toy_settings(lanes=0), "cuda", 8, n_devices=2)
    assert gpu == Topology(2, 1, 64, buckets=(1, 2, 4, 8, 16, 32, 64))
    chosen = plan_topology(toy_settings(lanes=3, intra_op_threads=5, max_batch_size=9), "cpu", 1)
    assert chosen == Topology(3, 5, 9)


class Starts:
    """Starts of the service with a toy artifact, on a machine where sweeps find what they are told to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.artifact = write_artifact(folder / "toy.onnx")
        self.swept: list[tuple[Candidate, tuple[int, ...]]] = []
        self.pays_alone = False
        self.found = {Candidate(2, 1): swept(2, 1, at_1=300, at_4=360), Candidate(1, 2): swept(1, 2, at_1=200, at_2=300)}
        monkeypatch.setattr(opening, "sweep", self._sweep)
        monkeypatch.setattr(opening, "pays_alone", lambda *_: self.pays_alone)
        monkeypatch.setattr("service.sessions.artifact.cpu_budget", lambda: 2)

    def _sweep(self, sessions: list[tuple[Candidate, Any]], _shape: Any, sizes: Any) -> list[Sweep]:
        self.swept += [(candidate, tuple(sizes)) for candidate, _ in sessions]
        return [
            self.found.get(candidate, swept(candidate.lanes, candidate.intra_op_threads, at_1=100, at_2=120))
            for candidate, _ in sessions
        ]

    def start(self, **settings: Any) -> LoadedArtifact:
        self.swept.clear()
        return load_artifact(toy_settings(**{"artifact": self.artifact, "lanes": 0, "tune": True, **settings}))


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Starts:
    return Starts(tmp_path, monkeypatch)


def test_every_start_measures(starts: Starts) -> None:
    for _ in range(2):
        topology = starts.start().topology
        assert [candidate for candidate, _ in starts.swept] == [Candidate(2, 1), Candidate(1, 2)]
        assert (topology.lanes, topology.intra_op_threads, topology.max_batch_size, topology.origin) == (2, 1, 4, "measured")
        assert topology.durations_s == starts.found[Candidate(2, 1)].durations_s
    assert sorted(path.name for path in starts.artifact.parent.iterdir()) == ["toy.onnx"]


@pytest.mark.parametrize(
    ("share", "expected"), [(0.79, (2, 1, 8, "usual")), (0.81, (2, 1, 1, "measured")), (None, (2, 1, 1, "measured"))]
)
def test_what_was_measured_beside_other_work_is_not_used(
    share: float | None, expected: tuple[Any, ...], starts: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    starts.pays_alone = True
    starts.found[Candidate(2, 1)] = replace(swept(2, 1, at_1=300, at_4=200), cpu_share=share)
    artifact = starts.start()
    topology = artifact.topology
    assert (topology.lanes, topology.intra_op_threads, topology.max_batch_size, topology.origin) == expected
    crowded = topology.origin == "usual"
    assert (artifact.alone is None, topology.durations_s == {}) == (crowded, crowded)
    assert ("not tuned" in caplog.text and "79 %" in caplog.text and "restart" in caplog.text) == crowded
    assert ("a restart measures again" in Runtime(toy_settings(), artifact).describe()) is True


def test_a_sweep_tells_how_much_of_the_processors_it_had() -> None:
    class Computing:
        def run(self, crops: NDArray[np.uint8]) -> tuple[Any, Any]:
            end_s = time.thread_time() + 0.004
            while time.thread_time() < end_s:
                pass
            return read_toy(crops)

    class Waiting:
        def run(self, crops: NDArray[np.uint8]) -> tuple[Any, Any]:
            end_s = time.thread_time() + 0.002
            while time.thread_time() < end_s:
                pass
            time.sleep(0.004)
            return read_toy(crops)

    class Short:
        def run(self, crops: NDArray[np.uint8]) -> tuple[Any, Any]:
            return read_toy(crops)

    sessions = [(Candidate(1, 1), each) for each in (Waiting(), Computing(), Short())] + [(Candidate(1, 2), Waiting())]
    waiting, computing, short, wide = sweep(sessions, (HEIGHT, WIDTH), (1,), LONG_S)
    assert waiting.is_crowded
    assert waiting.cpu_share is not None
    assert computing.cpu_share is not None
    assert computing.cpu_share > waiting.cpu_share
    assert (short.is_crowded, wide.cpu_share) == (False, None)


def test_the_choice_of_a_start_follows_the_sweep(starts: Starts) -> None:
    starts.found[Candidate(1, 2)] = swept(1, 2, at_1=400, at_2=500)
    topology = starts.start().topology
    assert (topology.lanes, topology.intra_op_threads, topology.max_batch_size) == (1, 2, 2)


def test_a_second_session_that_pays_is_opened(starts: Starts) -> None:
    plain = starts.start(max_batch_size=6)
    assert (plain.alone, plain.topology.alone_threads) == (None, 0)
    starts.pays_alone = True
    artifact = starts.start()
    assert (artifact.topology.lanes, artifact.topology.alone_threads) == (2, 2)
    assert artifact.alone is not None
    assert artifact.alone is not artifact.session
    assert len(artifact.alone.run(np.stack([pixels_of("a")]))[0]) == 1


def test_a_second_session_is_for_several_lanes_that_were_left_open(starts: Starts) -> None:
    starts.pays_alone = True
    for settings in ({"lanes": 2}, {"intra_op_threads": 1}, {"tune": False}):
        assert starts.start(**settings).alone is None
    starts.found[Candidate(1, 2)] = swept(1, 2, at_1=400, at_2=500)
    artifact = starts.start()  # a single lane with all cores has nothing to gain
    assert (artifact.topology.lanes, artifact.topology.alone_threads, artifact.alone) == (1, 0, None)


def test_settings_win_and_skip_their_part_of_the_sweep(starts: Starts) -> None:
    capped = starts.start(max_batch_size=6).topology
    assert capped.max_batch_size == 6
    assert [sizes for _, sizes in starts.swept] == [(1, 2, 4, 6)] * 2
    laned = starts.start(lanes=3).topology
    assert (laned.lanes, laned.intra_op_threads, laned.max_batch_size) == (3, 1, 2)
    assert [candidate for candidate, _ in starts.swept] == [Candidate(3, 1)]
    all_set = starts.start(lanes=1, intra_op_threads=2, max_batch_size=3).topology
    assert (all_set.lanes, all_set.intra_op_threads, all_set.max_batch_size, all_set.origin) == (1, 2, 3, "set")
    assert starts.swept == []


def test_tuning_can_be_switched_off(starts: Starts) -> None:
    assert starts.start(tune=False).topology == Topology(2, 1, 8)
    assert starts.swept == []


def test_the_engine_starts_from_what_was_found_and_says_so() -> None:
    settings = toy_settings(lanes=0)
    found = swept(2, 1, at_1=300, at_2=360, at_4=361)
    topology = replace(plan_topology(settings, "cpu", 2, found=found, origin="measured"), max_batch_size=4)
    runtime = Runtime(settings, LoadedArtifact(METADATA, FakeSession(), "cpu", topology))
    request(runtime, "GET", "/readyz")
    assert runtime.models.default.cost.cap == 2
    assert runtime.models.default.cost.duration_s(2) == pytest.approx(found.durations_s[2])
    [sample] = runtime.metrics.model.collect()[0].samples
    assert (sample.labels["lanes"], sample.labels["intra_op_threads"], sample.labels["max_batch_size"]) == ("2", "1", "2")
    assert "2 lanes x 1 threads, batches of up to 2 (measured; a restart measures again)" in runtime.describe()


def test_a_sweep_that_ended_before_the_largest_bucket_still_starts() -> None:
    settings = toy_settings(lanes=1, max_batch_size=8)
    topology = replace(plan_topology(settings, "cuda", 1, found=swept(1, 1, at_1=100, at_2=190)), buckets=(1, 2, 4, 8))
    runtime = Runtime(settings, LoadedArtifact(METADATA, FakeSession(), "cuda", topology))
    assert request(runtime, "GET", "/readyz").status_code == 200
    assert runtime.models.default.cost.cap == 8


def test_the_engine_runs_a_crop_that_is_alone_in_its_session_and_says_so() -> None:
    topology = replace(plan_topology(toy_settings(lanes=2), "cpu", 2), alone_threads=2, max_batch_size=4)
    usual, wide = FakeSession(), FakeSession()
    runtime = Runtime(toy_settings(lanes=2), LoadedArtifact(METADATA, usual, "cpu", topology, wide))
    answer = request(runtime, "POST", "/v1/recognize", content=png_of("lone"), headers={"content-type": "image/png"})
    assert answer.json()["text"] == "lone"
    assert wide.batches == [1, 1, 1, 1]  # warmed up at the one size it will see, and asked for the known answer
    assert usual.batches == [1, 1, 2, 4, 1, 1]
    [sample] = runtime.metrics.model.collect()[0].samples
    assert sample.labels["alone_threads"] == "2"
    assert b'parseq_batch_size_crops_count{model="toy"} 1.0' in runtime.metrics.render()
    assert "2 lanes x 1 threads (2 for a crop that is alone), " in runtime.describe()
