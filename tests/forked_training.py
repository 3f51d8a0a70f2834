"""The training command in processes of their own that need not import PyTorch and Lightning again, which takes longer than to
train: each is forked from one that has. `python -m tests.forked_training` is that one.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from model.training import curve
from model.training.train import main
from tests.training_runs import ROOT, environment


class ForkedTraining:
    """Runs the command as often as it is asked to; ends with `close`."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.forked_training"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` tells of the command, which leads a process group of its own and heeds every signal.

        Args:
            arguments: Of the command.
            folder: Where it runs, and leaves what it writes.
        """
        assert self._parent.stdin
        assert self._parent.stdout
        print(json.dumps([arguments, str(folder)]), file=self._parent.stdin, flush=True)
        group = int(self._parent.stdout.readline())
        try:
            code = int(self._parent.stdout.readline())
        except BaseException:  # the time limit of the test, too
            os.killpg(group, signal.SIGKILL)
            raise
        stdout, stderr = ((folder / name).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(arguments, code, stdout, stderr)

    def close(self) -> None:
        """No more runs."""
        with self._parent:
            self._parent.kill()


def _become_the_command(arguments: list[str], folder: str) -> None:
    """In a process that was just forked."""
    os.setsid()
    os.chdir(folder)
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, "stdout", os.O_WRONLY), (2, "stderr", os.O_WRONLY)):
        os.dup2(os.open(name, flags | os.O_CREAT), number)
    # A shell lets what runs in the background ignore the one, `nohup` the other.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    sys.argv[1:] = arguments


def _serve() -> None:
    curve.draw_curve = lambda output: output / "none.png"  # as in the tests' fixture `no_pictures`
    # Else each one looks through all that is imported, and copies it, before it ends: longer than it trains.
    gc.freeze()
    for line in sys.stdin:
        if child := os.fork():
            print(child, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        else:
            _become_the_command(*json.loads(line))
            # From here on as `python -m model.training.train`, to the end of the interpreter.
            sys.exit(main())


if __name__ == "__main__":
    _serve()
