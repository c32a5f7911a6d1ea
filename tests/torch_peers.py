"""PyTorch, torchvision and timm, where they are installed. Tests that ask for one that is not are skipped."""

from functools import cache
from types import ModuleType
from typing import Any

import pytest

BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[Any] = []  # what is defined in a torch Library is there for as long as the Library


def torch() -> ModuleType:
    """The module ``torch``."""
    return pytest.importorskip("torch")


@cache
def torchvision() -> ModuleType:
    """The module ``torchvision``.

    A wheel that was built for CUDA cannot load its compiled operators beside a PyTorch for CPUs, and then fails on import for
    want of their names. Networks, weights and transforms need none of them: the names are enough.
    """
    library = torch().library.Library("torchvision", "FRAGMENT")
    try:
        return pytest.importorskip("torchvision")
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
    for operator in ("nms", "qnms"):
        library.define(f"{operator}{BOXES}")
    _kept.append(library)
    return pytest.importorskip("torchvision")


@cache
def timm() -> ModuleType:
    """The module ``timm``, which imports torchvision."""
    torchvision()
    return pytest.importorskip("timm")
