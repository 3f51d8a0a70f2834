"""Stopping a run by a signal: the step in hand is finished and saved, so that nothing is lost.

The processes that load data get the same signals where a whole process group is told to end (by Ctrl-C, or by a service
manager). They go on until the run lets them go: it may still wait for a batch, and PyTorch takes a loader's death for an error.
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
"""A second Ctrl-C ends the run at once, but not one that the same key press has sent twice."""


class Stopped(BaseException):
    """The run was told to stop; no handler of errors on the way means it."""

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
        """Whether what runs looks here by itself."""
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
                # Not by `print`, which may be in the middle of a line of its own.
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
        """From here on there is something to save."""
        self._step = trainer.global_step
        self.request.patient = True
        # Lightning has installed handlers of its own by now, which end the run without saving.
        self.request.listen()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Look for a request after each step; between the parts of one that accumulates there is nothing whole to save."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        # The last step is validated, or saved already.
        if trainer.global_step < trainer.max_steps and (signum := self._asked(trainer)):
            trainer.save_checkpoint(self.checkpoint, weights_only=False)
            raise Stopped(signum)

    def on_validation_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """A validation may take longer than whoever asks will wait."""
        if self.request.patient and (signum := self._asked(trainer)):
            raise Stopped(signum)

    def _asked(self, trainer: lightning.Trainer) -> int:
        """The signal that any of the processes got; all of them stop at the same step."""
        return largest(self.request.signum, trainer.strategy.root_device)


class LoadingProcesses:
    """What processes that load data do with signals; called in each of them when it starts."""

    def __init__(self) -> None:
        self._may_end = multiprocessing.RawValue(ctypes.c_bool, False)

    def __call__(self, _worker_id: int) -> None:
        """Ignore the signals that are meant for the run. If that is gone, PyTorch ends its loaders itself."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, *_: object) -> None:
        if self._may_end.value:
            os._exit(0)

    def let_go(self) -> None:
        """The run needs them no more: from now on SIGTERM, by which PyTorch ends those that are late, ends them."""
        self._may_end.value = True
