"""The artifact contract: what exporter, service and readers agree on. Needs NumPy, Pillow and ONNX Runtime only."""

import os

# From 1.29 on, ONNX Runtime's packages report usage to their maker unless this is set before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
