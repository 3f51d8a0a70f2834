"""PyTorch to ONNX: the self-contained artifact that `service/` runs."""

import artifact  # noqa: F401 - first of all: it tells ONNX Runtime not to call home
