"""Convolution: compiled kernels against the reference, the reference against naive loops."""

import numpy as np
import pytest
import reference_loops as loops
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import DTYPES, arrays, assert_close, convolutions

import minires as mr
from minires.kernels import reference
from minires.kernels.compiled import backend as fast
from minires.kernels.convolution import direct_plan
from minires.kernels.convolution.work_items import problem_of

SEEDS = st.integers(0, 2**32 - 1)


def out_shape(x_shape, w_shape, stride, padding, dilation, groups):
    sizes = zip(x_shape[1:3], w_shape[:2], stride, padding, dilation)
    return (x_shape[0], *[loops.out_length(*each) for each in sizes], w_shape[3])


def three(module, x, w, dy, geometry):
    """y, dx and dw."""
    return (
        module.conv2d(x, w, *geometry),
        module.conv2d_input_grad(dy, w, x.shape, *geometry),
        module.conv2d_weight_grad(x, dy, w.shape, *geometry),
    )


@pytest.fixture(autouse=True)
def direct():
    """The Winograd algorithm has its own tests, with other error bounds."""
    with mr.winograd(False):
        yield


def check(x_shape, w_shape, geometry, dtype, seed, tested, oracle):
    """y, dx and dw of ``tested`` in ``dtype`` against ``oracle`` in float64, within ε times the sum of absolute products."""
    x, w, dy = arrays(seed, dtype, x_shape, w_shape, out_shape(x_shape, w_shape, *geometry))
    found = three(tested, x, w, dy, geometry)
    expected = three(oracle, *(a.astype(np.float64) for a in (x, w, dy)), geometry)
    bounds = three(reference, *(np.abs(a).astype(np.float64) for a in (x, w, dy)), geometry)
    for name, f, e, bound in zip(("y", "dx", "dw"), found, expected, bounds):
        assert f.dtype == dtype, name
        assert f.flags.c_contiguous, name
        assert_close(f, e, bound)


@given(convolutions(most_kernel=4, most_channels=40, most_extra=12), DTYPES, SEEDS)
def test_fast_against_reference(case, dtype, seed):
    check(*case, dtype, seed, fast, reference)


@given(convolutions(most_kernel=11, most_channels=9, most_extra=8, most_images=2), DTYPES, SEEDS)
def test_fast_against_reference_with_big_kernels(case, dtype, seed):
    check(*case, dtype, seed, fast, reference)


@given(convolutions(most_kernel=3, most_channels=2, most_extra=2, most_images=2), DTYPES, SEEDS)
def test_reference_against_loops(case, dtype, seed):
    check(*case, dtype, seed, reference, loops)


@pytest.mark.parametrize("kernel", range(1, 12))
def test_every_kernel_size_against_loops(kernel):
    """Both back ends against the loops, so that they cannot share a mistake."""
    padding, dilation = kernel // 2, 1 + (kernel < 4)
    size = max(1, dilation * (kernel - 1) + 1 - 2 * padding) + 2
    geometry = ((1 + kernel % 3, 1), (padding, padding), (dilation, 1), 1)
    for module in (fast, reference):
        check((1, size, size + 1, 2), (kernel, kernel, 2, 3), geometry, np.float32, kernel, module, loops)


