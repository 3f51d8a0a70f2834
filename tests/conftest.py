"""For all tests."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from export.gate.crops import GateCrop
    from tests.forked_training import ForkedTraining


# jsonschema imports it where it is there, and it makes a grammar of links that are not ASCII: ten times the time of the rest.
# No test checks the form of such a link.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # which is how imports of it fail


def pytest_collection() -> None:
    """What is imported stays: to look through it for garbage takes a part of the time that imports take."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Small networks on two threads spend most of their time waiting for one another, above all on a busy machine.

    Whoever has no tests of networks, such as the process that gives tests to others, need not wait for PyTorch.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    if crops := sys.modules.get("export.gate.crops"):
        for name in ("parity_crops", "word_crops"):
            _keep_what_is_drawn(getattr(crops, name))
    # Each client would read which authorities are trusted, which takes ten times as long as what most of them ask for. It is
    # enough that one does, since no test trusts any of them.
    if transports := sys.modules.get("httpx._transports.default"):
        transports.create_ssl_context = functools.cache(transports.create_ssl_context)
    gc.freeze()
    gc.enable()


def _keep_what_is_drawn(draw: Callable[..., list[GateCrop]]) -> None:
    """Exports draw the same crops again and again, which takes longer than small networks take to read them."""
    kept = functools.lru_cache(maxsize=32)(lambda *asked, **named: tuple(draw(*asked, **named)))
    # Tests of what is drawn have the function itself.
    for name, module in sys.modules.items():
        if name.startswith("export.") and getattr(module, draw.__name__, None) is draw:
            setattr(module, draw.__name__, lambda *asked, **named: list(kept(*asked, **named)))


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


@pytest.fixture
def small_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export reads an eighth of its crops: for large networks, which read slowly. What a gate finds, small ones show."""
    from export.gate import gate, known_answer

    drawn = gate.parity_crops
    monkeypatch.setattr(gate, "parity_crops", lambda *limits: drawn(*limits)[::8])
    monkeypatch.setattr(known_answer, "CANDIDATES", known_answer.CANDIDATES // 8)


@pytest.fixture
def few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parity gate forms batches of one size besides single crops, where other tests read at all sizes."""
    from export.gate import gate

    monkeypatch.setattr(gate, "check_parity", functools.partial(gate.check_parity, batch_sizes=(1, 8)))


@pytest.fixture(scope="session")
def forked_training() -> Iterator[ForkedTraining]:
    """The training command in processes of their own, without their imports."""
    from tests.forked_training import ForkedTraining

    forks = ForkedTraining()
    yield forks
    forks.close()


@pytest.fixture(params=[1, 2], ids=["one process", "two fronts"])
def both_forms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Servers that the test starts as processes have this many that serve HTTP; each test that uses it runs in both forms."""
    n_workers: int = request.param
    if n_workers > 1 and sys.platform != "linux":
        pytest.skip("front processes need Linux")
    monkeypatch.setattr("tests.integration.server.form.http_workers", n_workers)
    return n_workers
