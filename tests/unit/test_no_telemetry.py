"""ONNX Runtime's reports to its maker are off, for service and exporter; and nothing is traced unless it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.config import BUNDLED_ARTIFACT

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
    code = OPEN.format(module=module, artifact=str(BUNDLED_ARTIFACT))
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=100)
    assert list(tmp_path.iterdir()) == []


NOT_ASKED = """
import sys, threading
import service.__main__
from service.tracing.tracing import open_tracing
for variables in (
    {},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    {"OTEL_SERVICE_NAME": "mine", "OTEL_TRACES_SAMPLER": "always_on"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_SDK_DISABLED": "True"},
    {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces", "OTEL_TRACES_EXPORTER": "none"},
):
    assert open_tracing(variables, "1") is None
for library in ("opentelemetry.sdk", "opentelemetry.exporter", "requests", "urllib3"):
    assert library not in sys.modules
assert threading.active_count() == 1
"""


def test_tracing_is_off_and_not_even_imported_unless_it_is_asked_for() -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment = {**inherited, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", NOT_ASKED], env=environment, timeout=100, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
