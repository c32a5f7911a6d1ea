"""Activations and gradients that are described, not stored: what makes fused operations possible between ops on the tape.

A ``Deferred`` tensor knows from which array its values follow and how; an operation that can compute them while it reads
does so, and the values are never written to memory. Whoever looks at ``.data`` gets them, as of any tensor; from then on
all operations read what he was given.
"""

from . import kernels
from .kernels.layout import nchw, nhwc
from .kernels.switch import Switch
from .tensor import Gradient, Tensor, watcher


def is_fusing():
    """Whether operations of this thread may be fused: not under ``fusion(False)``, another back end or a watcher."""
    return fusion.is_on() and kernels.get_backend() == "numba" and watcher() is None


class fusion(Switch):
    """``with fusion(False):`` runs op by op, every intermediate tensor stored. A context manager and a decorator.

    Fused and unfused operations give the same values up to rounding. A hook on an inner tensor or module is always heard:
    what it watches runs unfused by itself.

    >>> with fusion(False):
    ...     is_fusing()
    False
    """


class Deferred(Tensor):
    """A Tensor (N, C, H, W) whose values are an ``Operand`` (``kernels/packing.py``): a function of a stored array.

    moments: mean and variance of its channels where the operation that made it has them, else None.
    """

    __slots__ = ("_moments", "_operand", "_seen", "_shaped")

    def __init__(self, operand, moments=None):
        self._shaped = nchw(operand.array)
        super().__init__(self._shaped)
        self._operand, self._moments, self._seen = operand, moments, None

    @property
    def data(self):
        if self._seen is None:
            self._seen = nchw(computed(self._operand))
        return self._seen

    @data.setter
    def data(self, array):
        self._seen = array

    shape = property(lambda self: self._shaped.shape)
    dtype = property(lambda self: self._shaped.dtype)
    ndim = property(lambda self: 4)
    size = property(lambda self: self._shaped.size)


def operand(x):
    """The Tensor x (N, C, H, W) as a kernel reads it: unstored values as they follow from others, unless somebody looked."""
    if isinstance(x, Deferred) and x._seen is None:
        return x._operand
    return kernels.fused.Operand(nhwc(x.data))


def moments(x):
    """(mean, biased variance), float64 (C,), of each channel of the Tensor x (N, C, H, W)."""
    if isinstance(x, Deferred) and x._seen is None and x._moments is not None:
        return x._moments
    return kernels.batch_norm_stats(nhwc(x.data))


def computed(operand):
    """The operand's values, (N, H, W, C): its array where that is what they are, else a new one."""
    if operand.kind == kernels.fused.PLAIN:
        return operand.array
    return kernels.fused.pointwise(operand, kernels.fused.Epilogue())[0]


class NormGradient(Gradient):
    """a·dy + b·(x − mean) + d, the gradient of batch norm's input x: an ``Operand`` that a convolution reads while packing."""

    def __init__(self, operand):
        self.operand = operand

    def array(self):
        return nchw(computed(self.operand))

    def plus(self, other):
        fused = kernels.fused
        return nchw(fused.pointwise(self.operand, fused.Epilogue(fused.ADD, other=nhwc(other)))[0])


class MaskedGradient(Gradient):
    """The whole gradient of a ReLU's output, set to 0 where the ReLU did not let its input pass, and two sums over it.

    sums (2, C), float64: Σ dy and Σ dy·(c − mean), c being the input of the batch norm before the ReLU. Masking it again
    changes nothing: as a plain array it is as good as the gradient that was not masked.
    """

    whole = True

    def __init__(self, dy, sums):
        self.dy, self.sums = dy, sums

    def array(self):
        return nchw(self.dy)
