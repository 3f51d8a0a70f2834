"""For all tests."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.forked_training import ForkedTraining


def pytest_collection() -> None:
    """What is imported stays: to look through it for garbage takes a part of the time that imports take."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Small networks on two threads spend most of their time waiting for one another, above all on a busy machine.

    Whoever has no tests of networks, such as the process that gives tests to others, need not wait for PyTorch.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` looks nowhere else for tests that must run alone: to collect them all takes longer than some of them."""
    for item in items:
        if item.get_closest_marker("serial") and item.path.parent.name != "reliability":
            raise pytest.UsageError(f"{item.nodeid} is `serial` and not in tests/reliability")


@pytest.fixture
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training without its learning curve, which takes longer to draw than tiny networks to train; `draws` marks exceptions."""
    if request.node.get_closest_marker("draws") is None:
        monkeypatch.setattr("model.training.curve.draw_curve", lambda output: Path(output) / "none.png")


@pytest.fixture(scope="session")
def forked_training() -> Iterator[ForkedTraining]:
    """The training command in processes of their own, without their imports."""
    from tests.forked_training import ForkedTraining

    forks = ForkedTraining()
    yield forks
    forks.close()
