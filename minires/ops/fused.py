"""Convolution, batch norm, ReLU and residual addition, each as an op that leaves out the passes over memory between them.

Forward, a convolution sums the moments of its outputs while they are in cache, and the next one normalises and rectifies
them while it packs its input. Backward, a convolution finishes the gradient of its input with the ReLU's mask and the two
sums that the batch norm below needs, and that one computes its own input's gradient while the convolution below packs it.
"""

import weakref

import numpy as np

from .. import kernels
from ..deferred import (
    ConvGradient,
    Deferred,
    Kept,
    NormGradient,
    Remade,
    computed,
    is_fusing,
    is_unstored,
    keep,
    moments,
    operand,
    values,
)
from ..kernels.layout import contiguous, hwio, nchw, nhwc, oihw, out_size
from ..tensor import Op, Tensor, is_grad_enabled


class Conv2d(Op):
    """y = x ∗ w (+ shortcut) of an x that need not be stored, with the moments of y."""

    label = "conv2d"
    takes = (NormGradient,)

    def __init__(self, convolution):
        self.convolution = convolution  # stride, padding, dilation, groups

    def read(self, i, x):
        return (keep, Tensor.numpy, values)[i](x)

    def forward(self, x, w, shortcut=None):
        fused = kernels.fused
        self.x, self.w = x, hwio(w)
        self.aliases = shortcut is not None  # the shortcut is handed dy
        sums = fused.Epilogue(fused.MOMENTS, (np.zeros(w.shape[0]),), other=shortcut)
        y, self.moments = fused.convolve(self.x.operand(), self.w, self.convolution, sums)
        return fused.Operand(y)

    def wrap(self, y):
        return Deferred(y, self.moments)

    def backward(self, dy, needs):
        fused = kernels.fused
        dshortcut = () if len(needs) == 2 else (dy if isinstance(dy, np.ndarray) else dy.array(),)
        dy = dy.operand if isinstance(dy, NormGradient) else fused.Operand(nhwc(dy))
        dx = dw = None
        if needs[0]:
            dx = ConvGradient(dy, self.w, self.x.operand().array.shape, self.convolution)
        if needs[1]:
            dw = oihw(fused.convolve_weight_grad(self.x.operand(), dy, self.w.shape, self.convolution))
        return dx, dw, *dshortcut


class BatchNormReLU(Op):
    """y = relu(x̂·γ + β) with x̂ = (x − μ)/√(σ² + ε), not stored. The formulas of the backward pass are BatchNorm's."""

    label = "batch_norm_relu"
    takes = (ConvGradient,)

    def __init__(self, moments, eps):
        self.mean, self.var = moments
        self.eps = eps

    def read(self, i, x):
        return operand(x) if i == 0 else x.data

    def forward(self, c, weight, bias):
        fused = kernels.fused
        self.c, self.weight = computed(c), contiguous(weight)
        self.terms = fused.forward_terms(self.mean, self.var, self.eps, self.weight, contiguous(bias))
        return fused.Operand(self.c, fused.NORMALISED, self.terms[:3])

    def wrap(self, y):
        return Deferred(y)

    def mask(self):
        """The epilogue of the gradient of this op's output: masked by the ReLU, and the two sums that batch norm needs."""
        return kernels.fused.Epilogue(kernels.fused.MASK, self.terms[:3], c=self.c)

    def backward(self, dy, needs):
        return self.gradients(dy)[1:]

    def gradients(self, dy):
        """The masked gradient, and those of c, weight and bias."""
        fused = kernels.fused
        if isinstance(dy, ConvGradient):
            g, sums = dy.finish(self.mask())
        else:
            g, sums = fused.pointwise(fused.Operand(nhwc(dy)), self.mask())
        count = g.size // g.shape[-1]
        parameters, (dweight, dbias) = fused.backward_terms(sums, self.mean, self.terms, self.weight, count)
        return g, NormGradient(fused.Operand(g, fused.GRADIENT, parameters, self.c)), dweight, dbias


