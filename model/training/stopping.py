"""Stopping a run by a signal: the current step is finished and saved, so that nothing is lost.

If a whole process group is told to end (by Ctrl-C, or by a service manager), the processes that load data get the same signals.
They ignore them until the run lets them go: it may still wait for a batch, and PyTorch takes a loader's end for an error.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lightning
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only

from model.distributed import largest

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STDERR: Final = 2
IMPATIENT_AFTER_S: Final = 1.0
"""A second signal ends the run at once if it comes this much later; sooner, it may be the same key press sent twice."""


class Stopped(BaseException):
    """The run was told to stop. Not an `Exception`, so that no handler of errors catches it."""

    def __init__(self, signum: int) -> None:
        """Stopped by signal `signum`."""
        super().__init__(signum)
        self.signum = signum


class StopRequest:
    """Whether a signal has asked the run to stop. Before it trains, the signal stops it at once."""

    def __init__(self) -> None:
        self.signum = 0
        """The signal; 0: none."""
        self.patient = False
        """Whether the running code checks for requests itself, so that a signal need not interrupt it."""
        self._asked_at_s = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer the signals, other than those that the user has had ignored (`nohup`, background jobs)."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            before = {signum: signal.getsignal(signum) for signum in SIGNALS}
            self.listen()
        try:
            yield
        finally:
            for signum, handler in before.items():
                if handler is not None:
                    signal.signal(signum, handler)

    def listen(self) -> None:
        """Take the signals over, from Lightning too."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in SIGNALS:
            if signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, self._answer)

    def _answer(self, signum: int, _: object) -> None:
        now_s = time.monotonic()
        if not self.patient:
            raise Stopped(signum)
        if not self.signum:
            self.signum, self._asked_at_s = signum, now_s
            if getattr(rank_zero_only, "rank", 0) == 0:
                # Not by `print`, which the signal may have interrupted in the middle of a line.
                os.write(STDERR, b"\nstopping after this step (Ctrl-C, once more, ends at once)\n")
        elif signum == signal.SIGINT and now_s - self._asked_at_s > IMPATIENT_AFTER_S:
            raise Stopped(signum)


class StopWhenAsked(Checkpoint):
    """Saves and ends the run after a step, or ends it between the batches of a validation, which begins with a saved step.

    Lightning calls checkpoints after all other callbacks; among them this should be the last.
    """

    def __init__(self, request: StopRequest, checkpoint: Path) -> None:
        """Save to `checkpoint` when `request` asks to stop."""
        self.request, self.checkpoint = request, checkpoint
        self._step = 0

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """From now on a signal only asks to stop, since there is something to save."""
        self._step = trainer.global_step
        self.request.patient = True
        # Lightning has installed handlers of its own by now, which end the run without saving.
        self.request.listen()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Look for a request after each step; within a step that accumulates batches nothing complete can be saved."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        # The last step is validated, or saved already.
        if trainer.global_step < trainer.max_steps and (signum := self._asked(trainer)):
            trainer.save_checkpoint(self.checkpoint, weights_only=False)
            raise Stopped(signum)

    def on_validation_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Look for a request between the batches of a validation, which may take long."""
        if self.request.patient and (signum := self._asked(trainer)):
            raise Stopped(signum)

    def _asked(self, trainer: lightning.Trainer) -> int:
        """The signal that any process got; 0: none. All processes stop at the same step."""
        return largest(self.request.signum, trainer.strategy.root_device)


class LoadingProcesses:
    """How processes that load data treat signals; called in each of them when it starts."""

    def __init__(self) -> None:
        self._may_end = multiprocessing.RawValue(ctypes.c_bool, False)

    def __call__(self, _worker_id: int) -> None:
        """Ignore the signals that are meant for the run. If the run is gone, PyTorch ends its loaders itself."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, *_: object) -> None:
        if self._may_end.value:
            os._exit(0)

    def let_go(self) -> None:
        """The run needs the loaders no more: from now on SIGTERM, with which PyTorch ends late ones, works."""
        self._may_end.value = True
