"""Tensors and gradients that are not computed yet: what lets one kernel do the work of several operations.

A kernel can apply batch norm and ReLU while it reads an array (a prologue), and finish a gradient while it writes one (an
epilogue); see ``kernels/descriptors.py``. So an operation may return a description of its result in place of the array. The
operation that comes next either works from the description or asks for the array, and so does whoever looks at ``.data``.
``docs/fused-path.md`` follows one residual block through both passes.
"""

import math
from collections.abc import Callable
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import kernels
from .grad_mode import watcher
from .kernels.descriptors import ADD, NOTHING, Epilogue, Operand
from .kernels.memory_format import nchw, nhwc
from .kernels.switches import Switch
from .recompute import SavedActivation
from .tensor import LazyGradient, Tensor


def is_fusing() -> bool:
    """Whether operations of this thread may be fused: not under ``fusion(False)``, another back end or a watcher."""
    return fusion.is_on() and kernels.get_backend() == "numba" and watcher() is None


class fusion(Switch):
    """``with fusion(False):`` runs op by op, every intermediate tensor stored. A context manager and a decorator.

    Fused and unfused operations give the same values up to rounding. A hook on an inner tensor or module is always called:
    what it watches runs unfused by itself.

    >>> with fusion(False):
    ...     is_fusing()
    False
    """


class LazyTensor(Tensor):
    """A Tensor (N, C, H, W) whose values follow from stored arrays by a function, which is called when somebody looks.

    compute() returns them, (N, H, W, C). saved: the SavedActivation that they are, for operations to share, or None. moments:
    mean and biased variance of the channels, (2, C) float64, where the operation that made it has them. Once somebody has
    looked at ``.data``, the array is stored, and all operations read what he was given.
    """

    __slots__ = ("_compute", "_dtype", "_shape", "moments", "saved")

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        compute: Callable[[], NDArray[Any]],
        saved: SavedActivation | None = None,
        moments: NDArray[Any] | None = None,
    ) -> None:
        super().__init__(np.empty(0, dtype))
        self._array = None
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._compute: Callable[[], NDArray[Any]] | None = compute
        self.saved, self.moments = saved, moments

    @classmethod
    def of(cls, saved: SavedActivation, moments: NDArray[Any] | None = None) -> "LazyTensor":
        """The Tensor that a SavedActivation is of."""
        N, H, W, C = saved.operand().array.shape

        return cls((N, C, H, W), saved.operand().array.dtype, saved.materialize, saved, moments)

    def compute(self) -> NDArray[Any]:
        """The values, (N, H, W, C), of one that is not stored, for the caller alone."""
        assert self._compute is not None  # it is dropped when the values are stored
        return self._compute()

    def materialize(self) -> None:
        """Store the values from now on."""
        if self._array is None:
            self._store(nchw(self.compute()))

    def __reduce_ex__(self, protocol: Any) -> Any:  # of copies and pickles: they have values
        self.materialize()
        return super().__reduce_ex__(protocol)

    def _store(self, array: NDArray[Any]) -> None:
        self._array, self._compute, self.saved, self.moments = array, None, None, None

    @property
    def data(self) -> NDArray[Any]:
        if self._array is None:
            self.materialize()
        assert self._array is not None
        return self._array

    @data.setter
    def data(self, array):
        self._store(np.asanyarray(array))
        self.count_change()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape if self._array is None else self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype if self._array is None else self._array.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def unseen(y: NDArray[Any], moments: NDArray[Any] | None = None) -> Tensor:
    """The Tensor of an operation's result (N, H, W, C), an array that nobody has seen: lazy where operations are fused."""
    return LazyTensor.of(SavedActivation(Operand(y)), moments) if is_fusing() else Tensor(nchw(y))


def is_lazy(x: Tensor) -> TypeGuard[LazyTensor]:
    """Whether the Tensor x has no array that anybody but an operation could get at."""
    return isinstance(x, LazyTensor) and x._array is None


def saved(x: Tensor) -> SavedActivation:
    """The SavedActivation of the Tensor x (N, C, H, W)."""
    return x.saved if is_lazy(x) and x.saved is not None else SavedActivation(Operand(nhwc(x.data)))


def stored(x: Tensor) -> NDArray[Any]:
    """The values of the Tensor x, (N, H, W, C), for an operation that keeps them: the array that whoever looks will get."""
    if is_lazy(x) and x.saved is not None:
        return x.saved.array()
    return nhwc(x.data)


def values(x: Tensor) -> NDArray[Any]:
    """The values of the Tensor x, (N, H, W, C). Those that are not stored are computed for the caller alone."""
    return x.compute() if is_lazy(x) and x.saved is None else saved(x).values()


class NormGradient(LazyGradient):
    """∂L/∂x = a·dy + b·(x − mean) + d of a batch norm, as an ``Operand``: a convolution below computes it while packing."""

    def __init__(self, operand):
        self.operand = operand

    def array(self):
        return nchw(kernels.values(self.operand))

    def plus(self, other):
        return nchw(kernels.pointwise(self.operand, Epilogue(ADD, other=nhwc(other)))[0])


class ConvGradient(LazyGradient):
    """∂L/∂x = dy ∗ᵀ w + addend of a convolution: the ReLU and batch norm below finish it in the kernel's epilogue.

    dy: an ``Operand`` (N, OH, OW, O). w (KH, KW, I, O). geometry: (stride, padding, dilation, groups). addend (N, H, W, C):
    what the same tensor's gradient has got from elsewhere, such as the shortcut; or None.
    """

    def __init__(self, dy, w, x_shape, geometry, addend=None):
        self.dy, self.w, self.x_shape, self.geometry, self.addend = dy, w, x_shape, geometry, addend

    def finish(self, epilogue):
        """(dx (N, H, W, C), the epilogue's result): computed with an epilogue, which adds the addend first."""
        epilogue = epilogue._replace(other=self.addend)
        return kernels.conv2d_input_grad(self.dy, self.w, self.x_shape, *self.geometry, epilogue)

    def array(self):
        return nchw(self.finish(Epilogue(NOTHING if self.addend is None else ADD))[0])

    def plus(self, other):
        if self.addend is not None:
            return super().plus(other)
        return ConvGradient(self.dy, self.w, self.x_shape, self.geometry, nhwc(other))
