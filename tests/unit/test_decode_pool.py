from __future__ import annotations

import gc
import threading
import weakref

import pytest

from service.decode_pool import DecodePool
from tests.fakes import PATIENCE_S


def test_jobs_run_in_order_of_arrival() -> None:
    pool, ran, last = DecodePool(1), [], threading.Event()
    for number in range(5):
        pool.submit(lambda number=number: ran.append(number))
    pool.submit(last.set)
    pool.start()
    assert last.wait(PATIENCE_S)
    assert ran == [0, 1, 2, 3, 4]
    pool.stop(wait=True)


def test_all_threads_work_at_once() -> None:
    pool, meeting = DecodePool(3), threading.Barrier(4)
    pool.start()
    for _ in range(3):
        pool.submit(lambda: meeting.wait(PATIENCE_S))
    meeting.wait(PATIENCE_S)
    pool.stop(wait=True)


def test_a_job_that_raises_costs_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    pool, done = DecodePool(1), threading.Event()
    pool.start()
    pool.submit(lambda: 1 / 0)
    pool.submit(done.set)
    assert done.wait(PATIENCE_S)
    pool.stop(wait=True)
    assert "a decode job failed" in caplog.text


def test_stopping_waits_for_the_job_at_work_and_drops_the_others() -> None:
    pool, entered, gate = DecodePool(1), threading.Event(), threading.Event()
    ran: list[str] = []

    def first() -> None:
        entered.set()
        assert gate.wait(PATIENCE_S)
        ran.append("first")

    pool.start()
    pool.submit(first)
    pool.submit(lambda: ran.append("second"))
    assert entered.wait(PATIENCE_S)
    pool.stop(wait=False)
    assert ran == []
    gate.set()
    pool.stop(wait=True)
    assert ran == ["first"]


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
    pool.submit(image.read)
    del image
    pool.submit(done.set)
    assert done.wait(PATIENCE_S)
    gc.collect()
    assert alive() is None
    pool.stop(wait=True)
