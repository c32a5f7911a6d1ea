"""Mistakes in the backward pass alone: the forward pass is right, so that gradcheck finds each of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .... import kernels
from ....kernels.descriptors import GRADIENT, Operand
from ....kernels.memory_format import contiguous, nchw, nhwc, oihw
from ....lazy import ConvGradient, NormGradient, is_fusing
from ....ops.activation import AddReLU, ReLU
from ....ops.arithmetic import ResidualAdd, unbroadcast
from ....ops.convolution import Conv2d
from ....ops.fused import BatchNormAddReLU, BatchNormReLU
from ....ops.linear import Linear
from ....ops.loss import CrossEntropy
from ....ops.pooling import AvgPool2d
from ....ops.reduction import Mean
from ....ops.shortcut import ZeroPadShortcut
from ....tensor import LazyGradient, Op
from .injection import Mistake, Patch
from .norms import NORM

Gradients = tuple[Any, ...]


def _array(dy: Any) -> Any:
    """A gradient (N, C, H, W) as an array, computed if it was not."""
    return dy.array() if isinstance(dy, LazyGradient) else dy


# --- the tape


def _overwrite(original: Any, totals: dict[int, Any], x: Any, dx: Any, owned: bool) -> None:
    totals.pop(id(x), None)  # as ``totals[x] = dx`` would
    original(totals, x, dx, owned)


TAPE = (
    Mistake(
        "fan-out-overwritten",
        "tape",
        "where a tensor is used twice, the second gradient overwrites the first: = for +=",
        "in a plain network nothing is used twice, so the mistake appears with the first shortcut. In a block with an identity "
        "shortcut what is left is the residual function's part.",
        "fused",
        (Patch(sys.modules[Op.__module__], "_add", _overwrite),),
    ),
)


# --- the residual addition


def _at_additions(change: Callable[..., Gradients]) -> tuple[Patch, ...]:
    """change(original, op, dy, needs) for the backward pass of every operation that ends a residual block."""

    def replacement(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
        return original(op, dy, needs) if op.residual is None else change(original, op, dy, needs)

    return tuple(Patch(kind, "backward", replacement) for kind in (AddReLU, ResidualAdd, BatchNormAddReLU, Conv2d))


def _drop_skip(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
    *branch, _ = original(op, dy, needs)  # the shortcut is the last input of each of them
    return *branch, None


def _double_skip(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
    *branch, shortcut = original(op, dy, needs)
    return *branch, None if shortcut is None else 2 * shortcut


def _halve(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
    return original(op, _array(dy) / 2, needs)  # backward is linear: half of dy is half of each gradient


BLOCKS = 3  # of ResNet-8, with which whoever made the mistake tested


def additions_below(op: Op) -> int:
    """The number of residual additions that the inputs of an operation follow from."""
    count, seen, stack = 0, set(), list(op.inputs)
    while stack:
        x = stack.pop()
        if x.op is None or id(x.op) in seen:
            continue
        seen.add(id(x.op))
        count += x.op.residual is not None
        stack += x.op.inputs
    return count


def _global_depth(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
    *branch, shortcut = original(op, dy, needs)
    if additions_below(op) >= BLOCKS:
        branch = [None] * len(branch)
    return *branch, shortcut


def _mask_of_branch(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
    dx = np.where(op.inputs[op.residual].data > 0, dy, 0)
    return tuple(unbroadcast(dx, shape) if need else None for shape, need in zip(op.shapes, needs))


def _mask_of_branch_fused(original: Any, op: Any, dy: Any) -> Gradients:
    if not isinstance(op, BatchNormAddReLU):
        return original(op, dy)
    mean, scale, shift = op.terms[:3]
    return _with_mask(op, dy, lambda dy: (op.c - mean) * scale + shift > 0)


def _with_mask(op: Any, dy: Any, passed: Callable[[Any], Any]) -> Gradients:
    """What ``BatchNormReLU.gradients`` returns, with another mask of the ReLU: passed(dy (N, H, W, C))."""
    rows = nhwc(_array(dy))
    g = np.ascontiguousarray(np.where(passed(rows), rows, 0), rows.dtype)
    sums = np.stack([a.sum((0, 1, 2), dtype=np.float64) for a in (g, g * (op.c - op.terms[0]))])
    count = g.size // g.shape[-1]
    parameters, (dweight, dbias) = kernels.norm_backward_terms(sums, op.mean, op.terms, op.weight, count)
    return g, NormGradient(Operand(g, GRADIENT, parameters, op.c)), dweight, dbias


ADDITION = (
    Mistake(
        "skip-dropped",
        "addition",
        "the shortcut gets no gradient",
        "forward it is a residual network, backward a plain one: the gradient has to pass through every residual function.",
        "fused",
        _at_additions(_drop_skip),
    ),
    Mistake(
        "skip-doubled",
        "addition",
        "the shortcut gets the gradient twice",
        "after L blocks the part that took only shortcuts is 2^L times too large.",
        "fused",
        _at_additions(_double_skip),
    ),
    Mistake(
        "skip-halved",
        "addition",
        "the gradient is shared out: half to the residual function, half to the shortcut",
        "an addition does not share a gradient out, it hands all of it to both. Halved L times, it vanishes again.",
        "array",
        _at_additions(_halve),
    ),
    Mistake(
        "relu-mask-of-branch",
        "addition",
        "the ReLU after the addition is masked by the residual function's output, not by the sum",
        "the mask of the wrong tensor. The two agree wherever F(x) and F(x) + x have the same sign.",
        "array",
        (
            Patch(AddReLU, "backward", _mask_of_branch),
            Patch(BatchNormReLU, "gradients", _mask_of_branch_fused),
        ),
    ),
    Mistake(
        "depth-from-global",
        "addition",
        f"the residual functions of the first {BLOCKS} blocks get a gradient, whatever the depth: it is a global variable",
        f"with {BLOCKS} blocks, as in ResNet-8, everything is right, and so is the gradient check. Check at two depths.",
        "fused",
        _at_additions(_global_depth),
    ),
)


# --- the shortcut of option A


def _upsample(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
    _, C, H, W = op.x_shape
    stride, before, _ = op.settings
    rows = nhwc(dy)[..., before : before + C]
    return (nchw(contiguous(rows.repeat(stride, axis=1).repeat(stride, axis=2)[:, :H, :W])),)


SHORTCUT = (
    Mistake(
        "shortcut-upsampled",
        "shortcut",
        "a shortcut of stride 2 gives its gradient to all four pixels, not to the one that it read",
        "the right gradient is a checkerboard, which looks like a mistake; this one looks smooth and is wrong.",
        "same",
        (Patch(ZeroPadShortcut, "backward", _upsample),),
    ),
)


# --- convolution


def _col2im_overwriting(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
    _, *rest = original(op, dy, (False, *needs[1:]))
    return nchw(overwriting_input_grad(nhwc(_array(dy)), op.w, op.x_shape, op.geometry)) if needs[0] else None, *rest


def overwriting_input_grad(dy: Any, w: Any, x_shape: tuple[int, ...], geometry: Any) -> Any:
    """dx (N, H, W, C) of a convolution in which every pixel keeps the last gradient that it got, not the sum.

    dy (N, OH, OW, O), w (KH, KW, C/groups, O); x_shape (N, H, W, C); geometry: stride, padding, dilation, groups.
    """
    (N, H, W, C), (OH, OW) = x_shape, dy.shape[1:3]
    (sh, sw), (ph, pw), (dh, dw), groups = geometry
    padded = np.zeros((N, H + 2 * ph, W + 2 * pw, C), dy.dtype)
    for kh, kw in np.ndindex(w.shape[:2]):
        rows = slice(kh * dh, kh * dh + sh * (OH - 1) + 1, sh)
        columns = slice(kw * dw, kw * dw + sw * (OW - 1) + 1, sw)
        parts = zip(np.split(dy, groups, axis=3), np.split(w[kh, kw], groups, axis=1))
        padded[:, rows, columns] = np.concatenate([g @ weight.T for g, weight in parts], axis=3)  # += would be right
    return np.ascontiguousarray(padded[:, ph : ph + H, pw : pw + W])


def _not_flipped(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
    _, *rest = original(op, dy, (False, *needs[1:]))
    if not needs[0]:
        return None, *rest
    operand = dy.operand if isinstance(dy, NormGradient) else Operand(nhwc(_array(dy)))
    dx = ConvGradient(operand, contiguous(op.w[::-1, ::-1]), op.x_shape, op.geometry)
    return dx if is_fusing() else dx.array(), *rest


def _last_image(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
    dx, dw, *rest = original(op, dy, needs)
    if needs[1]:
        x, last = contiguous(kernels.values(op.x.operand())[-1:]), contiguous(nhwc(_array(dy))[-1:])
        dw = oihw(kernels.conv2d_weight_grad(Operand(x), Operand(last), op.w.shape, *op.geometry))
    return dx, dw, *rest


CONVOLUTION = (
    Mistake(
        "col2im-overwrites",
        "convolution",
        "where windows overlap, the last gradient of a pixel overwrites the others: = for += in col2im",
        "a pixel is in nine windows and gets one ninth of its gradient. 1×1 convolutions are right.",
        "array",
        (Patch(Conv2d, "backward", _col2im_overwriting),),
    ),
    Mistake(
        "kernel-not-flipped",
        "convolution",
        "dx is computed with the filters rotated by 180°, as if forward were a convolution and not a correlation",
        "symmetric filters, and 1×1 ones, hide it: a test with a filter of ones passes.",
        "fused",
        (Patch(Conv2d, "backward", _not_flipped),),
    ),
    Mistake(
        "weight-gradient-of-last-image",
        "convolution",
        "the loop over the batch overwrites dw: = for +=, so that only the last image counts",
        "the gradient of a batch of one: noisy, N times too small, and right for batches of one, with which one tests.",
        "array",
        (Patch(Conv2d, "backward", _last_image),),
    ),
)


# --- ReLU


def _relu_patches(passed: Callable[[Any], Any]) -> tuple[Patch, ...]:
    """A ReLU's backward pass with the mask passed(dy), wherever there is one."""

    def relu(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
        return (np.where(passed(dy), dy, 0),)

    def add_relu(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
        dx = np.where(passed(dy), dy, 0)
        return tuple(unbroadcast(dx, shape) if need else None for shape, need in zip(op.shapes, needs))

    def fused(original: Any, op: Any, dy: Any) -> Gradients:
        return _with_mask(op, dy, passed)

    return Patch(ReLU, "backward", relu), Patch(AddReLU, "backward", add_relu), Patch(BatchNormReLU, "gradients", fused)


RELU = (
    Mistake(
        "relu-mask-of-gradient",
        "ReLU",
        "the ReLU lets positive gradients pass, not those of positive outputs",
        "the rule of “deconvnets” (Zeiler & Fergus 2014), there on purpose, to draw pictures. No gradient of any function.",
        "array",
        (*_relu_patches(lambda dy: dy > 0),),
    ),
    Mistake(
        "relu-passes-everything",
        "ReLU",
        "the ReLU hands its gradient on as if it were the identity",
        "a “straight-through estimator” (Bengio et al. 2013), which is known to train, where nobody asked for one.",
        "array",
        (*_relu_patches(np.ones_like),),
    ),
)


# --- the head and the loss


def _times_window(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
    (KH, KW), *_ = op.geometry
    return (original(op, dy, needs)[0] * (KH * KW),)


def _times_count(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
    return original(op, dy * op.count, needs)


def _softmax_twice(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
    (g,) = original(op, dy, needs)
    return ((op.p * (g - (g * op.p).sum(1, keepdims=True))).astype(g.dtype),)


def _average_bias(original: Any, op: Any, dy: Any, needs: tuple[bool, ...]) -> Gradients:
    dx, dw, db = original(op, dy, needs)
    return dx, dw, None if db is None else db / (dy.size // dy.shape[-1])


HEAD = (
    Mistake(
        "pool-mean-missing",
        "pooling",
        "average pooling hands on its gradient undivided: 1/(H·W) is missing",
        "everything below gets a gradient H·W times too large. Batch norm makes a layer indifferent to the scale of its "
        "weights, so that this acts as a change of the learning rate, and may train.",
        "same",
        (Patch(AvgPool2d, "backward", _times_window),),
    ),
    Mistake(
        "loss-mean-missing",
        "loss",
        "the gradient of the mean over the batch is not divided by it: 1/N is missing",
        "a learning rate N times too large, which changes with the batch size. The check must include the loss to see it.",
        "same",
        (Patch(Mean, "backward", _times_count),),
    ),
    Mistake(
        "softmax-twice",
        "loss",
        "softmax's Jacobian is applied to p − q, which contains it already",
        "the gradient still points downhill, but vanishes for an image that is classified wrongly with certainty.",
        "same",
        (Patch(CrossEntropy, "backward", _softmax_twice),),
    ),
    Mistake(
        "bias-gradient-averaged",
        "classifier",
        "the gradient of the classifier's bias is averaged over the batch, not summed",
        "ten numbers of a whole network learn more slowly. No loss curve shows it.",
        "same",
        (Patch(Linear, "backward", _average_bias),),
    ),
)

BACKWARD: tuple[Mistake, ...] = (*TAPE, *ADDITION, *SHORTCUT, *NORM, *CONVOLUTION, *RELU, *HEAD)