ONE = (1, 1)
LAYERS = {  # name: x shape, w shape, stride, padding, dilation, groups; each takes another path through the kernels
    "a ResNet-20 layer": ((3, 32, 32, 16), (3, 3, 16, 16), ONE, ONE, ONE, 1),
    "a stage's first layer": ((3, 32, 32, 16), (3, 3, 16, 32), (2, 2), ONE, ONE, 1),
    "wide": ((2, 8, 8, 64), (3, 3, 64, 64), ONE, ONE, ONE, 1),
    "very wide, one image": ((1, 7, 7, 256), (3, 3, 256, 128), ONE, ONE, ONE, 1),
    "an ImageNet stem": ((2, 57, 57, 3), (7, 7, 3, 64), (2, 2), (3, 3), ONE, 1),
    "an 11×11 stem": ((1, 67, 67, 3), (11, 11, 3, 96), (4, 4), (0, 0), ONE, 1),
    "an image in bands": ((1, 90, 80, 24), (3, 3, 24, 17), ONE, ONE, ONE, 1),
    "bands with stride 2 and 5×5": ((2, 75, 61, 20), (5, 5, 20, 9), (2, 2), (2, 2), ONE, 1),
    "a projection": ((2, 14, 14, 33), (1, 1, 33, 65), (2, 2), (0, 0), ONE, 1),
    "few images, divided by filters": ((3, 7, 7, 128), (3, 3, 128, 288), ONE, ONE, ONE, 1),
    "few images and a wide projection": ((2, 5, 5, 600), (1, 1, 600, 512), (2, 2), (0, 0), ONE, 1),
    "more weights than pixels": ((5, 7, 7, 130), (3, 3, 130, 140), ONE, ONE, ONE, 1),
    "a wide projection": ((9, 9, 9, 150), (1, 1, 150, 900), (2, 2), (0, 0), ONE, 1),
    "a 1×1 kernel with many channels": ((3, 6, 7, 600), (1, 1, 600, 320), ONE, (0, 0), ONE, 1),
    "1×1 images": ((5, 1, 1, 19), (3, 3, 19, 23), ONE, ONE, ONE, 1),
    "a kernel as large as the image": ((2, 5, 5, 8), (5, 5, 8, 8), ONE, (0, 0), ONE, 1),
    "stride 3 with gaps that no tap reads": ((2, 11, 13, 6), (1, 2, 6, 10), (3, 3), (0, 0), ONE, 1),
    "depthwise": ((2, 9, 9, 24), (3, 3, 1, 24), ONE, ONE, ONE, 24),
    "ResNeXt-like groups": ((2, 9, 9, 40), (3, 3, 10, 40), (2, 2), ONE, ONE, 4),
    "ResNeXt-29's groups": ((3, 9, 8, 256), (3, 3, 64, 256), ONE, ONE, ONE, 4),
    "groups of more than a slice": ((2, 7, 7, 210), (3, 3, 70, 219), (2, 2), ONE, ONE, 3),
    "several groups in a slice": ((5, 6, 7, 240), (3, 3, 24, 200), ONE, (2, 1), (2, 1), 10),
    "ResNeXt-50's groups": ((3, 9, 9, 128), (3, 3, 4, 128), (2, 2), ONE, ONE, 32),
    "groups in bands": ((1, 90, 80, 128), (3, 3, 64, 128), ONE, ONE, ONE, 2),
    "a grouped projection": ((2, 9, 9, 192), (1, 1, 96, 128), (2, 2), (0, 0), ONE, 2),
    "a depthwise layer of two filters a channel": ((2, 9, 7, 30), (5, 5, 1, 60), ONE, (2, 2), ONE, 30),
    "atrous": ((2, 15, 15, 12), (3, 3, 12, 20), ONE, (4, 4), (4, 4), 1),
    "atrous and wide, in bands": ((1, 23, 97, 128), (3, 3, 128, 128), ONE, (2, 2), (2, 2), 1),
    "padding wider than the kernel": ((2, 3, 4, 5), (2, 3, 5, 7), (2, 1), (5, 6), ONE, 1),
    "a batch of many work items": ((37, 4, 4, 8), (3, 3, 8, 8), ONE, ONE, ONE, 1),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_real_networks(name, dtype):
    x_shape, w_shape, *geometry = LAYERS[name]
    check(x_shape, w_shape, tuple(geometry), dtype, 0, fast, reference)


@pytest.fixture
def packed_ahead(monkeypatch):
    """Every weight gradient without groups is divided as a large one is: parts of a few rows and columns, packed ahead."""
    monkeypatch.setattr(direct_plan, "PART_BYTES", 64)
    monkeypatch.setattr(direct_plan, "PART_ROWS", 8)
    monkeypatch.setattr(direct_plan, "PART_COLUMNS", 16)
    direct_plan.weight_grad_plan.cache_clear()
    yield
    direct_plan.weight_grad_plan.cache_clear()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=convolutions(most_kernel=4, most_channels=70, most_extra=12), dtype=DTYPES, seed=SEEDS)
