"""Activations, softmax and dropout."""

import math

import numpy as np

from .. import kernels, random
from ..errors import ConfigError
from ..tensor import Op, Tensor
from .arithmetic import Binary, Unary, unbroadcast
from .checks import axis_in, needs_tensor, same_dtype

_erf = np.vectorize(math.erf, otypes=[np.float64])  # NumPy has none; gelu is here for comparison, not for speed


class ReLU(Unary):
    """y = max(x, 0). dx = dy where y > 0, else 0."""

    reads = ()

    def forward(self, x):
        self.y = kernels.relu(x)
        return self.y

    def backward(self, dy, needs):
        return (kernels.relu_grad(dy, self.y),)


class AddReLU(Binary):
    """y = max(a + b, 0), the end of a residual block. da = db = dy where y > 0: the shortcut's share is not scaled."""

    reads = ()
    residual = 0
    label = "add_relu"
    aliases = True  # both branches are handed the same array

    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        if a.shape != b.shape:
            shape = np.broadcast_shapes(a.shape, b.shape)
            a, b = (kernels.to_channels_last(np.broadcast_to(x, shape)) for x in (a, b))
        self.y = kernels.add_relu(a, b)
        return self.y

    def backward(self, dy, needs):
        dx = kernels.relu_grad(dy, self.y)
        return tuple(unbroadcast(dx, shape) if need else None for shape, need in zip(self.shapes, needs))


class LeakyReLU(Unary):
    """y = x where x > 0, else slope·x."""

    def __init__(self, negative_slope):
        self.negative_slope = negative_slope

    def forward(self, x):
        self.x = x
        return np.where(x > 0, x, x.dtype.type(self.negative_slope) * x)

    def slope(self):
        return np.where(self.x > 0, 1, self.negative_slope).astype(self.x.dtype)


class Sigmoid(Unary):
    """y = 1/(1 + e⁻ˣ). dx = dy·e/(1 + e)² with e = e⁻|ˣ|, that is dy·y·(1 − y) without the cancellation near y = 1."""

    reads = ()

    def forward(self, x):
        self.e = np.exp(-np.abs(x))  # never overflows
        return (np.where(x >= 0, 1, self.e) / (1 + self.e)).astype(x.dtype, copy=False)

    def slope(self):
        return self.e / (1 + self.e) ** 2


class Tanh(Unary):
    """y = tanh x. dx = dy·4e/(1 + e)² with e = e⁻²|ˣ|, that is dy·(1 − y²) without the cancellation near y = ±1."""

    def forward(self, x):
        self.x = x
        return np.tanh(x)

    def slope(self):
        e = np.exp(-2 * np.abs(self.x))
        return 4 * e / (1 + e) ** 2


class GELU(Unary):
    """y = x·Φ(x), Φ the normal distribution (Hendrycks & Gimpel 2016); or its approximation by tanh."""

    def __init__(self, approximate):
        self.approximate = approximate

    def forward(self, x):
        self.x = x
        if self.approximate == "tanh":
            near = np.clip(x, -50, 50)  # beyond, tanh is ±1, and x³ would overflow
            self.tanh = np.tanh(math.sqrt(2 / math.pi) * (near + 0.044715 * near**3)).astype(x.dtype, copy=False)
            return x * (1 + self.tanh) / 2
        self.cdf = ((1 + _erf(x / math.sqrt(2))) / 2).astype(x.dtype)
        return x * self.cdf

    def slope(self):
        x = np.clip(self.x, -50, 50)  # beyond, the slope is 0 or 1, and x² would overflow
        if self.approximate == "tanh":
            inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
            slope = (1 + self.tanh) / 2 + x * (1 - self.tanh**2) * inner / 2
        else:
            slope = self.cdf + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return slope.astype(x.dtype, copy=False)


def largest(x, dim):
    """The maxima along ``dim``, of length 1 there; −∞ where there is nothing."""
    return x.max(axis=dim, keepdims=True, initial=-np.inf)


