"""A table of cases for ``minires gradcheck``: every differentiable function, SGD's update and the running statistics.

``CASES[name]`` is a list of Case; ``select`` looks cases up and ``check`` runs one. A test fails when a function has no case.
Arrays are small, so that each of their elements is checked.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import functional as F
from .. import kernels, nn
from ..errors import ConfigError, nearest
from ..random import get_rng_state, manual_seed, set_rng_state
from ..tensor import Tensor
from .function import gradcheck
from .results import GradcheckResult
from .updates import RunningStatistics, SGDSteps

LABELS = np.array([2, 0, 3, 1])
X = (2, 3, 4, 5)  # a batch of two images

Shape = tuple[int, ...]
Inputs = Callable[..., tuple[tuple[str, Shape], ...]]  # shapes -> (a name in DRAW, the shape) for each


class Case(NamedTuple):
    """``function(*tensors)`` and its ``inputs``: for each argument an array, or (a name in DRAW, a shape) to draw one."""

    label: str
    function: Callable[..., Any]
    inputs: tuple[Any, ...]


def _apart(rng: np.random.Generator, shape: Shape) -> NDArray:
    """Values at least 0.2 apart and 0.1 from 0, so that no step crosses a kink or changes a maximum."""
    n = int(np.prod(shape))
    return 0.2 * (rng.permutation(n) - n // 2).reshape(shape) + 0.1


DRAW: dict[str, Callable[[np.random.Generator, Shape], NDArray]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "positive": lambda rng, shape: rng.uniform(0.5, 2, shape),
    "apart": _apart,
}


def draw(case: Case, dtype: DTypeLike = np.float64, seed: int = 0) -> list[NDArray]:
    """The case's arguments as ndarrays, images stored channels-last."""
    rng = np.random.default_rng(seed)
    drawn = [x if isinstance(x, np.ndarray) else np.asarray(DRAW[x[0]](rng, x[1]), dtype) for x in case.inputs]
    return [kernels.to_channels_last(x) for x in drawn]


def _of(kind: str) -> Inputs:
    return lambda *shapes: tuple((kind, shape) for shape in shapes)


normal, positive, apart = _of("normal"), _of("positive"), _of("apart")


def binary(f: Callable[..., Any], first: Inputs = normal, second: Inputs = normal) -> list[Case]:
    """Cases for an operation on two tensors, which are drawn by ``first`` and ``second``."""
    shapes: dict[str, tuple[Shape, Shape]] = {
        "one shape": ((3, 4), (3, 4)),
        "channels": (X, (3, 1, 1)),
        "both stretch": ((2, 1, 4), (3, 1)),
    }
    return [Case(label, f, (*first(a), *second(b))) for label, (a, b) in shapes.items()]


def conv(label: str, x: Shape, w: Shape, bias: bool = False, **settings: Any) -> Case:
    """A case for conv2d with x and w of these shapes."""
    return Case(label, lambda *v: F.conv2d(*v, **settings), normal(x, w, w[:1]) if bias else normal(x, w))


def batch_norm(label: str, shape: Shape, training: bool, affine: bool = True) -> Case:
    """A case for batch_norm with x of this shape."""

    def function(x: Tensor, *affine: Tensor) -> Tensor:
        mean, var = np.linspace(-1, 1, shape[1]), np.linspace(0.5, 2, shape[1])
        gamma, beta = affine or (None, None)
        return F.batch_norm(x, mean, var, gamma, beta, training=training)

    return Case(label, function, normal(shape, shape[1:2], shape[1:2]) if affine else normal(shape))


def block(label: str, function: Callable[..., Any], shortcut: bool = False, norm_first: bool = False) -> Case:
    """A case for ``function(x, conv, bn[, shortcut])``, a step of a residual block. Inputs: x, conv's weight, γ, β."""

    def run(x: Tensor, w: Tensor, gamma: Tensor, beta: Tensor, *shortcut: Tensor) -> Tensor:
        conv, bn = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(len(gamma.data))
        vars(conv).update(weight=w)
        vars(bn).update(weight=gamma, bias=beta)
        return function(x, conv, bn, *shortcut)

    C = (2,) if norm_first else (4,)
    return Case(label, run, normal((3, 2, 3, 3), (4, 2, 3, 3), C, C, *[(3, 4, 3, 3)] * shortcut))


def _pre_activation_end(x: Tensor, conv: nn.Conv2d, bn: nn.BatchNorm2d, shortcut: Tensor) -> Tensor:
    return F.bn_relu_conv_add(x, bn, conv, shortcut)


def _two_dropouts(x: Tensor) -> Tensor:
    return F.dropout(F.dropout(x, 0.3), 0.4)


