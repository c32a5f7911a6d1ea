"""Shared by the tests of kernels: how shapes are drawn, what arrays are filled with, and error bounds."""

from types import SimpleNamespace

import numpy as np
from hypothesis import strategies as st

from minires.kernels.convolution import direct, direct_weight, winograd, winograd_weight
from minires.kernels.convolution.work_items import problem_of
from minires.kernels.descriptors import STORE, as_operand

EPS = {np.dtype(t): float(np.finfo(t).eps) for t in (np.float32, np.float64)}
DTYPES = st.sampled_from([np.float32, np.float64])


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


def arrays(seed, dtype, *shapes):
    """Arrays of normally distributed random numbers, all different."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def assert_close(found, expected, bound, factor=16):
    """Assert that |found − expected| ≤ factor·ε·bound elementwise. bound: the sum of the terms' absolute values.

    ``expected`` is float64 (summed in another order, or by loops); ``found`` has the dtype under test.
    """
    found = np.asarray(found)
    assert found.shape == expected.shape
    allowed = factor * EPS[found.dtype] * (np.abs(bound) + 1e-30)
    wrong = ~(np.abs(found - expected) <= allowed)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} differ; the first at {at}: {found[at]!r} instead of {expected[at]!r}, "
            f"allowed difference {np.broadcast_to(allowed, found.shape)[at]:.2e}"
        )


@st.composite
def convolutions(draw, most_kernel, most_channels, most_extra, most_images=4):
    """(x shape, w shape, (stride, padding, dilation, groups)) of a convolution with an output, in the kernels' order."""
    kernel, stride = draw(pairs(1, most_kernel)), draw(pairs(1, 3))
    dilation = (
        draw(pairs(1, 3)) if most_kernel <= 5 else draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 2), (3, 3)]))
    )
    padding = draw(pairs(0, 4))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    size = [max(1, r - 2 * p) + draw(st.integers(0, most_extra)) for r, p in zip(reach, padding)]
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    ins, outs = draw(st.integers(1, most_channels)), draw(st.integers(1, most_channels))
    images = draw(st.integers(1, most_images))
    return (images, *size, ins * groups), (*kernel, ins, outs * groups), (stride, padding, dilation, groups)


@st.composite
def poolings(draw, most_size=12, most_channels=40):
    """(x shape, (kernel, stride, padding, dilation)); padding is at most half the kernel, as in PyTorch."""
    kernel, stride, dilation = draw(pairs(1, 4)), draw(pairs(1, 3)), draw(pairs(1, 2))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    least = [max(1, d * (k - 1) + 1 - 2 * p, p * d) for k, d, p in zip(kernel, dilation, padding)]
    size = [draw(st.integers(low, max(low, most_size))) for low in least]
    shape = (draw(st.integers(1, 3)), *size, draw(st.integers(1, most_channels)))
    return shape, (kernel, stride, padding, dilation)


def algorithm(forward, weight):
    """One convolution algorithm with the functions of a back end, without the choice between algorithms."""

    def conv2d(x, w, *geometry, epilogue=STORE):
        x = as_operand(x)
        return forward.convolve(problem_of(x.array.shape, w.shape, *geometry), x, w, epilogue)

    def conv2d_input_grad(dy, w, x_shape, *geometry, epilogue=STORE):
        return forward.convolve_input_grad(problem_of(x_shape, w.shape, *geometry), as_operand(dy), w, epilogue)

    def conv2d_weight_grad(x, dy, w_shape, *geometry):
        x = as_operand(x)
        return weight.convolve_weight_grad(problem_of(x.array.shape, w_shape, *geometry), x, as_operand(dy))

    return SimpleNamespace(
        conv2d=lambda *args: conv2d(*args)[0],
        conv2d_input_grad=lambda *args: conv2d_input_grad(*args)[0],
        conv2d_weight_grad=conv2d_weight_grad,
        finished=conv2d,  # takes an epilogue, and returns its result as well
        finished_input_grad=conv2d_input_grad,
    )


DIRECT, WINOGRAD = algorithm(direct, direct_weight), algorithm(winograd, winograd_weight)