def test_large_weight_gradients(packed_ahead, case, dtype, seed):
    check(*case, dtype, seed, fast, reference)


@pytest.mark.parametrize("limit", [0, 1 << 40], ids=["item by item", "packed ahead"])
def test_weight_gradients_of_large_dilations(limit, monkeypatch):
    monkeypatch.setattr(direct_plan, "AHEAD_PACKED_BYTES", limit)
    direct_plan.weight_grad_plan.cache_clear()
    check((2, 9, 10, 128), (3, 3, 128, 160), (ONE, (6, 5), (6, 5), 1), np.float32, 0, fast, reference)
    direct_plan.weight_grad_plan.cache_clear()


@pytest.mark.parametrize("dilation", [1, 2, 4, 6, 12, 24, 36])
@pytest.mark.parametrize(("images", "side", "channels"), [(1, 100, 512), (8, 28, 2048), (2, 64, 512), (16, 14, 1024)])
def test_dilated_layers_pack_little(images, side, channels, dilation):
    """The layers of atrous spatial pyramid pooling (Chen et al. 2017): their taps reach farther than a band is high."""
    shapes = (images, side, side, channels), (3, 3, channels, 256)
    plan = direct_plan.weight_grad_plan(problem_of(*shapes, ONE, (dilation, dilation), (dilation, dilation), 1), 4)
    packed = plan.layout.packed_size * 4
    assert packed * plan.layout.items <= 256 << 20 or (not plan.layout.ahead and packed <= 128 << 20)
    padded = images * (side + 2 * dilation) ** 2 * channels * 4
    assert packed * plan.layout.items < 5 * padded


@pytest.mark.parametrize("channels", [3, 400])
def test_no_images(channels):
    check((0, 5, 5, channels), (3, 3, channels, 400), (ONE, ONE, ONE, 1), np.float32, 0, fast, reference)


@pytest.mark.parametrize("channels", range(1, 35))
def test_any_number_of_channels(channels):
    """Around every multiple of the vector lanes, for input and output channels, where tiles are incomplete."""
    check(
        (2, 5, 6, channels), (3, 3, channels, 35 - channels), (ONE, ONE, ONE, 1), np.float32, channels, fast, reference
    )


@pytest.mark.parametrize("positions", [*range(1, 30), 55, 64, 97])
def test_any_number_of_positions(positions):
    """Also widths that are not a multiple of the tile's rows."""
    check((1, 1, positions, 4), (1, 3, 4, 20), (ONE, (0, 1), ONE, 1), np.float32, positions, fast, reference)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(8))
def test_fuzz(start):
    """400 more geometries per part, from NumPy's generator, which draws others than Hypothesis does."""
    rng = np.random.default_rng(start)
    for _ in range(400):
        kernel, stride, padding = rng.integers(1, 8, 2), rng.integers(1, 4, 2), rng.integers(0, 6, 2)
        dilation, groups = rng.integers(1, 4, 2), int(rng.choice([1, 1, 2, 4]))
        size = np.maximum(1, dilation * (kernel - 1) + 1 - 2 * padding) + rng.integers(0, 20, 2)
        ins, outs, images = (int(v) for v in rng.integers(1, [48, 48, 10]))
        geometry = tuple(tuple(int(v) for v in pair) for pair in (stride, padding, dilation))
        shapes = (images, *map(int, size), ins * groups), (*map(int, kernel), ins, outs * groups)
        check(*shapes, (*geometry, groups), np.float32, int(rng.integers(1 << 30)), fast, reference)
