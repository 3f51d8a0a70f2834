"""ONNX Runtime sessions: providers, devices, threads, and how many of them suit a machine."""
