"""Element-wise arithmetic with broadcasting. Where an input was broadcast, its gradient is summed over the copies."""

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import kernels
from ..errors import DtypeError, ShapeError
from ..tensor import Op, Tensor
from .checks import as_tensor, needs_tensor, same_dtype


def unbroadcast(dy, shape):
    """Sum dy down to ``shape``, the shape that was broadcast: the transpose of broadcasting."""
    if dy.shape == shape:
        return dy
    lead = dy.ndim - len(shape)
    stretched = tuple(axis + lead for axis, n in enumerate(shape) if n == 1 and dy.shape[axis + lead] != 1)
    # In float64: along leading axes NumPy adds one by one, and a million terms lose three digits of float32.
    axes = (*range(lead), *stretched)
    total, result = np.empty([1 if i in axes else n for i, n in enumerate(dy.shape)]), np.empty(shape, dy.dtype)
    kernels.also(np.sum, dy, axis=axes, keepdims=True, dtype=np.float64, out=total)
    kernels.also(np.copyto, result, total.reshape(shape))
    return result


class Binary(Op):
    """An operation on two arrays that broadcast against each other."""

    def apply(self, a, b):
        if isinstance(a, Tensor):
            b = as_tensor(b, a)
        else:
            needs_tensor(self.name, b)
            a = as_tensor(a, b)
        same_dtype(self.name, a, b)
        try:
            np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            raise ShapeError(f"{self.name}: shapes {a.shape} and {b.shape} do not broadcast") from None
        return super().apply(a, b)


def elementwise(function, a, b):
    """function(a, b); where they broadcast to images, NumPy would take whatever order in memory."""
    y = function(a, b)
    return y if a.shape == b.shape else kernels.to_channels_last(y)


class Add(Binary):
    """y = a + b. da = dy, db = dy: an addition hands the same gradient to both branches."""

    reads = ()
    aliases = True

    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return kernels.add(a, b) if a.shape == b.shape else elementwise(np.add, a, b)

    def backward(self, dy, needs):
        return tuple(unbroadcast(dy, shape) if need else None for shape, need in zip(self.shapes, needs))


class ResidualAdd(Add):
    """y = F + s: the addition that ends a residual block, of the residual function's output F and the shortcut's s."""

    label = "residual_add"
    residual = 0

    def apply(self, branch, shortcut):
        shapes = [getattr(x, "shape", ()) for x in (branch, shortcut)]
        if shapes[0] != shapes[1]:
            raise ShapeError(
                f"{self.name}: the branch has shape {shapes[0]} and the shortcut {shapes[1]}; both need the same"
            )
        return super().apply(branch, shortcut)


class Sub(Binary):
    """y = a − b. da = dy, db = −dy."""

    reads = ()
    aliases = True

    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return elementwise(np.subtract, a, b)

    def backward(self, dy, needs):
        return (
            unbroadcast(dy, self.shapes[0]) if needs[0] else None,
            unbroadcast(-dy, self.shapes[1]) if needs[1] else None,
        )


class Mul(Binary):
    """y = a·b. da = dy·b, db = dy·a."""

    reads = ((1,), (0,))

    def forward(self, a, b):
        self.a, self.b = a, b
        return elementwise(np.multiply, a, b)

    def backward(self, dy, needs):
        return (
            unbroadcast(dy * self.b, self.a.shape) if needs[0] else None,
            unbroadcast(dy * self.a, self.b.shape) if needs[1] else None,
        )


class Div(Binary):
    """y = a/b. da = dy/b, db = −da·a/b: b², which over- and underflows long before a gradient does, is not computed."""

    reads = ((1,), (0, 1))

    def forward(self, a, b):
        self.a, self.b = a, b
        return elementwise(np.divide, a, b)

    def backward(self, dy, needs):
        da = dy / self.b
        return (
            unbroadcast(da, self.a.shape) if needs[0] else None,
            unbroadcast(-da * (self.a / self.b), self.b.shape) if needs[1] else None,
        )


class Pow(Binary):
    """y = aᵇ. da = dy·b·aᵇ⁻¹, db = dy·aᵇ·ln a. Where aᵇ⁻¹ may leave the range of float32, in float64."""

    def forward(self, a, b):
        self.a, self.b = a, b
        self.y = elementwise(np.power, a, b)
        return self.y

    def backward(self, dy, needs):
        a, b = self.a, self.b
        da = db = None
        if needs[0]:
            exponent = b - (b != 0)  # 0⁰ has slope 0, not 0·0⁻¹
            in_range = ((exponent >= -0.5) & (exponent <= 1)).all()  # whatever a is, as with squares and square roots
            power = (a if in_range else a.astype(np.float64, copy=False)) ** exponent
            da = unbroadcast((dy * power * b).astype(dy.dtype, copy=False), a.shape)
        if needs[1]:
            log = np.log(np.where((a == 0) & (b >= 0), 1, a)).astype(a.dtype, copy=False)  # 0·ln 0 is 0
            db = unbroadcast(dy * self.y * log, b.shape)
        return da, db


class Unary(Op):
    """An element-wise function y = f(x) with dx = dy·f′(x); ``slope()`` is f′(x)."""

    def apply(self, x):
        needs_tensor(self.name, x)
        same_dtype(self.name, x)
        return super().apply(x)

    def backward(self, dy, needs):
        return (dy * self.slope(),)

    def slope(self):
        raise NotImplementedError(f"{type(self).__name__} has neither slope() nor backward()")


class Neg(Unary):
    """y = −x. dx = −dy."""

    reads = ()

    def forward(self, x):
        return -x

    def backward(self, dy, needs):
        return (-dy,)


