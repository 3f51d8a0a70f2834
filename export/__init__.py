"""PyTorch to ONNX: the self-contained artifact that `service/` runs.

`export.artifact` is free of torch and onnx, so that the service can import it; everything else here is offline.
"""
