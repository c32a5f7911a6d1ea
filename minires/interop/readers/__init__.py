"""The files that hold weights: safetensors, both formats of PyTorch, ONNX. What they say is hostile until it is checked."""
