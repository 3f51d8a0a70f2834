from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial

import pytest

from service.engine.decode_backlog import DecodeRequest
from service.images.pool import DecodePool
from tests.fakes import PATIENCE_S


def request_of(*jobs: Callable[[], object], bulk: bool = False, client: str = "") -> DecodeRequest:
    """A request with images that are all light."""

    def light(job: Callable[[], object]) -> Callable[[bool], bool]:
        return lambda _light: job() is not False or True

    return DecodeRequest(client, bulk, 1e12, deque(light(job) for job in jobs))


def test_jobs_run_in_order_of_arrival() -> None:
    pool, ran, last = DecodePool(1), list[int](), threading.Event()
    for number in range(5):
        pool.submit(request_of(partial(ran.append, number), bulk=True))
    pool.submit(request_of(last.set, bulk=True))
    pool.start()
    assert last.wait(PATIENCE_S)
    assert ran == [0, 1, 2, 3, 4]
    pool.stop(wait=True)


def test_all_threads_work_at_once_and_one_of_them_on_single_crops_only() -> None:
    pool, meeting, gate = DecodePool(2), threading.Barrier(3), threading.Event()
    names: list[str] = []
    pool.start()

    def occupy() -> None:
        meeting.wait(PATIENCE_S)
        assert gate.wait(PATIENCE_S)

    pool.submit(bulk := request_of(*[occupy] * 3, bulk=True))
    meeting.wait(PATIENCE_S)
    single = threading.Event()
    pool.submit(request_of(lambda: names.append(threading.current_thread().name), single.set))
    assert single.wait(PATIENCE_S)
    assert names == ["decode-image-express"]
    assert (pool.waiting(True), pool.waiting(False)) == (1, 0)
    pool.drop(request_of(single.set))  # was never here
    pool.drop(bulk)
    gate.set()
    pool.stop(wait=True)


def test_a_job_that_raises_costs_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    pool, done = DecodePool(1), threading.Event()
    pool.start()
    pool.submit(request_of(lambda: 1 / 0, lambda: 1 / 0, done.set, bulk=True))
    assert done.wait(PATIENCE_S)
    pool.stop(wait=True)
    assert caplog.text.count("a decode job failed") == 2


def test_stopping_waits_for_the_job_at_work_and_drops_the_others() -> None:
    pool, entered, gate = DecodePool(1), threading.Event(), threading.Event()
    ran: list[str] = []

    def first() -> None:
        entered.set()
        assert gate.wait(PATIENCE_S)
        ran.append("first")

    pool.start()
    pool.submit(request_of(first, lambda: ran.append("second"), bulk=True))
    assert entered.wait(PATIENCE_S)
    pool.stop(wait=False)
    pool.submit(request_of(lambda: ran.append("third")))
    assert ran == []
    gate.set()
    pool.stop(wait=True)
    assert ran == ["first"]


def test_a_dropped_request_is_not_decoded() -> None:
    pool, entered, gate, ran = DecodePool(1), threading.Event(), threading.Event(), list[str]()
    pool.start()

    def first() -> None:
        entered.set()
        assert gate.wait(PATIENCE_S)

    request = request_of(first, lambda: ran.append("second"), bulk=True)
    pool.submit(request)
    assert entered.wait(PATIENCE_S)
    pool.drop(request)
    assert (pool.waiting(True), len(request.jobs)) == (0, 0)
    gate.set()
    pool.stop(wait=True)
    assert ran == []


def test_a_large_single_image_goes_to_the_other_threads_and_is_turned_away_when_too_many_wait() -> None:
    pool, told, waits_s = DecodePool(1, cpu_clock=lambda: 0.0), list[tuple[bool, str]](), list[float]()
    ended = threading.Semaphore(0)

    def job(light: bool) -> bool:
        told.append((light, threading.current_thread().name))
        if not light:
            ended.release()
        return not light

    def refused(wait_s: float) -> None:
        waits_s.append(wait_s)
        ended.release()

    pool.start()
    pool.submit(DecodeRequest("", False, 1e12, deque([job])))
    assert ended.acquire(timeout=PATIENCE_S)
    assert told[-1] == (False, "decode-image-0")
    assert told[0][0]
    pool.submit(DecodeRequest("", False, 1e12, deque([job]), budget_s=-1.0, on_refused=refused))
    assert ended.acquire(timeout=PATIENCE_S)
    assert waits_s == [0.0]
    pool.stop(wait=True)


@pytest.mark.skipif(sys.platform != "linux", reason="no priorities of threads")
def test_threads_that_decode_slow_images_give_way_and_the_one_for_single_crops_does_not() -> None:
    pool, seen, both = DecodePool(1, niceness=3), dict[str, int](), threading.Barrier(3)

    def look() -> None:
        thread = threading.current_thread().name
        seen[thread] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        both.wait(PATIENCE_S)

    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    pool.start()
    pool.submit(request_of(look, bulk=True))
    pool.submit(request_of(look))
    both.wait(PATIENCE_S)
    pool.stop(wait=True)
    assert seen == {"decode-image-0": mine + 3, "decode-image-express": mine}


def test_a_pool_that_never_started_stops() -> None:
    DecodePool(2).stop(wait=True)


def test_a_finished_job_is_forgotten() -> None:
    class Image:
        def read(self) -> None:
            pass

    pool, done = DecodePool(1), threading.Event()
    pool.start()
    image = Image()
    alive = weakref.ref(image)
    pool.submit(request_of(image.read, bulk=True))
    del image
    pool.submit(request_of(done.set, bulk=True))
    assert done.wait(PATIENCE_S)
    gc.collect()
    assert alive() is None
    pool.stop(wait=True)
