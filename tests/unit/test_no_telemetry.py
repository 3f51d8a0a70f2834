"""ONNX Runtime's reports to its maker are off, for the service and for the exporter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPEN = """
import {module}
import onnxruntime
onnxruntime.InferenceSession({artifact!r}, providers=["CPUExecutionProvider"])
"""


@pytest.mark.parametrize("module", ["service", "export.inspect"])
def test_a_session_leaves_no_identifier_behind(module: str, tmp_path: Path) -> None:
    # ONNX Runtime is silent by itself where it takes a process for a test run.
    hidden = ("CI", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    code = OPEN.format(module=module, artifact=str(ROOT / "service" / "bundled" / "parseq-nano.onnx"))
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=100)
    assert list(tmp_path.iterdir()) == []
