from __future__ import annotations

import math

import pytest

from service.process import open_files
from service.process.open_files import (
    FILES_BESIDE_CONNECTIONS,
    FILES_OF_THE_PROCESS,
    allow_connections,
    connections_within,
    max_open_files,
    surplus_within,
)

resource = pytest.importorskip("resource", reason="Windows has no such limit")
ENOUGH = 1000 + FILES_BESIDE_CONNECTIONS


@pytest.mark.parametrize(
    ("limits", "raised", "warns"),
    [
        ((1024, 4096), (ENOUGH, 4096), False),
        ((1024, 1050), (1050, 1050), True),
        ((1024, resource.RLIM_INFINITY), (ENOUGH, resource.RLIM_INFINITY), False),
        ((ENOUGH, ENOUGH), None, False),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None, False),
    ],
)
def test_the_limit_is_raised_as_far_as_needed_and_allowed(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: tuple[int, int] | None, warns: bool
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: asked.append(new))
    warning = allow_connections(1000)
    assert asked == ([raised] if raised else [])
    assert (warning is not None) == warns
    if warning:
        assert "1050" in warning
        assert "PARSEQ_MAX_CONNECTIONS" in warning


def test_where_there_is_no_such_limit_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files.sys, "platform", "win32")
    monkeypatch.setattr(resource, "getrlimit", None)
    assert allow_connections(1000) is None
    assert max_open_files() == math.inf


@pytest.mark.parametrize(
    ("max_files", "wanted", "connections"),
    [(math.inf, 1000, 1000), (4096, 1000, 1000), (1024, 1000, 896), (128, 1000, 64), (64, 1000, 16), (64, 5, 5), (10, 5, 4)],
)
def test_there_are_as_many_connections_as_fit(max_files: float, wanted: int, connections: int) -> None:
    assert connections_within(max_files, wanted) == connections


@pytest.mark.parametrize("max_files", [64, 100, 256, 1024, 2048, math.inf])
def test_something_is_left_for_probes_and_for_files(max_files: float) -> None:
    connections = connections_within(max_files, 1000)
    surplus = surplus_within(max_files, connections)
    assert surplus >= 4
    assert connections + surplus + FILES_OF_THE_PROCESS <= max_files
