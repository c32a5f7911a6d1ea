"""Initialisation in place. Random values are drawn from the generator that ``mr.manual_seed`` seeds.

fan_in = I·KH·KW and fan_out = O·KH·KW for a weight (O, I, KH, KW). Each function changes ``tensor.data`` and returns the
tensor.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

from ..errors import ConfigError, ShapeError, nearest
from ..random import generator
from ..tensor import Tensor

Mode = Literal["fan_in", "fan_out"]

GAINS = {
    "linear": 1.0,
    "conv2d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "leaky_relu": math.sqrt(2),  # / sqrt(1 + a²), with the negative slope a
}


def calculate_gain(nonlinearity: str, a: float = 0.01) -> float:
    """The factor on the weights' standard deviation that makes up for a nonlinearity. ``a``: leaky relu's negative slope.

    Raises ConfigError for a nonlinearity that is not in GAINS.

    >>> calculate_gain("relu") ** 2
    2.0000000000000004
    """
    if nonlinearity not in GAINS:
        raise ConfigError(
            f"no gain is known for {nonlinearity!r}{nearest(nonlinearity, GAINS)}: choose one of {', '.join(GAINS)}"
        )
    return math.sqrt(2 / (1 + a * a)) if nonlinearity == "leaky_relu" else GAINS[nonlinearity]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out): the number of terms in the sum of one output, and the number of outputs that use one input.

    Raises ShapeError for fewer than two dimensions.

    >>> fans((64, 3, 7, 7))
    (147, 3136)
    """
    if len(shape) < 2:
        raise ShapeError(f"init: fan in and fan out need a weight of two dimensions or more, not shape {tuple(shape)}")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """x ~ N(mean, std²)."""
    return _fill(tensor, generator().standard_normal, std, mean)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """x ~ U[a, b)."""
    return _fill(tensor, generator().random, b - a, a)


def constant_(tensor: Tensor, value: float) -> Tensor:
    """x = value."""
    tensor.data[...] = value
    tensor.count_change()
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """x = 0."""
    return constant_(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    """x = 1."""
    return constant_(tensor, 1)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: Mode = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """x ~ N(0, gain² / fan), which keeps the variance of activations (mode="fan_in") or of gradients ("fan_out") the same
    from layer to layer. "Delving Deep into Rectifiers", He et al. 2015, §2.2."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)))


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: Mode = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """x ~ U[-b, b) with the variance of ``kaiming_normal_``: b = gain·sqrt(3 / fan)."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / _fan(tensor, mode))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """x ~ N(0, gain²·2 / (fan_in + fan_out)). "Understanding the difficulty …", Glorot & Bengio 2010, eq. 12."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor.shape))))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """x ~ U[-b, b) with the variance of ``xavier_normal_``: b = gain·sqrt(6 / (fan_in + fan_out)). Same paper, eq. 16."""
    bound = gain * math.sqrt(6 / sum(fans(tensor.shape)))
    return uniform_(tensor, -bound, bound)


def _fan(tensor: Tensor, mode: Mode) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ConfigError(f"init: mode is 'fan_in' or 'fan_out', not {mode!r}")
    return fans(tensor.shape)[mode == "fan_out"]


def _fill(tensor: Tensor, draw: Callable[..., Any], scale: float, shift: float) -> Tensor:
    """x = scale·draw + shift. A contiguous array is drawn in the order of its memory: 60 million weights stored as
    (KH, KW, I, O) take 1.0 s so, and 1.5 s when drawn as (O, I, KH, KW) and copied."""
    x = tensor.data
    memory = x.transpose(sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))
    if memory.flags.c_contiguous:
        draw(dtype=x.dtype, out=memory)
    else:
        x[...] = draw(x.shape, dtype=x.dtype)
    x *= x.dtype.type(scale)
    if shift:
        x += x.dtype.type(shift)
    tensor.count_change()
    return tensor
