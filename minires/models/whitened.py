"""A residual network for 32×32 images that is quick to train: its first layer decorrelates small patches of the images.

The design is that of the public speed records on CIFAR-10: "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", Jordan 2024 [1],
after D. Page, "How to Train Your ResNet", 2018–2019 [2]. The residual stages are those of the network of [1] for 96 %.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import functional as F
from .. import nn
from ..errors import ShapeError
from ..kernels.memory_format import hwio
from ..tensor import Tensor
from .blocks import conv3x3
from .registry import register
from .resnet_cifar import checked_width

PATCH = 2  # pixels along a side of the patches
LEAST_VARIANCE = 5e-4  # is added to the patches' variances
SCALE = 1 / 9  # of the classifier's first weights, so that training begins with small logits


class WhitenedResNet(nn.Module):
    """A whitening layer, three stages of three convolutions each, global max pooling, a classifier: 11 layers.

    (N, in_channels, H, W) → logits (N, num_classes); H and W are multiples of 8. width1, width2, width3: channels of the
    stages. The first layer's weights are not trained: ``whiten`` sets them from images. Its bias is if whitening_bias, which
    takes a twentieth of a step. Batch norms have no trained scale.
    """

    recordable = True
    image_size = 32

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width1: int = 64,
        width2: int = 192,
        width3: int = 256,
        whitening_bias: bool = True,
    ) -> None:
        widths = [checked_width(width) for width in (width1, width2, width3)]
        patch = PATCH * PATCH * in_channels
        self.whitening = conv3x3(in_channels, 2 * patch, bias=True)  # of which PATCH × PATCH taps are not zero
        self.whitening.weight.requires_grad = False
        assert self.whitening.bias is not None
        nn.init.zeros_(self.whitening.bias)
        self.whitening.bias.requires_grad = whitening_bias
        self.stage1, self.stage2, self.stage3 = (
            Stage(inside, outside) for inside, outside in zip([2 * patch, *widths], widths)
        )
        self.fc = nn.Linear(widths[-1], num_classes, bias=False)
        self.fc.weight.data *= SCALE

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.whitening(x))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(F.flatten(F.global_max_pool2d(x), 1))

    def whiten(self, images: NDArray[np.floating]) -> None:
        """Set the first layer's weights from normalised images (N, in_channels, H, W): [1].

        They are the eigenvectors of the covariance of the images' patches, each divided by the square root of its eigenvalue,
        and their negatives, so that the outputs have variance 1 and no correlation. Raises ShapeError for other images.
        """
        weight = self.whitening.weight
        if images.ndim != 4 or images.shape[1] != weight.shape[1] or min(images.shape[2:]) < PATCH:
            raise ShapeError(f"whiten: images are (N, {weight.shape[1]}, H, W), not of shape {images.shape}")
        # (N, C, H, W, PATCH, PATCH)
        windows = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(2, 3))
        patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, weight.shape[1] * PATCH * PATCH).astype(np.float64)
        variances, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / np.sqrt(variances + LEAST_VARIANCE)).T[::-1]  # the largest variance first
        new = np.zeros_like(weight.data)
        new[:, :, 1 : 1 + PATCH, 1 : 1 + PATCH] = np.concatenate([filters, -filters]).reshape(
            -1, new.shape[1], PATCH, PATCH
        )
        weight.data = new


class Stage(nn.Module):
    """conv, max pooling by 2, BN, ReLU; then y = relu(F(x) + x), F of two convolutions with BN."""

    recordable = True

    def __init__(self, in_channels: int, channels: int) -> None:
        self.conv1, self.conv2, self.conv3 = (conv3x3(inside, channels) for inside in (in_channels, channels, channels))
        self.pool = nn.MaxPool2d(2)
        self.norm1, self.norm2, self.norm3 = (unscaled_norm(channels) for _ in range(3))
        for conv in (self.conv1, self.conv2, self.conv3):
            dirac(conv)

    def forward(self, x: Tensor) -> Tensor:
        x = F.bn_relu(self.pool(self.conv1(x)), self.norm1)
        y = F.conv_bn_relu(x, self.conv2, self.norm2)
        return F.conv_bn_add_relu(y, self.conv3, self.norm3, x)


def unscaled_norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm whose scale stays 1, and whose statistics follow soon, since trainings are short: [1]."""
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    assert norm.weight is not None
    norm.weight.requires_grad = False
    return norm


def dirac(conv: nn.Conv2d) -> None:
    """Make as many filters as possible hand on one input channel each: [1]. The others stay as they were drawn."""
    weight = hwio(conv.weight.data)
    height, width, inside, outside = weight.shape
    kept = np.arange(min(inside, outside))
    weight[:, :, :, kept] = 0
    weight[height // 2, width // 2, kept, kept] = 1


register("whitened_resnet11", WhitenedResNet, "A residual network of 11 layers that is quick to train.", {})
