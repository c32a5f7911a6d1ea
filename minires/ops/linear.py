"""Matrix products."""

import numpy as np

from .. import kernels
from ..errors import ShapeError
from ..tensor import Op, Tensor
from .arithmetic import unbroadcast
from .checks import needs_tensor, same_dtype


def product(a, b, weights=False):
    """a·b; with four axes stored channels-last, as everything is. weights: b follows from weights alone."""
    return kernels.to_channels_last(kernels.matmul(a, b, weights))


class MatMul(Op):
    """y = a·b. da = dy·bᵀ, db = aᵀ·dy; leading axes broadcast."""

    reads = ((1,), (0,))

    def forward(self, a, b):
        self.a, self.b = a, b
        return product(a, b)

    def backward(self, dy, needs):
        a, b = self.a, self.b
        da = unbroadcast(product(dy, b.swapaxes(-1, -2)), a.shape) if needs[0] else None
        db = unbroadcast(product(a.swapaxes(-1, -2), dy), b.shape) if needs[1] else None
        return da, db


class Linear(Op):
    """y = x·wᵀ + b. dx = dy·w, dw = dyᵀ·x, db = Σ dy."""

    reads = ((1,), (0,), ())

    def forward(self, x, w, b=None):
        self.x, self.w = x, w
        y = product(x, w.T, weights=True)  # (…, I)·(I, O) → (…, O)
        if b is not None:
            kernels.also(np.add, y, b, out=y)
        return y

    def backward(self, dy, needs):
        dx = dw = db = None
        rows = kernels.reshaped(dy, (-1, dy.shape[-1]))  # (rows, O)
        if needs[0]:
            dx = product(dy, self.w)
        if needs[1]:
            dw = kernels.matmul(rows.T, kernels.reshaped(self.x, (-1, self.x.shape[-1])))
        if needs[2:] == (True,):
            db = unbroadcast(rows, rows.shape[1:])
        return dx, dw, db


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a (…, M, K) · b (…, K, N) → (…, M, N). One-dimensional arguments are taken as in np.matmul."""
    needs_tensor("matmul", a, b)
    same_dtype("matmul", a, b)
    if not a.ndim or not b.ndim or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ShapeError(f"matmul: shapes {a.shape} and {b.shape} do not go together")
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(f"matmul: leading axes of shapes {a.shape} and {b.shape} do not broadcast") from None
    y = MatMul().apply(a.reshape(1, -1) if a.ndim == 1 else a, b.reshape(-1, 1) if b.ndim == 1 else b)
    if a.ndim > 1 and b.ndim > 1:
        return y
    shape = y.shape[:-2] + y.shape[-2:-1] * (a.ndim > 1) + y.shape[-1:] * (b.ndim > 1)
    return y.reshape(shape)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·weightᵀ + bias. x (…, I), weight (O, I), bias (O,) or None → (…, O).

    >>> import numpy as np, minires as mr
    >>> mr.functional.linear(mr.tensor(np.ones((2, 3))), mr.tensor(np.ones((4, 3)))).shape
    (2, 4)
    """
    inputs = (x, weight) if bias is None else (x, weight, bias)
    needs_tensor("linear", *inputs)
    same_dtype("linear", *inputs)
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: input of shape {x.shape} and weight of shape {weight.shape} (O, I) do not go together"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"linear: bias of shape {bias.shape} for weight of shape {weight.shape}")
    if x.ndim == 1:
        return Linear().apply(x.reshape(1, -1), *inputs[1:]).reshape(-1)
    return Linear().apply(*inputs)
