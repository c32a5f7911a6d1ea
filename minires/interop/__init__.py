"""Weights and networks from and for other frameworks: safetensors, PyTorch, ONNX."""

from .saving import save_safetensors, save_torch

__all__ = ["save_safetensors", "save_torch"]
