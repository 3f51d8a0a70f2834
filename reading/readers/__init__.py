"""What reads crops: a network in PyTorch, an artifact in ONNX Runtime, a service over HTTP."""