class BatchNormAddReLU(BatchNormReLU):
    """z = relu(x̂·γ + β + shortcut): the end of a residual block. Both branches get the same gradient.

    Of every second block in a row, z is forgotten when the next block has ended, and made again on the way back: one pass
    over memory in place of one of the six arrays that two blocks keep.
    """

    label = "batch_norm_add_relu"
    aliases = True
    z = None

    def read(self, i, x):
        if i < 3:
            return super().read(i, x)
        shortcut = keep(x)
        self.forgettable = shortcut.steady and is_unstored(x) and is_grad_enabled()
        return shortcut

    def forward(self, c, weight, bias, shortcut):
        fused = kernels.fused
        c, parameters = fused.Operand(computed(c)), super().forward(c, weight, bias).parameters

        def end():
            return fused.pointwise(c, fused.Epilogue(fused.NORMALISE, parameters, other=shortcut.values()))[0]

        self.z = Kept(fused.Operand(end()), end if self.forgettable else None)
        if self.forgettable:
            shortcut.dependants.append(weakref.ref(self.z))
        shortcut.forget()
        return self.z

    def wrap(self, y):
        return Remade(y) if is_grad_enabled() else Tensor(nchw(y.operand().array))

    def mask(self):
        return super().mask()._replace(z=self.z.operand().array)

    def release(self):
        if self.z is not None:
            self.z.settle()
        super().release()

    def backward(self, dy, needs):
        g, *gradients = self.gradients(dy)
        return (*gradients, nchw(g))


# --- what functional.py calls


def fusable(x, conv, bn, shortcut=None):
    """How the step that these make may be fused: "training", "evaluation" or None, not at all.

    It may when the modules do what their classes do and nobody listens, shapes and dtypes fit (if not, the composition
    says what is wrong), and batch norm either uses the batch's statistics or fixed ones with nothing recorded.
    """
    modules = [bn] if conv is None else [conv, bn]
    if not (isinstance(x, Tensor) and x.ndim == 4 and is_fusing() and all(_is_fusable(m) for m in modules)):
        return None
    N, C, *size = x.shape
    if conv is not None:
        O, I, *kernel = conv.weight.shape
        size = out_size(size, kernel, *conv.convolution[:3])
        if I * conv.groups != C:
            return None
        C = O
    tensors = [
        x,
        bn.weight,
        bn.bias,
        *([] if conv is None else [conv.weight]),
        *([] if shortcut is None else [shortcut]),
    ]
    count = N * size[0] * size[1]
    if bn.num_features != x.shape[1] if conv is None else bn.num_features != C:
        return None
    if min(N, *size) < 1 or len({t.dtype for t in tensors}) > 1 or x.dtype.kind != "f":
        return None
    if shortcut is not None and shortcut.shape != (N, C, *size):
        return None
    if bn.training:
        return "training" if count > 1 else None
    return None if is_grad_enabled() else "evaluation"


def _is_fusable(module):
    return getattr(module, "fusable", False)


def conv(x, conv, *shortcut):
    """conv(x), or conv(x) + shortcut, with its moments; x may be deferred."""
    return Conv2d(conv.convolution).apply(x, conv.weight, *shortcut)


def bn_relu(c, bn, *shortcut):
    """relu(bn(c)), deferred; or relu(bn(c) + shortcut)."""
    statistics = moments(c)
    bn.observe(*statistics, c.size // c.shape[1])
    op = BatchNormAddReLU if shortcut else BatchNormReLU
    return op(statistics, bn.eps).apply(c, bn.weight, bn.bias, *shortcut)


def _fixed(bn):
    """(mean, scale, shift), float64, of a batch norm in evaluation mode."""
    scale = bn.weight.data.astype(np.float64) / np.sqrt(bn.running_var.astype(np.float64) + bn.eps)
    return bn.running_mean.astype(np.float64), scale, bn.bias.data.astype(np.float64)


def infer_conv_bn(x, conv, bn, relu, shortcut=None):
    """relu(bn(conv(x)) + shortcut) in evaluation mode, nothing recorded; relu and shortcut may be missing."""
    fused = kernels.fused
    mean, scale, shift = _fixed(bn)
    near, rest = fused.rounded(mean, x.dtype)
    other = None if shortcut is None else nhwc(shortcut.data)
    end = fused.Epilogue(fused.NORMALISE, (near, scale, shift - rest * scale), relu, other)
    return Tensor(nchw(fused.convolve(operand(x), hwio(conv.weight.data), conv.convolution, end)[0]))


def infer_bn_relu(x, bn):
    """relu(bn(x)) in evaluation mode, nothing recorded, deferred."""
    return Deferred(kernels.fused.normalised(computed(operand(x)), *_fixed(bn)))


def infer_conv(x, conv, shortcut=None):
    """conv(x), or conv(x) + shortcut, nothing recorded; x may be deferred."""
    fused = kernels.fused
    end = fused.Epilogue() if shortcut is None else fused.Epilogue(fused.ADD, other=nhwc(shortcut.data))
    y, _ = fused.convolve(operand(x), hwio(conv.weight.data), conv.convolution, end)
    return Tensor(nchw(y))
