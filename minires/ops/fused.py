"""The steps of residual networks, several operations in each pass over memory.

Forward, a convolution sums the moments of its outputs while they are in cache, and the next one normalises and rectifies
them while it packs its input. Backward, the ReLU and batch norm below a convolution finish its input gradient in the
kernel's epilogue, masked and with the two sums that batch norm needs, and the convolution below packs batch norm's input
gradient as it computes it. ``docs/fused-path.md`` follows a block through both.
"""

import math

from .. import kernels
from ..errors import MiniresError
from ..grad_mode import is_grad_enabled
from ..kernels.descriptors import GRADIENT, MASK, NORMALISE, NORMALISED, PLAIN, Epilogue, Operand
from ..kernels.memory_format import hwio, nchw, nhwc
from ..lazy import ConvGradient, LazyTensor, NormGradient, is_fusing, is_lazy, saved, stored, values
from ..recompute import SavedActivation
from ..tensor import Op, Tensor
from .convolution import Conv2d, conv2d_shape


class BatchNormReLU(Op):
    """y = relu(x̂·γ + β) with x̂ = (x − μ)/√(σ² + ε). The formulas of the backward pass are BatchNorm's.

    y is not stored while nobody can change the x that it follows from.
    """

    label = "batch_norm_relu"
    takes = (ConvGradient,)
    reads = ((0,), (0,), (), ())

    def __init__(self, moments, eps):
        self.mean, self.var = moments
        self.eps = eps

    def read(self, i, x):
        if i:
            return x.data
        self.source = x.saved if is_lazy(x) else None
        return stored(x)

    def forward(self, c, weight, bias):
        self.normalise(c, weight, bias)
        self.y = SavedActivation(Operand(c, NORMALISED, self.terms[:3]))
        if self.source is None:
            self.y.array()
        else:
            self.source.add_dependant(self.y.array)
        return self.y

    def normalise(self, c, weight, bias):
        self.c, self.weight = c, weight
        self.terms = kernels.norm_forward_terms(self.mean, self.var, self.eps, weight, bias)

    def wrap(self, y):
        return LazyTensor.of(y)

    def epilogue(self):
        """How the gradient of this op's output is finished: masked by the ReLU, with the two sums for batch norm's gradient.

        The mask is that of y if it is stored, as somebody may have changed it; otherwise it is computed from x.
        """
        y = self.y.operand()
        return Epilogue(MASK, self.terms[:3], c=self.c, z=y.array if y.kind == PLAIN else None)

    def backward(self, dy, needs):
        return self.gradients(dy)[1:]

    def gradients(self, dy):
        """The masked gradient (N, H, W, C), and those of c, weight and bias."""
        if isinstance(dy, ConvGradient):
            g, sums = dy.finish(self.epilogue())
        else:
            g, sums = kernels.pointwise(Operand(nhwc(dy)), self.epilogue())
        count = g.size // g.shape[-1]
        parameters, (dweight, dbias) = kernels.norm_backward_terms(sums, self.mean, self.terms, self.weight, count)
        return g, NormGradient(Operand(g, GRADIENT, parameters, self.c)), dweight, dbias


class BatchNormAddReLU(BatchNormReLU):
    """y = relu(x̂·γ + β + s): the end of a residual block. Both branches get the same gradient.

    Of every second block in a row, y is discarded when the next block has read it, and recomputed in the backward pass.
    """

    label = "batch_norm_add_relu"
    residual = 0
    aliases = True
    y = None

    def read(self, i, x):
        if i < 3:
            return super().read(i, x)
        self.shortcut = x.saved if is_lazy(x) else None
        return values(x)

    def forward(self, c, weight, bias, s):
        self.normalise(c, weight, bias)
        terms, source, shortcut = self.terms[:3], self.source, self.shortcut

        def end(s):
            return kernels.pointwise(Operand(c), Epilogue(NORMALISE, terms, other=s))[0]

        # Of two blocks in a row one is kept: a y is not recomputed from a shortcut that has to be recomputed itself.
        lazy = source is not None and shortcut is not None
        recomputed = lazy and shortcut.is_pinned and is_grad_enabled()
        self.y = SavedActivation(Operand(end(s)), (lambda: end(shortcut.values())) if recomputed else None)
        if recomputed:
            source.add_dependant(self.y.array)
            shortcut.add_dependant(self.y.array)
        if shortcut is not None:
            shortcut.discard()
        return self.y

    def wrap(self, y):
        return LazyTensor.of(y) if is_grad_enabled() else Tensor(nchw(y.values()))

    def release(self):
        if self.y is not None:
            self.y.pin()
        super().release()

    def backward(self, dy, needs):
        g, *gradients = self.gradients(dy)
        return (*gradients, nchw(g))


