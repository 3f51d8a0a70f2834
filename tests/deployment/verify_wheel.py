"""Install the wheel into an empty environment, serve from it, and read a crop with curl and with the client.

    python -m tests.deployment.verify_wheel [WHEEL] (make verify-wheel)

Needs the package index, 250 MB of disk and a minute or two. Without an argument the wheel is built first.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.wheels import ROOT, build

PATIENCE_S = 120
CROP = ROOT / "docs" / "samples" / "harbour.png"
READ = "import sys; from parseq_client import Client; print(Client(sys.argv[1]).read(sys.argv[2]).text)"
TEXTS = "import pyarrow.parquet as p; print(p.read_table('read')['text'])"
COLLIDING = (
    "import importlib.util as u, sys; sys.exit(any(u.find_spec(n) for n in 'artifact export model reading service'.split()))"
)


def main() -> int:
    """Verify; the exit code is 0 when all is well."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else build("wheel", folder)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PARSEQ_", "PYTHON"))}

        def run(*command: str) -> str:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)[:200]}\nfailed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
            return done.stdout.strip()

        run(sys.executable, "-m", "venv", "empty")
        programs = folder / "empty" / "bin"
        python = str(programs / "python")
        pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install")
        run(*pip, "-c", str(ROOT / "constraints.txt"), f"{wheel}[cpu]")
        print(f"  ok  {wheel.name}[cpu] installs into an empty environment")
        run(python, "-c", COLLIDING)
        print("  ok  no top-level name but parseq_service and parseq_client")
        told = subprocess.run([programs / "parseq-train"], cwd=folder, env=environment, capture_output=True, text=True).stderr
        assert "is not installed" in told, told
        print("  ok  parseq-train says in one line what it needs")
        assert "HARBOUR" in run(str(programs / "parseq-read"), "--artifact", "bundled", str(CROP))
        run(str(programs / "parseq-bulk"), str(CROP.parent), "--output", "read")
        assert "HARBOUR" in run(python, "-c", TEXTS)
        print("  ok  parseq-read and parseq-bulk read with the bundled artifact")
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen([programs / "parseq-serve", "--port", "0"], cwd=folder, env=environment, stderr=log)
        try:
            url = _address(server, folder / "log")
            if shutil.which("curl"):
                answer = json.loads(run("curl", "--silent", "--fail", "-F", f"file=@{CROP}", f"{url}/v1/recognize"))
                assert answer["text"] == "HARBOUR", answer
                print("  ok  parseq-serve reads a crop that curl posts")
            assert run(python, "-c", READ, url, str(CROP)) == "HARBOUR"
            print("  ok  parseq_client reads it too")
            assert "<html" in run(python, "-c", f"import httpx; print(httpx.get({url!r}).text)")
            print("  ok  the page is there")
        finally:
            server.terminate()
        assert server.wait(PATIENCE_S) == 0
        print("  ok  it ends with 0")
    return 0


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s and server.poll() is None:
        found = re.search(r"listening on (\S+)", log.read_text())
        if found and "ready after" in log.read_text():
            return found[1]
        time.sleep(0.05)
    raise SystemExit(log.read_text())


if __name__ == "__main__":
    sys.exit(main())
