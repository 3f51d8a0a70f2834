from __future__ import annotations

import ctypes
import gc
import sys
from types import SimpleNamespace

import pytest

from service.process.heap import KEPT_BYTES, LARGE_BYTES, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, return_large_blocks
from service.serving import prepare_process


def test_large_blocks_go_back_and_the_end_of_the_heap_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, int] = {}

    def mallopt(parameter: int, value: int) -> int:
        asked[parameter] = value
        return 1

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace(mallopt=mallopt))
    assert return_large_blocks()
    # Without the second, every run of a model gives its memory back and fetches it again.
    assert asked == {M_MMAP_THRESHOLD: LARGE_BYTES, M_TRIM_THRESHOLD: KEPT_BYTES}


def test_another_c_library_needs_no_telling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace())
    assert not return_large_blocks()


def test_what_is_there_when_a_process_is_prepared_is_not_looked_through_again() -> None:
    interval_s = sys.getswitchinterval()
    imported: list[list[int]] = [[] for _ in range(1000)]
    frozen = gc.get_freeze_count()
    try:
        prepare_process()
        assert gc.get_freeze_count() >= frozen + len(imported)
    finally:
        sys.setswitchinterval(interval_s)
