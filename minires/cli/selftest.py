"""The self-test of ``minires doctor``: fast kernels against readable ones, and one thread against several."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from .. import data, kernels, optim
from .. import functional as F
from ..kernels.runtime.threads import get_num_threads
from ..tensor import Tensor

Function = Callable[..., Tensor]
Shape = tuple[int, ...]
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}  # relative to the largest value; the kernels sum in different orders


@dataclass
class Result:
    """One line of the self-test. note: the largest relative difference for each dtype, or the exception."""

    name: str
    passed: bool
    note: str = ""


def run() -> Iterator[Result]:
    """Yield a Result for each check. An exception counts as a failure."""
    for name, function, shapes in _checks():
        yield _check(name, partial(_differences, function, shapes))
    yield _check("augmentation", lambda: {"float32": _difference(_augmented, [])})
    most = max(2, get_num_threads())
    yield _check(f"same bits on 1 and {most} threads", lambda: {"": 0.0 if _bits(1) == _bits(most) else np.inf})


def _check(name: str, measure: Callable[[], dict[str, float]]) -> Result:
    """The Result of one check. measure() returns {dtype: largest relative difference}."""
    try:
        found = measure()
    except Exception as error:  # the other checks must still run
        return Result(name, False, f"{type(error).__name__}: {error}")
    notes = [f"{dtype} {'exact' if error == 0 else f'{error:.1e}'}".strip() for dtype, error in found.items()]
    note = "   ".join(f"{text:<15}" for text in notes).rstrip()
    return Result(name, all(error <= TOLERANCE.get(dtype, 0) for dtype, error in found.items()), note)


def _checks() -> Iterator[tuple[str, Function, list[Shape]]]:
    """Yield (name, function of tensors, shapes); outputs and all gradients are compared."""
    labels = np.arange(24) % 10

    def conv(stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1) -> Function:
        return lambda x, w: F.conv2d(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)

    def batch_norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.batch_norm(x, np.zeros(x.shape[1], x.dtype), np.ones(x.shape[1], x.dtype), w, b, training=True)

    yield "convolution 3×3", conv(padding=1), [(4, 16, 13, 13), (32, 16, 3, 3)]
    yield "convolution 3×3, stride 2", conv(2, 1), [(4, 16, 16, 16), (32, 16, 3, 3)]
    yield "convolution 1×1", conv(), [(4, 20, 9, 9), (12, 20, 1, 1)]
    yield "convolution 7×7, stride 2", conv(2, 3), [(2, 3, 30, 30), (24, 3, 7, 7)]
    yield "convolution, dilated, grouped", conv(1, 2, 2, 4), [(2, 16, 11, 11), (8, 4, 3, 3)]
    yield "batch norm", batch_norm, [(8, 16, 7, 7), (16,), (16,)]
    yield "ReLU", F.relu, [(8, 16, 7, 7)]
    yield "residual addition and ReLU", F.add_relu, [(8, 16, 7, 7), (8, 16, 7, 7)]
    yield "max pooling", lambda x: F.max_pool2d(x, 3, 2, 1), [(4, 16, 15, 15)]
    yield "average pooling", lambda x: F.avg_pool2d(x, 2), [(4, 16, 14, 14)]
    yield "linear", F.linear, [(24, 64), (10, 64), (10,)]
    yield "cross-entropy", lambda x: F.cross_entropy(x, labels, label_smoothing=0.1), [(24, 10)]
    yield "SGD step", _sgd, [(32, 16, 3, 3), (32, 16, 3, 3)]


def _arrays(shapes: Sequence[Shape], dtype: str) -> list[NDArray]:
    rng = np.random.default_rng(0)
    return [kernels.to_channels_last(rng.standard_normal(shape).astype(dtype)) for shape in shapes]


def _sgd(w: Tensor, dw: Tensor) -> Tensor:
    """w after two steps, so that momentum has an effect. Detached, since there is no gradient to compare."""
    w = Tensor(w.data.copy(order="K"), requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=True)
    for _ in range(2):
        w.grad = dw.data.copy(order="K")
        optimizer.step()
    return w.detach()


def _augmented() -> Tensor:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    dataset = data.Dataset(images, np.zeros(16, np.int64), ("one",), "self-test")
    loader = data.Loader(dataset, 16, augment=data.Augmentation(cutout=8), prefetch=0)
    return Tensor(next(iter(loader))[0])


def _run(function: Function, arrays: Sequence[NDArray]) -> list[NDArray]:
    """The output and the gradients of all inputs, as arrays."""
    inputs = [Tensor(array, requires_grad=True) for array in arrays]
    y = function(*inputs)
    if y.requires_grad:
        y.backward(np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype))
    return [y.data, *(x.grad for x in inputs if x.grad is not None)]


def _differences(function: Function, shapes: Sequence[Shape]) -> dict[str, float]:
    return {dtype: _difference(function, _arrays(shapes, dtype)) for dtype in TOLERANCE}


def _difference(function: Function, arrays: Sequence[NDArray]) -> float:
    """The largest difference of outputs and gradients between the back ends, relative to the largest value."""
    with kernels.backend("reference"):
        expected = _run(function, arrays)
    with kernels.backend("numba"):
        found = _run(function, arrays)
    differences = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, expected, strict=True)]
    return float(np.max(differences))  # of Python's max a NaN need not be the result


def _bits(threads: int) -> list[bytes]:
    """All outputs and gradients in float32, as bytes."""
    with _num_threads(threads):
        return [a.tobytes() for _, function, shapes in _checks() for a in _run(function, _arrays(shapes, "float32"))]


@contextmanager
def _num_threads(threads: int) -> Iterator[None]:
    """Inside, kernels run on this number of threads."""
    before = kernels.get_num_threads()
    kernels.set_num_threads(threads)
    try:
        yield
    finally:
        kernels.set_num_threads(before)
