"""One checked folder per model: ONNX graphs a task, and a runtime that needs no torch."""
