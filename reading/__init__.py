"""Reading word crops offline, with a checkpoint, an exported artifact or a running service: read, evaluate, benchmark."""

import artifact  # noqa: F401 - first of all: it tells ONNX Runtime not to call home
