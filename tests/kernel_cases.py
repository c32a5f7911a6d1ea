"""What the tests of kernels share: how shapes are drawn, what arrays are filled with, how close is close."""

import numpy as np
from hypothesis import strategies as st

EPS = {np.dtype(t): float(np.finfo(t).eps) for t in (np.float32, np.float64)}
DTYPES = st.sampled_from([np.float32, np.float64])


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


def arrays(seed, dtype, *shapes):
    """Normal random arrays; every array of every call is different."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def assert_close(found, expected, bound, factor=16):
    """|found − expected| ≤ factor·ε·bound element by element; bound: the sum of the absolute values of what was added.

    ``expected`` is of float64 (the sum in another order, or by loops); ``found`` of the dtype under test.
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
    """(x shape, w shape, (stride, padding, dilation, groups)) of a convolution that has an output, in the kernels' order."""
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
    """(x shape, (kernel, stride, padding, dilation)); padding is at most half of the kernel, as in PyTorch."""
    kernel, stride, dilation = draw(pairs(1, 4)), draw(pairs(1, 3)), draw(pairs(1, 2))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    least = [max(1, d * (k - 1) + 1 - 2 * p, p * d) for k, d, p in zip(kernel, dilation, padding)]
    size = [draw(st.integers(low, max(low, most_size))) for low in least]
    shape = (draw(st.integers(1, 3)), *size, draw(st.integers(1, most_channels)))
    return shape, (kernel, stride, padding, dilation)
