"""Mistakes that forward and backward agree on: the gradient is right, of the wrong function.

No comparison with finite differences can find one. A comparison with a network that is known to be right does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .... import functional as F
from ....tensor import Tensor
from .injection import Mistake, Patch


def _ends(end: Callable[[Tensor, Tensor, bool], Tensor]) -> tuple[Patch, ...]:
    """Every residual block ends with end(branch, shortcut, rectify). rectify: whether a ReLU follows the addition."""

    def add_relu(original: Any, branch: Tensor, shortcut: Tensor) -> Tensor:
        return end(branch, shortcut, True)

    def residual_add(original: Any, branch: Tensor, shortcut: Tensor) -> Tensor:
        return end(branch, shortcut, False)

    def conv_bn_add_relu(original: Any, x: Tensor, conv: Any, bn: Any, shortcut: Tensor, factor: float = 1.0) -> Tensor:
        return end(F.conv_bn(x, conv, bn) * factor, shortcut, True)

    def bn_relu_conv_add(original: Any, x: Tensor, bn: Any, conv: Any, shortcut: Tensor, factor: float = 1.0) -> Tensor:
        return end(F.bn_relu_conv(x, bn, conv) * factor, shortcut, False)

    replacements = (add_relu, residual_add, conv_bn_add_relu, bn_relu_conv_add)
    return tuple(Patch(F, f.__name__, f) for f in replacements)


def _x_to_x(branch: Tensor, shortcut: Tensor, rectify: bool) -> Tensor:
    y = shortcut + shortcut
    return F.relu(y) if rectify else y


def _twice(branch: Tensor, shortcut: Tensor, rectify: bool) -> Tensor:
    y = F.residual_add(branch, shortcut + shortcut)
    return F.relu(y) if rectify else y


def _missing(branch: Tensor, shortcut: Tensor, rectify: bool) -> Tensor:
    return F.relu(branch) if rectify else branch


def _without_relu(branch: Tensor, shortcut: Tensor, rectify: bool) -> Tensor:
    return F.residual_add(branch, shortcut)


def _relu_first(branch: Tensor, shortcut: Tensor, rectify: bool) -> Tensor:
    return F.residual_add(F.relu(branch) if rectify else branch, shortcut)


def _softmax_first(original: Any, logits: Tensor, target: Any, **options: Any) -> Tensor:
    return original(F.softmax(logits, 1), target, **options)


def _next_label(original: Any, logits: Tensor, target: Any, **options: Any) -> Tensor:
    return original(logits, np.roll(np.asarray(target), 1), **options)


BOTH_PASSES = (
    Mistake(
        "x-added-to-x",
        "addition",
        "y = x + x: the block adds its input to itself, and its residual function is never used",
        "a check of each parameter says that its gradient is right, and 0: read what it says about gradients that are all 0.",
        "array",
        _ends(_x_to_x),
        both_passes=True,
    ),
    Mistake(
        "skip-added-twice",
        "addition",
        "y = F(x) + 2x",
        "a legitimate network, and not the one that was meant: activations double from block to block.",
        "array",
        _ends(_twice),
        both_passes=True,
    ),
    Mistake(
        "skip-missing",
        "addition",
        "y = F(x): the shortcut is forgotten",
        "a plain network, which trains as such; at this depth it may even be as good.",
        "array",
        _ends(_missing),
        both_passes=True,
    ),
    Mistake(
        "relu-missing",
        "addition",
        "the ReLU after the addition is forgotten",
        "only networks of He et al. 2015 have one. Without it this is nearly a network of He et al. 2016.",
        "array",
        _ends(_without_relu),
        both_passes=True,
    ),
    Mistake(
        "relu-before-addition",
        "addition",
        "the ReLU comes before the addition: y = x + relu(F(x))",
        "a residual function that can only add: activations grow from block to block (He et al. 2016, Fig. 4c).",
        "array",
        _ends(_relu_first),
        both_passes=True,
    ),
    Mistake(
        "softmax-before-loss",
        "loss",
        "softmax is applied to the logits, and by the loss again",
        "the loss cannot fall below ln(e + K − 1) − 1, 1.46 for ten classes, and trains slowly. A frequent mistake.",
        "same",
        (Patch(F, "cross_entropy", _softmax_first),),
        both_passes=True,
    ),
    Mistake(
        "labels-shifted",
        "loss",
        "each image gets the label of the one before it in the batch",
        "every gradient is right, and there is nothing to learn: with shuffled batches not even by heart.",
        "same",
        (Patch(F, "cross_entropy", _next_label),),
        both_passes=True,
    ),
)