class Softmax(Op):
    """y = eˣ/Σeˣ along ``dim``. dx = y·(dy − Σ dy·y)."""

    reads = ()

    def __init__(self, dim):
        self.dim = dim

    def forward(self, x):
        e = np.exp(x - largest(x, self.dim))
        self.y = e / e.sum(axis=self.dim, keepdims=True)
        return self.y

    def backward(self, dy, needs):
        return (self.y * (dy - (dy * self.y).sum(axis=self.dim, keepdims=True)),)


class LogSoftmax(Op):
    """y = x − ln Σeˣ along ``dim``. dx = dy − softmax(x)·Σ dy."""

    reads = ()

    def __init__(self, dim):
        self.dim = dim

    def forward(self, x):
        shifted = x - largest(x, self.dim)
        with np.errstate(divide="ignore"):  # a sum is 0 only along an empty axis
            self.y = shifted - np.log(np.exp(shifted).sum(axis=self.dim, keepdims=True))
        return self.y

    def backward(self, dy, needs):
        return (dy - np.exp(self.y) * dy.sum(axis=self.dim, keepdims=True),)


class Dropout(Op):
    """y = x·mask/(1 − p), each element kept with probability 1 − p (Srivastava et al. 2014). dx = dy·mask/(1 − p)."""

    reads = ()

    def __init__(self, p):
        self.p = p

    def forward(self, x):
        keep = random.generator().random(x.shape, dtype=np.float32) >= self.p
        self.scale, y = kernels.empty_like(x), kernels.empty_like(x)  # in x's memory order
        self.scale[...] = keep / (1 - self.p) if self.p < 1 else 0
        np.multiply(x, self.scale, out=y)
        return y

    def backward(self, dy, needs):
        return (dy * self.scale,)


def relu(x: Tensor) -> Tensor:
    """max(x, 0); NaN stays NaN. The slope at 0 is 0, as in PyTorch.

    >>> import minires as mr
    >>> mr.functional.relu(mr.tensor([-1.0, 2.0])).numpy()
    array([0., 2.], dtype=float32)
    """
    return ReLU().apply(x)


def add_relu(a: Tensor, b: Tensor) -> Tensor:
    """relu(a + b): the residual addition and the activation after it (He et al. 2015, Fig. 2).

    a: the output of the residual function; b: the shortcut. ``minires.lab`` tells them apart by their places.
    """
    return AddReLU().apply(a, b)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, else negative_slope·x (Maas et al. 2013)."""
    return LeakyReLU(negative_slope).apply(x)


def sigmoid(x: Tensor) -> Tensor:
    """1/(1 + e⁻ˣ)."""
    return Sigmoid().apply(x)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return Tanh().apply(x)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x·Φ(x) (Hendrycks & Gimpel 2016); ``approximate="tanh"`` is by far the cheaper form. ConfigError for another word."""
    if approximate not in ("none", "tanh"):
        raise ConfigError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")
    return GELU(approximate).apply(x)


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """eˣ/Σeˣ along ``dim``."""
    needs_tensor("softmax", x)
    same_dtype("softmax", x)
    return Softmax(axis_in("softmax", dim, x.ndim)).apply(x)


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """ln softmax(x) along ``dim``, without the overflow."""
    needs_tensor("log_softmax", x)
    same_dtype("log_softmax", x)
    return LogSoftmax(axis_in("log_softmax", dim, x.ndim)).apply(x)


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Each element 0 with probability p, the others divided by 1 − p; x itself when not training.

    The mask comes from the generator that ``mr.manual_seed`` seeds. ConfigError unless 0 ≤ p ≤ 1.
    """
    if not 0 <= p <= 1:
        raise ConfigError(f"dropout: p is a probability, from 0 to 1, not {p!r}")
    needs_tensor("dropout", x)
    same_dtype("dropout", x)
    return Dropout(p).apply(x) if training and p > 0 else x
