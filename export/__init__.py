"""PyTorch to ONNX: the self-contained artifact that `service/` runs.

`export.artifact` is free of torch and onnx, so that the service can import it; everything else here is offline.
"""

import os

# ONNX Runtime's packages report to their maker from 1.29 on, unless told otherwise before they are loaded. We do not call home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
