"""Binds operators and methods to Tensor, explicitly: what ``x + y`` and ``x.mean()`` call stands here, line by line."""

from .ops import activation, arithmetic, linear, reduction, shape
from .ops.checks import as_tensor
from .tensor import Tensor


def _method(function):
    """A method that also takes NumPy's ``axis`` and ``keepdims``."""

    def method(self, dim=None, keepdim=False, *, axis=None, keepdims=False):
        return function(self, dim if axis is None else axis, keepdim or keepdims)

    method.__doc__ = function.__doc__
    return method


Tensor.__add__ = Tensor.__radd__ = lambda self, other: arithmetic.add(self, other)
Tensor.__sub__ = lambda self, other: arithmetic.sub(self, other)
Tensor.__rsub__ = lambda self, other: arithmetic.sub(as_tensor(other, self), self)
Tensor.__mul__ = Tensor.__rmul__ = lambda self, other: arithmetic.mul(self, other)
Tensor.__truediv__ = lambda self, other: arithmetic.div(self, other)
Tensor.__rtruediv__ = lambda self, other: arithmetic.div(as_tensor(other, self), self)
Tensor.__pow__ = lambda self, other: arithmetic.pow(self, other)
Tensor.__rpow__ = lambda self, other: arithmetic.pow(as_tensor(other, self), self)
Tensor.__neg__ = arithmetic.neg
Tensor.__matmul__ = lambda self, other: linear.matmul(self, as_tensor(other, self))
Tensor.__rmatmul__ = lambda self, other: linear.matmul(as_tensor(other, self), self)
Tensor.__getitem__ = shape.getitem
Tensor.__hash__ = object.__hash__

Tensor.exp = arithmetic.exp
Tensor.log = arithmetic.log
Tensor.sqrt = arithmetic.sqrt
Tensor.abs = arithmetic.abs
Tensor.clip = Tensor.clamp = arithmetic.clip
Tensor.sum = _method(reduction.sum)
Tensor.mean = _method(reduction.mean)
Tensor.max = _method(reduction.max)
Tensor.reshape = Tensor.view = shape.reshape
Tensor.flatten = shape.flatten
Tensor.permute = shape.permute
Tensor.transpose = shape.transpose
Tensor.T = property(lambda self: shape.permute(self, *range(self.ndim)[::-1]))
Tensor.relu = activation.relu
Tensor.sigmoid = activation.sigmoid
Tensor.tanh = activation.tanh
Tensor.softmax = activation.softmax
Tensor.log_softmax = activation.log_softmax
Tensor.astype = arithmetic.astype
