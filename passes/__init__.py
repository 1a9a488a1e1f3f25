"""How a graph changes: one file a pass, onnx-ir in and out."""
