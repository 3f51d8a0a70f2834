"""The training command in processes of their own that need not import PyTorch and Lightning again, which takes longer than to
train: each is forked from one that has. `python -m tests.forked_training` is that one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
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

    def run(self, arguments: Sequence[str], folder: Path, processes: int = 1) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` tells of the command, which leads a process group of its own and heeds every signal.

        Args:
            arguments: Of the command.
            folder: Where it runs, and leaves what it writes.
            processes: How many run it together, as `torchrun` would start them; what is told is of the first, and the first
                exit status that is not 0.
        """
        assert self._parent.stdin
        assert self._parent.stdout
        print(json.dumps([arguments, str(folder), processes]), file=self._parent.stdin, flush=True)
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


def _become_the_command(arguments: list[str], folder: str, group: int, rank: int, variables: dict[str, str]) -> None:
    """In a process that was just forked; a group of 0 is one of its own."""
    os.setpgid(0, group)
    os.chdir(folder)
    os.environ.update(variables)
    which = f"-{rank}" if rank else ""
    streams = ((0, os.devnull, os.O_RDONLY), (1, f"stdout{which}", os.O_WRONLY), (2, f"stderr{which}", os.O_WRONLY))
    for number, name, flags in streams:
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
        arguments, folder, processes = json.loads(line)
        shared = _meeting_point(processes) if processes > 1 else {}
        children: list[int] = []
        for rank in range(processes):
            variables = shared | {"LOCAL_RANK": str(rank)} if shared else {}
            group = children[0] if children else 0
            if not (child := os.fork()):
                _become_the_command(arguments, folder, group, rank, variables)
                # From here on as `python -m model.training.train`, to the end of the interpreter.
                sys.exit(main())
            # The child does it too: whoever comes first.
            with contextlib.suppress(OSError):
                os.setpgid(child, group)
            children.append(child)
        print(children[0], flush=True)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(next(filter(None, codes), 0), flush=True)


def _meeting_point(processes: int) -> dict[str, str]:
    """What several processes need to know of each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": str(processes)}


if __name__ == "__main__":
    _serve()
