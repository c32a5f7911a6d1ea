"""A network as an ONNX file: its operations are recorded, converted one by one, and compared with ONNX Runtime."""