def _fan_out(x: Any) -> Any:
    return x * x + F.relu(x) * 3 + x.exp()


def _crossing(x: Any) -> Any:
    """A graph with two shortcuts that cross each other."""
    a = x.tanh()
    b = a * x
    c = b + x.sigmoid()
    return c * a + b


CASES = {
    "add": binary(F.add),
    "sub": binary(F.sub),
    "mul": binary(F.mul),
    "div": binary(F.div, second=positive),
    "pow": [*binary(F.pow, first=positive), Case("square", lambda x: x**2, normal((3, 4)))],
    "neg": [Case("", F.neg, normal((3, 4)))],
    "exp": [Case("", F.exp, normal((3, 4)))],
    "log": [Case("", F.log, positive((3, 4)))],
    "sqrt": [Case("", F.sqrt, positive((3, 4)))],
    "abs": [Case("", F.abs, apart((3, 4))), Case("at 0", F.abs, (np.array([0.0, 2.0, -1.0]),))],
    "clip": [Case("both bounds", lambda x: F.clip(x, -0.8, 0.6), apart((3, 5)))],
    "relu": [Case("images", F.relu, apart(X)), Case("at 0", F.relu, (np.array([0.0, 2.0, -1.0]),))],
    "leaky_relu": [Case("slope 0.2", lambda x: F.leaky_relu(x, 0.2), apart((3, 4)))],
    "residual_add": [Case("one shape", F.residual_add, normal(X, X))],
    "add_relu": [
        Case("one shape", F.add_relu, normal(X, X)),
        Case("channels", F.add_relu, normal(X, (3, 1, 1))),
    ],
    "gelu": [Case(f"approximate {a}", lambda x, a=a: F.gelu(x, a), normal((3, 4))) for a in ("none", "tanh")],
    "sigmoid": [Case("", F.sigmoid, normal((3, 4)))],
    "tanh": [Case("", F.tanh, normal((3, 4)))],
    "softmax": [Case("rows", F.softmax, normal((3, 5))), Case("channels", lambda x: F.softmax(x, 1), normal(X))],
    "log_softmax": [Case("rows", F.log_softmax, normal((3, 5)))],
    "dropout": [
        Case("a fixed mask", lambda x: F.dropout(x, 0.4), normal(X)),
        Case("two", _two_dropouts, normal((4, 5))),
    ],
    "conv2d": [
        conv("3×3, bias", (2, 3, 5, 4), (2, 3, 3, 3), bias=True),
        conv("3×3, pad 1", (2, 2, 4, 5), (3, 2, 3, 3), padding=1),
        conv("3×3, stride 2, pad 1", (2, 2, 5, 6), (3, 2, 3, 3), stride=2, padding=1),
        conv("1×1, stride 2", (2, 3, 4, 5), (2, 3, 1, 1), stride=2),
        conv("uneven, groups 2", (1, 4, 7, 6), (2, 2, 2, 3), stride=(2, 1), padding=(1, 2), dilation=(2, 1), groups=2),
    ],
    "linear": [
        Case("rows", F.linear, normal((4, 3), (5, 3), (5,))),
        Case("square weight", F.linear, normal((4, 3), (3, 3))),
        Case("3-d", F.linear, normal((2, 3, 4), (2, 4), (2,))),
    ],
    "matmul": [
        Case("2-d", F.matmul, normal((3, 4), (4, 2))),
        Case("batches that broadcast", F.matmul, normal((2, 1, 3, 4), (3, 4, 2))),
    ],
    "batch_norm": [
        batch_norm("training", (3, 4, 3, 2), True),
        batch_norm("training, not affine", (2, 3, 3, 3), True, affine=False),
        batch_norm("training, features", (6, 5), True),
        batch_norm("evaluation", (3, 4, 3, 2), False),
    ],
    "max_pool2d": [
        Case("2×2", lambda x: F.max_pool2d(x, 2), apart(X)),
        Case("3×3, stride 2, pad 1", lambda x: F.max_pool2d(x, 3, 2, 1), apart((2, 2, 5, 6))),
        Case("a tie", lambda x: F.max_pool2d(x, 2), (np.array([[[[3.0, 3.0], [1.0, 2.0]]]]),)),
    ],
    "avg_pool2d": [
        Case("2×2", lambda x: F.avg_pool2d(x, 2), normal(X)),
        Case("3×3, stride 2, pad 1", lambda x: F.avg_pool2d(x, 3, 2, 1), normal((2, 2, 5, 6))),
    ],
    "global_avg_pool2d": [Case("", F.global_avg_pool2d, normal(X))],
    "global_max_pool2d": [Case("", F.global_max_pool2d, apart(X))],
    "interpolate": [
        Case("nearest", lambda x: F.interpolate(x, (3, 7)), normal(X)),
        Case("bilinear", lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), normal((2, 2, 3, 4))),
    ],
    "conv_bn": [block("", F.conv_bn)],
    "conv_bn_relu": [block("", F.conv_bn_relu)],
    "conv_bn_add_relu": [block("", F.conv_bn_add_relu, shortcut=True)],
    "bn_relu": [block("after a convolution", lambda x, conv, bn: F.bn_relu(conv(x), bn))],
    "bn_relu_conv": [block("", lambda x, conv, bn: F.bn_relu_conv(x, bn, conv), norm_first=True)],
    "bn_relu_conv_add": [block("", _pre_activation_end, shortcut=True, norm_first=True)],
    "cross_entropy": [
        Case(
            f"ε = {s}, {r}",
            lambda x, s=s, r=r: F.cross_entropy(x, LABELS, label_smoothing=s, reduction=r),
            normal((4, 5)),
        )
        for s, r in ((0.0, "mean"), (0.1, "mean"), (0.1, "none"))
    ],
    "mse_loss": [
        Case(r, lambda x, y, r=r: F.mse_loss(x, y, reduction=r), normal((4, 3), (4, 3))) for r in ("mean", "none")
    ],
    "sum": [
        Case("all", F.sum, normal((3, 4))),
        Case("channels", lambda x: F.sum(x, 1), normal(X)),
    ],
    "mean": [
        Case("all", F.mean, normal((3, 4))),
        Case("height and width", lambda x: F.mean(x, (2, 3), True), normal(X)),
    ],
    "max": [
        Case("all", F.max, apart((3, 4))),
        Case("rows", lambda x: F.max(x, 1), apart((3, 4))),
        Case("a tie", F.max, (np.array([3.0, 3.0, 1.0]),)),
    ],
    "reshape": [Case("to rows", lambda x: F.reshape(x, 6, 20), normal(X))],
    "flatten": [Case("from 1", lambda x: F.flatten(x, 1), normal(X))],
    "permute": [Case("", lambda x: F.permute(x, 3, 0, 2, 1), normal(X))],
    "transpose": [Case("", lambda x: F.transpose(x, 1, -1), normal(X))],
    "getitem": [
        Case("every second pixel", lambda x: x[:, :, ::2, ::2], normal(X)),
        Case("an array with repeats", lambda x: x[np.array([0, 2, 0, 1])], normal((3, 4))),
    ],
    "cat": [
        Case("channels", lambda *x: F.cat(x, 1), normal(X, (2, 1, 4, 5))),
        Case("rows", lambda *x: F.cat(x, 0), normal((2, 3), (1, 3))),
    ],
    "stack": [Case("last", lambda *x: F.stack(x, -1), normal((3, 4), (3, 4)))],
    "pad": [Case("channels", lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)), normal(X))],
    "zero_pad_shortcut": [Case("stride 2", lambda x: F.zero_pad_shortcut(x, 2, 1, 2), normal(X))],
    # not functions of minires.functional
    "fan-out": [Case("three uses", _fan_out, apart((3, 4))), Case("shortcuts that cross", _crossing, normal((3, 4)))],
    "SGD": [
        Case("momentum, decay", lambda *v: SGDSteps(nesterov=False).apply(*v), normal((3, 4), (3, 4), (3, 4))),
        Case("Nesterov", lambda *v: SGDSteps(nesterov=True).apply(*v), normal((3, 4), (3, 4), (3, 4))),
    ],
    "running statistics": [
        Case("training", lambda *v: RunningStatistics().apply(*v), normal((3, 4, 3, 2), (4,), (4,)))
    ],
}


def select(names: Iterable[str] = ()) -> list[tuple[str, Case]]:
    """[(name, Case)] for these names, by default for all. Raises ConfigError for a name that is not in the table."""
    for name in names:
        if name not in CASES:
            meant = nearest(name, CASES)
            there = "`minires gradcheck` lists them all" if meant else f"it has {', '.join(CASES)}"
            raise ConfigError(f"no operation {name!r} in the table{meant}: {there}")
    return [(name, case) for name in names or CASES for case in CASES[name]]


def check(name: str, case: Case, **settings: Any) -> GradcheckResult:
    """The GradcheckResult of one case, named like "conv2d: 3×3, pad 1". An exception counts as a wrong gradient."""
    title = f"{name}: {case.label}" if case.label else name
    rng_state = get_rng_state()
    manual_seed(0)  # for the mask of dropout
    try:
        return gradcheck(case.function, draw(case), name=title, raise_exception=False, **settings)
    except Exception as error:  # the other cases of the table must still be checked
        return GradcheckResult(title, error=f"{type(error).__name__}: {error}")
    finally:
        set_rng_state(rng_state)