class Exp(Unary):
    """y = eˣ. dx = dy·y."""

    reads = ()

    def forward(self, x):
        self.y = np.exp(x)
        return self.y

    def slope(self):
        return self.y


class Log(Unary):
    """y = ln x. dx = dy/x."""

    def forward(self, x):
        self.x = x
        return np.log(x)

    def backward(self, dy, needs):
        return (dy / self.x,)


class Sqrt(Unary):
    """y = √x. dx = dy/(2y)."""

    reads = ()

    def forward(self, x):
        self.y = np.sqrt(x)
        return self.y

    def backward(self, dy, needs):
        return (dy / (2 * self.y),)


class Abs(Unary):
    """y = |x|. dx = dy·sign(x), 0 at the kink."""

    def forward(self, x):
        self.x = x
        return np.abs(x)

    def slope(self):
        return np.sign(self.x)


class Clip(Unary):
    """y = min(max(x, low), high). dx = dy where low ≤ x ≤ high, else 0."""

    reads = ()

    def __init__(self, low, high):
        self.low, self.high = low, high  # arrays of x's dtype that broadcast against x

    def forward(self, x):
        self.shape, self.inside = x.shape, (x >= self.low) & (x <= self.high)
        y = np.minimum(np.maximum(x, self.low), self.high)
        return y if y.shape == x.shape else kernels.to_channels_last(y)

    def backward(self, dy, needs):
        return (unbroadcast(np.where(self.inside, dy, 0).astype(dy.dtype, copy=False), self.shape),)


class Cast(Unary):
    """y = x in another float dtype. dx = dy in x's."""

    reads = ()

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)

    def forward(self, x):
        self.before = x.dtype
        return x.astype(self.dtype, order="K")

    def backward(self, dy, needs):
        return (dy.astype(self.before, order="K"),)


def residual_add(branch: Tensor, shortcut: Tensor) -> Tensor:
    """branch + shortcut, where a residual block y = F(x) + x ends: ``minires.lab`` then knows which one is F(x).

    Raises ShapeError for two shapes.

    >>> import minires as mr
    >>> x = mr.tensor([1.0, 2.0])
    >>> mr.functional.residual_add(x * 3, x).numpy()
    array([4., 8.], dtype=float32)
    """
    return ResidualAdd().apply(branch, shortcut)


def add(a: Tensor | ArrayLike, b: Tensor | ArrayLike) -> Tensor:
    """a + b with broadcasting. Tensors of one float dtype; a Python or NumPy scalar takes the tensor's dtype."""
    return Add().apply(a, b)


def sub(a: Tensor | ArrayLike, b: Tensor | ArrayLike) -> Tensor:
    """a − b with broadcasting."""
    return Sub().apply(a, b)


def mul(a: Tensor | ArrayLike, b: Tensor | ArrayLike) -> Tensor:
    """a · b with broadcasting."""
    return Mul().apply(a, b)


def div(a: Tensor | ArrayLike, b: Tensor | ArrayLike) -> Tensor:
    """a / b with broadcasting."""
    return Div().apply(a, b)


def pow(a: Tensor | ArrayLike, b: Tensor | ArrayLike) -> Tensor:
    """aᵇ with broadcasting; the gradient by b needs a ≥ 0."""
    return Pow().apply(a, b)


def neg(x: Tensor) -> Tensor:
    """−x."""
    return Neg().apply(x)


def exp(x: Tensor) -> Tensor:
    """eˣ."""
    return Exp().apply(x)


def log(x: Tensor) -> Tensor:
    """The natural logarithm."""
    return Log().apply(x)


def sqrt(x: Tensor) -> Tensor:
    """√x."""
    return Sqrt().apply(x)


def abs(x: Tensor) -> Tensor:
    """|x|; the slope at 0 is 0, as in PyTorch."""
    return Abs().apply(x)


def clip(x: Tensor, min: ArrayLike | None = None, max: ArrayLike | None = None) -> Tensor:
    """x limited to [min, max]; either bound may be None. The gradient passes on the bounds, as in PyTorch.

    min, max: numbers, or arrays that broadcast against x; they are converted to x's dtype and get no gradient. Raises
    ShapeError and DtypeError.
    """
    needs_tensor("clip", x)
    same_dtype("clip", x)
    return Clip(_bound(x, "min", min, -np.inf), _bound(x, "max", max, np.inf)).apply(x)


def _bound(x, name, value, otherwise):
    """A bound of ``clip`` as an array of x's dtype; ``otherwise`` for None."""
    if isinstance(value, Tensor) and value.requires_grad:
        raise DtypeError(f"clip: {name} is a constant, and this Tensor requires a gradient: pass {name}.detach()")
    bound = np.asarray(otherwise if value is None else value)
    if bound.dtype.kind not in "fiub":
        raise DtypeError(f"clip: {name} is a number, an array of numbers or None, not {value!r}")
    try:
        np.broadcast_shapes(x.shape, bound.shape)
    except ValueError:
        raise ShapeError(f"clip: x of shape {x.shape} and {name} of shape {bound.shape} do not broadcast") from None
    with np.errstate(over="ignore"):  # 1e300 bounds a float32 as inf does
        return bound.astype(x.dtype)


def astype(x: Tensor, dtype: DTypeLike) -> Tensor:
    """x in another dtype. Between float32 and float64 gradients pass, in x's dtype; integers end the graph.

    DtypeError for a dtype that minires does not compute in, such as float16.
    """
    dtype = np.dtype(dtype)
    if dtype.kind not in "iub" and dtype not in (np.float32, np.float64):
        raise DtypeError(f"astype: {dtype} is not supported; use float32, float64 or an integer dtype")
    if dtype.kind != "f" or x.dtype.kind != "f":
        return Tensor(x.data.astype(dtype, order="K"))
    return Cast(dtype).apply(x)
