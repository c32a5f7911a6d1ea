"""Weights for PyTorch: safetensors and ``.pth`` files that its ``load_state_dict(strict=True)`` takes."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from ..files import atomic_write
from ..models import ResNetV2
from ..nn import Module
from .torch_writer import write_torch


def torch_state(model: Module) -> dict[str, NDArray]:
    """The ``state_dict()`` as PyTorch's model of these names has it: in timm a ResNetV2's classifier is a 1×1 convolution."""
    state = dict(model.state_dict())
    if isinstance(model, ResNetV2) and "head.fc.weight" in state:
        state["head.fc.weight"] = state["head.fc.weight"][:, :, None, None]
    return state


def save_safetensors(model: Module, path: Path | str) -> None:
    """Write parameters and buffers as a safetensors file, which ``safetensors.torch.load_file`` reads. Atomic.

    Raises OSError when the file cannot be written.
    """
    # safetensors copies memory as it is, which is right for C order only. asarray keeps 0-d arrays 0-d.
    state = {name: np.asarray(array, order="C") for name, array in torch_state(model).items()}
    data = save(state, metadata={"format": "pt"})  # as PyTorch's own writer says whose layout the tensors have
    with atomic_write(path) as file:
        file.write(data)


def save_torch(model: Module, path: Path | str) -> None:
    """Write parameters and buffers as a ``.pth`` file, which ``torch.load(weights_only=True)`` reads, mmap=True too. Atomic.

    Raises OSError when the file cannot be written, and DtypeError for a buffer of a dtype that PyTorch has not.
    """
    state = torch_state(model)
    with atomic_write(path) as file:
        write_torch(file, state)
