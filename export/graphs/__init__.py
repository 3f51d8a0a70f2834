"""Networks as ONNX graphs, written node by node: `builder`, `int8` and `parts`, and a module or package per recogniser."""
