"""PyTorch to ONNX: the self-contained artifact that `service/` runs."""

import artifact  # noqa: F401 - imported first: it turns off ONNX Runtime's telemetry