# --- the steps


def fusable(x, bn, conv=None, shortcut=None, norm_first=False):
    """Whether the step of these may be fused. If not, the composition of operations runs, and says what does not fit.

    It may when the modules do what their classes do and nobody listens, shapes and dtypes fit, and batch norm uses the
    batch's statistics, or fixed ones where nobody asks for a gradient: under no_grad, and in frozen layers. norm_first:
    ``bn`` comes before ``conv``.
    """
    modules = [bn] if conv is None else [bn, conv]
    if not (is_fusing() and all(getattr(module, "fusable", False) for module in modules)):
        return False
    tensors = [x, bn.weight, bn.bias, *[t for t in (conv and conv.weight, shortcut) if t is not None]]
    if not all(isinstance(t, Tensor) for t in tensors) or len({t.dtype for t in tensors}) > 1:
        return False
    if x.ndim != 4 or x.dtype.kind != "f" or 0 in x.shape:
        return False
    try:
        y_shape = x.shape if conv is None else conv2d_shape(x.shape, conv.weight.shape, *conv.geometry)
    except MiniresError:
        return False
    normalised_shape = x.shape if norm_first else y_shape
    channels, statistics = normalised_shape[1:2], (bn.running_mean, bn.running_var)
    if not all(a is not None and a.shape == channels for a in (bn.weight, bn.bias, *statistics)):
        return False
    if shortcut is not None and shortcut.shape != y_shape:
        return False
    if bn.training:
        return math.prod(normalised_shape) > channels[0]  # one value a channel has no variance
    return not (is_grad_enabled() and any(t.requires_grad for t in tensors))


def conv_bn(x, conv, bn, relu=True, shortcut=None, factor=1.0):
    """relu(bn(conv(x))·factor + shortcut), where ``fusable`` says so; in evaluation mode also without the relu."""
    if bn.training:
        return _norm_relu(Conv2d(conv.geometry, moments=True).apply(x, conv.weight), bn, shortcut, factor)
    other = None if shortcut is None else values(shortcut)
    epilogue = Epilogue(NORMALISE, _fixed(bn, factor), relu, other)
    y, _ = kernels.conv2d(saved(x).operand(), hwio(conv.weight.data), *conv.geometry, epilogue)
    return Tensor(nchw(y))


def bn_relu(x, bn):
    """relu(bn(x)), where ``fusable`` says so: stored only if somebody may change x."""
    if bn.training:
        return _norm_relu(x, bn)
    y = SavedActivation(Operand(stored(x), NORMALISED, _fixed(bn)))
    if is_lazy(x) and x.saved is not None:
        x.saved.add_dependant(y.array)
    else:
        y.array()
    return LazyTensor.of(y)


def bn_relu_conv(x, bn, conv, shortcut=None, factor=1.0):
    """conv(relu(bn(x)))·factor + shortcut, where ``fusable`` says so.

    In training y's moments are summed for the next batch norm.
    """
    others = () if shortcut is None else (shortcut,)
    op = Conv2d(conv.geometry, shortcut=shortcut is not None, moments=bn.training)
    if bn.training:
        activation = bn_relu(x, bn)
    else:  # it is used at once, so nothing can change x before
        activation = LazyTensor.of(SavedActivation(Operand(values(x), NORMALISED, _fixed(bn))))
    return op.apply(activation, conv.weight if factor == 1 else conv.weight * factor, *others)


def _norm_relu(c, bn, shortcut=None, factor=1.0):
    """relu(bn(c)), or relu(bn(c)·factor + shortcut), with the batch's statistics."""
    moments = c.moments if is_lazy(c) else None
    if moments is None:
        moments = kernels.batch_norm_stats(values(c))
        if is_lazy(c) and c.saved is not None:
            c.moments = moments  # for whoever concatenates c
    bn.update_running_stats(*moments, c.size // c.shape[1])
    if shortcut is None:
        return BatchNormReLU(moments, bn.eps).apply(c, bn.weight, bn.bias)
    return BatchNormAddReLU(moments, bn.eps).apply(c, *_affine(bn, factor), shortcut)


def _fixed(bn, factor=1.0):
    """(3, C): mean, scale and shift of a batch norm in evaluation mode, times a factor."""
    weight, bias = _affine(bn, factor)
    return kernels.norm_fixed_terms(bn.running_mean, bn.running_var, bn.eps, weight.data, bias.data)


def _affine(bn, factor):
    """γ and β of bn(c)·factor."""
    return (bn.weight, bn.bias) if factor == 1 else (bn.weight * factor, bn.bias * factor)
