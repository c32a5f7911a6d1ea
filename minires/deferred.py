"""Activations and gradients that are described, not stored: what makes fused operations possible between ops on the tape.

A ``Deferred`` tensor knows from which array its values follow and how; an operation that can compute them while it reads
does so, and the values are never written to memory. Whoever looks at ``.data`` gets them, as of any tensor; from then on
all operations read what he was given.
"""

import math
import weakref

import numpy as np

from . import kernels
from .kernels.layout import nchw, nhwc
from .kernels.switch import Switch
from .tensor import LazyGradient, Tensor, watcher


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


class Unstored(Tensor):
    """A Tensor (N, C, H, W) whose values ``make()`` makes, (N, H, W, C), when somebody looks; from then on they are stored."""

    __slots__ = ("_dtype", "_seen", "_shape")

    def __init__(self, shape, dtype):
        super().__init__(np.empty(0, dtype))
        self._shape, self._dtype, self._seen = shape, np.dtype(dtype), None

    def make(self):
        raise NotImplementedError

    def stay(self):
        """Be stored from now on."""
        if self._seen is None:
            self._seen = nchw(self.make())

    @property
    def data(self):
        self.stay()
        return self._seen

    @data.setter
    def data(self, array):
        self._seen = array

    shape = property(lambda self: self._shape)
    dtype = property(lambda self: self._dtype)
    ndim = property(lambda self: 4)
    size = property(lambda self: math.prod(self._shape))


class Deferred(Unstored):
    """Values that are an ``Operand`` (``kernels/packing.py``): a function of a stored array.

    moments: mean and variance of its channels where the operation that made it has them, else None.
    """

    __slots__ = ("_moments", "_operand")

    def __init__(self, operand, moments=None):
        N, H, W, C = operand.array.shape
        super().__init__((N, C, H, W), operand.array.dtype)
        self._operand, self._moments = operand, moments

    def make(self):
        return computed(self._operand)


class Kept:
    """What operations keep of a Tensor (N, C, H, W): an Operand, and how to make it again when it has been forgotten.

    ``forget()`` lets go of it until it is needed; what a backward pass has made again stays, until the graph is freed.
    dependants: what will be made from it, which must be before anybody can change it.
    """

    def __init__(self, operand, again=None):
        self._operand, self._again = operand, again
        self.dependants = []  # weak references to what has a ``stay()``

    def operand(self):
        if self._operand is None:
            self._operand = kernels.fused.Operand(self._again())
        return self._operand

    def values(self):
        """(N, H, W, C). Those that are not stored are made for the caller alone."""
        return self._again() if self._operand is None else computed(self._operand)

    @property
    def steady(self):
        """Whether it is never forgotten."""
        return self._again is None

    def forget(self):
        if self._again is not None:
            self._operand = None

    def settle(self):
        """No more forgetting, if it is there: what it would be made from is let go of."""
        if self._operand is not None:
            self._again = None

    def stay(self):
        """Be there from now on, and so must all that would be made from it: somebody may change it."""
        for dependant in [reference() for reference in self.dependants]:
            if dependant is not None:
                dependant.stay()
        self.dependants.clear()
        self.operand()
        self.settle()


class Remade(Unstored):
    """Values that are stored while ``kept``, which operations share, has not forgotten them. Who looks at them ends that."""

    __slots__ = ("kept",)

    def __init__(self, kept):
        array = kept.operand().array
        super().__init__(nchw(array).shape, array.dtype)
        self.kept = kept

    def make(self):
        self.kept.stay()
        return self.kept.operand().array


class Postponed(Unstored):
    """Values that a function makes of those of a Kept, (N, H, W, C) both, where they are used."""

    __slots__ = ("function", "kept")

    def __init__(self, function, kept, shape, dtype):
        super().__init__(shape, dtype)
        self.function, self.kept = function, kept
        kept.dependants.append(weakref.ref(self))

    def make(self):
        return self.function(self.kept.values())

    def stay(self):
        super().stay()
        self.kept = None


def is_unstored(x):
    """Whether nobody but an operation can get at the values of the Tensor x."""
    return isinstance(x, Unstored) and x._seen is None


def keep(x):
    """The ``Kept`` of the Tensor x (N, C, H, W): unstored values as they follow from others, unless somebody looked."""
    if not is_unstored(x):
        return Kept(kernels.fused.Operand(nhwc(x.data)))
    if isinstance(x, Remade):
        return x.kept
    return Kept(None, x.make) if isinstance(x, Postponed) else Kept(x._operand)


def operand(x):
    """The Tensor x (N, C, H, W) as a kernel reads it."""
    return keep(x).operand()


def values(x):
    """The values of the Tensor x, (N, H, W, C). Those that are not stored are made for the caller alone."""
    return keep(x).values()


def moments(x):
    """(mean, biased variance), float64 (C,), of each channel of the Tensor x (N, C, H, W)."""
    if isinstance(x, Deferred) and x._seen is None and x._moments is not None:
        return x._moments
    return kernels.batch_norm_stats(values(x))


def computed(operand):
    """The operand's values, (N, H, W, C): its array where that is what they are, else a new one."""
    if operand.kind == kernels.fused.PLAIN:
        return operand.array
    return kernels.fused.pointwise(operand, kernels.fused.Epilogue())[0]


class NormGradient(LazyGradient):
    """a·dy + b·(x − mean) + d, the gradient of batch norm's input x: an ``Operand`` that a convolution reads while packing."""

    def __init__(self, operand):
        self.operand = operand

    def array(self):
        return nchw(computed(self.operand))

    def plus(self, other):
        fused = kernels.fused
        return nchw(fused.pointwise(self.operand, fused.Epilogue(fused.ADD, other=nhwc(other)))[0])


class ConvGradient(LazyGradient):
    """dx = dy ∗ᵀ w + addend, the gradient of a convolution's input; the ReLU and batch norm below make it their epilogue's.

    dy: an ``Operand`` (N, OH, OW, O). w (KH, KW, I, O). addend: what else is the gradient of the same tensor, or None.
    """

    def __init__(self, dy, w, x_shape, convolution, addend=None):
        self.dy, self.w, self.x_shape, self.convolution, self.addend = dy, w, x_shape, convolution, addend

    def finish(self, epilogue):
        """(dx (N, H, W, C), the epilogue's sums): the convolution is run, and ended by an epilogue that adds the addend."""
        epilogue = epilogue._replace(other=self.addend)
        return kernels.fused.convolve_input_grad(self.dy, self.w, self.x_shape, self.convolution, epilogue)

    def array(self):
        fused = kernels.fused
        return nchw(self.finish(fused.Epilogue(fused.NOTHING if self.addend is None else fused.ADD))[0])

    def plus(self, other):
        if self.addend is not None:
            return super().plus(other)
        return ConvGradient(self.dy, self.w, self.x_shape, self.convolution, nhwc(other))
