"""Networks as ONNX graphs, written node by node: `builder`, `int8`, `parts` for all, and a module or package a recogniser."""
