"""`make verify-images`: build both images for real, and run them as far as a machine without a GPU and without Docker can.

It needs root, some minutes, 4 GB of disk and Debian's and Python's package indexes. What it makes is in build/verify-images.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib

from building import make_bases
from cpu_image import verify_cpu_image
from gpu_image import verify_gpu_image
from needs import get_ready
from steps import ROOT, WORK, CheckError, attempt, heading


def main() -> int:
    """Verify; the exit code is 0 when all is as it must be."""
    started_s = time.monotonic()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    try:
        heading("What this needs")
        get_ready()
        _clear()
        (WORK / "tmp").mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = str(WORK / "tmp")  # for the cache of the builds, too
        make_bases()
        verify_cpu_image(f"parseq-service:{version}-cpu")
        verify_gpu_image(f"parseq-service:{version}")
    except (CheckError, OSError, subprocess.SubprocessError) as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    finally:
        _unmount()
    print(f"\nBoth images are as they must be ({time.monotonic() - started_s:.0f} s)")
    return 0


def _clear() -> None:
    """Forget the images of an earlier run, which would only pile up; what was downloaded is kept."""
    _unmount()
    shutil.rmtree(WORK / "storage", ignore_errors=True)
    shutil.rmtree(WORK / "run", ignore_errors=True)


def _unmount() -> None:
    """podman leaves its storage mounted, and `make clean` would stumble over it."""
    attempt(["umount", "--recursive", WORK / "storage" / "overlay"])


if __name__ == "__main__":
    sys.exit(main())
