"""No kernel reads or writes out of bounds, and none relies on the contents of fresh memory."""

import numpy as np
import pytest
from everything import calls

from minires.kernels.compiled import backend as fast
from minires.kernels.compiled import channels, elementwise, linear, loss, normalization, pool, resize, shortcut
from minires.kernels.convolution import direct, direct_weight, groups, pointwise, winograd, winograd_weight
from minires.kernels.runtime import memory_pool as buffers

CONVOLUTION = (direct, direct_weight, winograd, winograd_weight, groups, pointwise)
BAND = 256  # elements before and after each array
MARK = 1.25e30


class Guard:
    """Allocates arrays filled with NaN between guard bands; ``check`` asserts that no band was written to."""

    def __init__(self):
        self.made = []

    def empty(self, shape, dtype):
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=int))
        memory = np.full(size + 2 * BAND, MARK if dtype.kind == "f" else 77, dtype)
        self.made.append(memory)
        inside = memory[BAND : BAND + size]
        inside[...] = np.nan if dtype.kind == "f" else -5
        return inside.reshape(shape)

    def empty_together(self, shapes, dtype):
        return [self.empty(shape, dtype) for shape in shapes]

    def between_nans(self, x):
        """A copy of x with NaN right before and after it, so that a read out of bounds shows in a result."""
        if x.dtype.kind != "f":
            return x
        memory = np.full(x.size + 2 * BAND, np.nan, x.dtype)
        memory[BAND : BAND + x.size] = x.ravel()
        return memory[BAND : BAND + x.size].reshape(x.shape)

    def check(self):
        for memory in self.made:
            mark = memory.dtype.type(MARK if memory.dtype.kind == "f" else 77)
            assert (memory[:BAND] == mark).all()
            assert (memory[-BAND:] == mark).all()


@pytest.fixture
def guard(monkeypatch):
    guard = Guard()
    monkeypatch.setattr(buffers, "empty", guard.empty)  # empty_like and zeros call it
    for module in (*CONVOLUTION, channels, linear, pool, elementwise, normalization, loss, resize, shortcut):
        for name in ("empty", "empty_together"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(guard, name))
    return guard


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_kernel_stays_inside_its_arrays(guard, dtype):
    expected = dict(enumerate(calls(dtype)))
    guard.made.clear()
    for i, (name, result) in enumerate(calls(dtype, guard.between_nans)):
        assert np.isfinite(result).all(), name
        np.testing.assert_array_equal(result, expected[i][1], name)
    assert len(guard.made) > 20
    guard.check()


@pytest.mark.parametrize("channels", [1, 3, 7, 8, 9, 15, 16, 17, 31, 33])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 7)])
def test_remainders_of_convolutions(guard, channels, size):
    rng = np.random.default_rng(0)
    for kernel, stride, padding in (((3, 3), (1, 1), (1, 1)), ((1, 1), (2, 2), (0, 0)), ((2, 3), (2, 1), (1, 2))):
        geometry = (stride, padding, (1, 1), 1)
        x = guard.between_nans(rng.standard_normal((2, *size, channels)).astype(np.float32))
        w = guard.between_nans(rng.standard_normal((*kernel, channels, channels + 2)).astype(np.float32))
        y = fast.conv2d(x, w, *geometry)
        dy = guard.between_nans(np.ones(y.shape, np.float32))
        dx = fast.conv2d_input_grad(dy, w, x.shape, *geometry)
        dw = fast.conv2d_weight_grad(x, dy, w.shape, *geometry)
        for result in (y, dx, dw):
            assert np.isfinite(result).all()
    guard.check()
