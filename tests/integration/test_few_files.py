"""A process that may open few files, and many clients."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.integration.server import PATIENCE_S, ROOT, command, environment
from tests.toy_artifact import png_of, write_artifact

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="which has no such limit")
MAX_FILES = 64


def test_probes_get_in_and_requests_as_well(tmp_path: Path) -> None:
    artifact, log = write_artifact(tmp_path / "toy.onnx"), tmp_path / "log"
    arguments = ["sh", "-c", f'ulimit -n {MAX_FILES} && exec "$@"', "sh", *command("--port", "0", "--artifact", str(artifact))]
    with log.open("wb") as stderr, ExitStack() as stack:
        process = subprocess.Popen(arguments, cwd=ROOT, env=environment(), stderr=stderr)
        stack.callback(process.wait, PATIENCE_S)
        stack.callback(process.kill)
        end_s = time.monotonic() + PATIENCE_S
        while "ready after" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end_s
            time.sleep(0.05)
        assert "PARSEQ_MAX_CONNECTIONS" in log.read_text()
        found = re.search(r"listening on http://(\S+):(\d+)", log.read_text())
        assert found is not None
        address = found[1], int(found[2])
        for sent in (b"", b"POST /v1/reco", b"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"):
            for _ in range(2 * MAX_FILES):
                stack.enter_context(socket.create_connection(address, PATIENCE_S)).sendall(sent)
            for path in ("/livez", "/readyz", "/metrics"):
                assert httpx.get(f"http://{address[0]}:{address[1]}{path}", timeout=PATIENCE_S).status_code == 200
        process.send_signal(1)  # SIGHUP: a reload needs files too
        while "reloaded" not in log.read_text():
            assert "not reloaded" not in log.read_text(), log.read_text()
            assert time.monotonic() < end_s
            time.sleep(0.05)
        answer = httpx.post(
            f"http://{address[0]}:{address[1]}/v1/recognize",
            content=png_of("still"),
            headers={"content-type": "image/png"},
            timeout=PATIENCE_S,
        )
        assert answer.status_code in (200, 429)
