"""The artifact contract: what exporter, service and readers agree on. Needs NumPy, Pillow and ONNX Runtime only."""

import os

# ONNX Runtime's packages report to their maker from 1.29 on, unless told otherwise before they are loaded. We do not call home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
