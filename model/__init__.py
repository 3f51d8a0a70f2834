"""PARSeq in pure PyTorch: networks, data, training, evaluation and reading, as offline jobs.

Knows nothing of ONNX or HTTP. `model.load` is the way to a network with weights.
"""
