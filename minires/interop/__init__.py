"""Weights and networks from and for other frameworks: safetensors, PyTorch, ONNX."""

from .files import read_weights
from .load import create_model, inferred_options, load_weights
from .onnx_export.export import OPSET, OnnxFile, export_onnx
from .report import LoadReport
from .saving import save_safetensors, save_torch

__all__ = [
    "OPSET",
    "LoadReport",
    "OnnxFile",
    "create_model",
    "export_onnx",
    "inferred_options",
    "load_weights",
    "read_weights",
    "save_safetensors",
    "save_torch",
]
