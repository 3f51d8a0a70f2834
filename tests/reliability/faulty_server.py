"""The service with a session that misbehaves on request: `python -m tests.reliability.faulty_server`, same options.

The service itself has no hook for this: the session is wrapped before the service sees it. It behaves until the process
gets SIGUSR1, so that the warm-up passes; from then on the faults of the variable `FAULTS` (the fields of `Faults` as
JSON) come at random.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import service.__main__
from service.config import Settings
from service.engine.types import Outputs, Wanted
from service.sessions.artifact import LoadedArtifact, load_artifact
from service.sessions.topology import Topology
from tests.toy_artifact import POISON

MODULE = "tests.reliability.faulty_server"
VARIABLE = "FAULTS"
ARM = signal.SIGUSR1


@dataclass(frozen=True, slots=True)
class Faults:
    """How often a run goes wrong; shares of all runs."""

    error_share: float = 0.0
    """Of the runs of several crops; one by one, as the service then tries them, they are read."""
    slow_share: float = 0.0
    slow_s: float = 0.0
    device_s: float = 0.0
    """Every run lasts so much longer without computing, as if a GPU ran it."""
    gate: str = ""
    """Runs last until there is such a file."""

    def environment(self) -> dict[str, str]:
        """What tells the server process."""
        return {VARIABLE: json.dumps(asdict(self))}


class FaultySession:
    """Fails on poisoned crops always, and otherwise as `faults` says once `armed` is set."""

    def __init__(self, session: Any, faults: Faults, armed: threading.Event) -> None:
        self._session = session
        self._faults = faults
        self._armed = armed
        self._random = random.Random(0)

    def run(self, crops: NDArray[np.uint8]) -> tuple[Any, Any]:
        if (crops[:, 0, -1, 2] == POISON).any():
            raise RuntimeError("a poisoned crop")
        if self._armed.is_set():
            self._misbehave(len(crops))
        return self._session.run(crops)  # type: ignore[no-any-return]

    def run_with(self, crops: NDArray[np.uint8], wanted: Wanted) -> Outputs:
        self.run(crops)
        return self._session.run_with(crops, wanted)  # type: ignore[no-any-return]

    def _misbehave(self, n_crops: int) -> None:
        while self._faults.gate and not Path(self._faults.gate).exists():
            time.sleep(0.01)
        time.sleep(self._faults.device_s)
        if self._random.random() < self._faults.slow_share:
            time.sleep(self._faults.slow_s)
        if n_crops > 1 and self._random.random() < self._faults.error_share:
            raise RuntimeError("an error made on purpose")


def main() -> None:
    faults = Faults(**json.loads(os.environ[VARIABLE]))
    armed = threading.Event()
    signal.signal(ARM, lambda _signal, _frame: armed.set())

    def load(settings: Settings, like: Topology | None = None, budget: int | None = None) -> LoadedArtifact:
        loaded = load_artifact(settings, like, budget)
        alone = FaultySession(loaded.alone, faults, armed) if loaded.alone else None
        return replace(loaded, session=FaultySession(loaded.session, faults, armed), alone=alone)

    vars(service.__main__)["load_artifact"] = load
    service.__main__.run()


if __name__ == "__main__":
    main()
