"""A real Prometheus for tests."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deployment import tools

PATIENCE_S = 120


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of one that runs the `prometheus.yml` of `folder`, and keeps its data and log there too."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = (
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    )
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*tools.command("prometheus"), *options], stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait(PATIENCE_S)
