"""The Open Inference Protocol over HTTP (KServe's version 2), with Triton's extension for binary tensors."""
