"""Residual networks, by name (``create("resnet20")``) or as functions (``resnet20(num_classes=100, option="B")``)."""

from collections.abc import Callable

from ..nn import Module
from .blocks import BasicBlock, Bottleneck, BottleneckV1, PreActBasicBlock, PreActBottleneck, PreActBottleneckV1
from .network import Feature, Network, classifier
from .registry import MODELS, create, image_size, names
from .resnet_cifar import CifarPreResNet, CifarResNet
from .resnet_imagenet import ResNet, ResNetV2
from .shortcuts import replace_shortcuts
from .whitened import WhitenedResNet
from .wide_resnet import WideResNet

from .densenet import CifarDenseNet  # isort: skip (names() has the residual networks first)
from .crossing_net import CrossingNet  # isort: skip (names() has it last)

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "BottleneckV1",
    "CifarDenseNet",
    "CifarPreResNet",
    "CifarResNet",
    "CrossingNet",
    "Feature",
    "Network",
    "PreActBasicBlock",
    "PreActBottleneck",
    "PreActBottleneckV1",
    "ResNet",
    "ResNetV2",
    "WhitenedResNet",
    "WideResNet",
    "classifier",
    "create",
    "image_size",
    "names",
    "replace_shortcuts",
    *MODELS,
]


def __getattr__(name: str) -> Callable[..., Module]:
    """``models.resnet20`` is the constructor registered as "resnet20"."""
    if name not in MODELS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return MODELS[name]


def __dir__() -> list[str]:
    return sorted(__all__)
