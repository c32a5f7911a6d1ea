"""Kernels compute addresses from shapes, so arrays that do not match are refused before any of them is read."""

import numpy as np
import pytest

from minires import kernels
from minires.errors import DataError, DtypeError, ShapeError
from minires.kernels.compiled import backend as fast

A, B = np.ones((4, 6), np.float32), np.ones((4, 7), np.float32)
X, W = np.ones((2, 6, 6, 4), np.float32), np.ones((3, 3, 4, 8), np.float32)
GEOMETRY = (1, 1), (1, 1), (1, 1), 1
PER_CHANNEL = np.ones(7)

CALLS = {
    "add": lambda: fast.add(
        np.ones((300, 300), np.float32), np.ones((300, 200), np.float32), np.ones((300, 300), np.float32)
    ),
    "add_relu": lambda: fast.add_relu(A, B),
    "relu_grad": lambda: fast.relu_grad(A, B),
    "matmul": lambda: fast.matmul(A, B),
    "conv2d, channels": lambda: fast.conv2d(X, np.ones((3, 3, 5, 8), np.float32), *GEOMETRY),
    "conv2d, groups": lambda: fast.conv2d(X, np.ones((3, 3, 2, 7), np.float32), *GEOMETRY[:3], 2),
    "conv2d_input_grad": lambda: fast.conv2d_input_grad(np.ones((2, 5, 6, 8), np.float32), W, X.shape, *GEOMETRY),
    "conv2d_weight_grad": lambda: fast.conv2d_weight_grad(X, np.ones((2, 6, 6, 9), np.float32), W.shape, *GEOMETRY),
    "batch_norm": lambda: fast.batch_norm(A, PER_CHANNEL, PER_CHANNEL, PER_CHANNEL),
    "batch_norm_grad": lambda: fast.batch_norm_grad(A, A, PER_CHANNEL, PER_CHANNEL, PER_CHANNEL, True),
    "batch_norm_grad, dy": lambda: fast.batch_norm_grad(A, B, PER_CHANNEL, PER_CHANNEL, PER_CHANNEL, True),
    "max_pool2d_grad": lambda: fast.max_pool2d_grad(X, np.zeros((2, 3, 3, 4), np.int32), X.shape),
    "max_pool2d_grad, images": lambda: fast.max_pool2d_grad(X, np.zeros(X.shape, np.int32), (1, 9, 9, 4)),
    "avg_pool2d_grad": lambda: fast.avg_pool2d_grad(X, (2, 9, 9, 4), (2, 2), (2, 2), (0, 0), True),
    "cross_entropy_grad": lambda: fast.cross_entropy_grad(A, np.zeros(4, np.int64), 0.0, A[0]),
    "cross_entropy": lambda: fast.cross_entropy(A, np.zeros(5, np.int64), 0.0),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_mismatched_shapes(call):
    with pytest.raises(ShapeError, match=r"\(\d.*\)"):
        call()


def test_labels_out_of_range():
    with pytest.raises(DataError, match=r"label 6 of sample 2 is outside \[0, 6\)"):
        fast.cross_entropy(A, np.array([0, 1, 6, 2]), 0.0)


def test_mismatched_dtypes():
    with pytest.raises(DtypeError, match="float64"):
        fast.matmul(A, B.T.astype(np.float64))
    with pytest.raises(DtypeError, match="int64"):
        fast.conv2d(X.astype(np.int64), W.astype(np.int64), *GEOMETRY)


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_the_update_refuses_a_mismatched_gradient(backend):
    with kernels.backend(backend):
        for grad in (np.ones(3, np.float32), np.ones((1, 5), np.float32), np.ones(5)):
            with pytest.raises((ShapeError, DtypeError)):
                kernels.sgd_step([np.ones(5, np.float32)], [grad], None, 0.1, 0.0, 0.0, False)


def test_the_update_refuses_a_read_only_parameter():
    frozen = np.frombuffer(np.ones(5, np.float32).tobytes(), np.float32)
    with pytest.raises(ShapeError, match="writeable"):
        kernels.sgd_step([frozen], [np.ones(5, np.float32)], None, 0.1, 0.0, 0.0, False)
