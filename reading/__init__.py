"""Reading word crops offline, with a checkpoint, an exported artifact or a running service: read, evaluate, benchmark."""

import artifact  # noqa: F401 - imported first: it turns off ONNX Runtime's telemetry
