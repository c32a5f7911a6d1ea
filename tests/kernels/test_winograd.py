"""Winograd convolutions against the reference back end and the direct kernels."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import DIRECT, DTYPES, WINOGRAD, arrays, assert_close, pairs
from test_bounds import Guard

import minires as mr
from minires.errors import ShapeError
from minires.kernels import reference
from minires.kernels.compiled import backend
from minires.kernels.convolution import winograd, winograd_weight
from minires.kernels.convolution.winograd_plan import block_for, whole
from minires.kernels.convolution.winograd_transforms import SIDE, TILE
from minires.kernels.descriptors import ADD, GRADIENT, MASK, MOMENTS, NORMALISE, NORMALISED, NOTHING, Epilogue, Operand
from minires.kernels.runtime import target

ONE = (1, 1)
BT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    float,
)
G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
AT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], float)


def three(x, w, dy, padding, by=WINOGRAD):
    """y, dx and dw."""
    geometry = ONE, padding, ONE, 1
    return (
        by.conv2d(x, w, *geometry),
        by.conv2d_input_grad(dy, w, x.shape, *geometry),
        by.conv2d_weight_grad(x, dy, w.shape, *geometry),
    )


def expected(x, w, dy, padding):
    return three(*(a.astype(np.float64) for a in (x, w, dy)), padding, reference)


def tiles(x, padding, size):
    """(N, tile rows, tile columns, 6, 6, C): the inputs of each 4×4 tile of the ``size`` outputs."""
    room = [(0, 0), *((p, whole(n) + 2 - have - p) for p, n, have in zip(padding, size, x.shape[1:3])), (0, 0)]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, room), (SIDE, SIDE), (1, 2))
    return windows[:, ::TILE, ::TILE].transpose(0, 1, 2, 4, 5, 3)


def sizes(x, w, dy, padding):
    """The sums of absolute values behind y, dx and dw: the algorithm on absolute values, in plain NumPy and float64."""
    return by_formula(x, w, dy, padding, np.abs)


def by_formula(x, w, dy, padding, of=lambda a: a):
    """y, dx and dw by the formulas of ``winograd.py``, in NumPy and float64; ``of`` is applied to all arrays and matrices."""
    x, w, dy = (of(a.astype(np.float64)) for a in (x, w, dy))
    bt, g, at = of(BT), of(G), of(AT)

    def forward(x, w, padding, size):
        v = np.einsum("ip,nyxpqc,jq->nyxijc", bt, tiles(x, padding, size), bt, optimize=True)
        u = np.einsum("ip,pqco,jq->ijco", g, w, g, optimize=True)
        m = np.einsum("nyxijc,ijco->nyxijo", v, u, optimize=True)
        y = np.einsum("pi,nyxijo,qj->nypxqo", at, m, at, optimize=True)
        return y.reshape(len(x), TILE * v.shape[1], TILE * v.shape[2], w.shape[3])[:, : size[0], : size[1]]

    size = dy.shape[1:3]
    v = np.einsum("ip,nyxpqc,jq->nyxijc", bt, tiles(x, padding, size), bt, optimize=True)
    padded = np.pad(dy, [(0, 0), *((0, whole(n) - n) for n in size), (0, 0)])
    padded = padded.reshape(len(x), v.shape[1], TILE, v.shape[2], TILE, dy.shape[3])
    z = np.einsum("pi,nypxqo,qj->nyxijo", at, padded, at, optimize=True)
    total = np.einsum("nyxijc,nyxijo->ijco", v, z, optimize=True)
    turned = w[::-1, ::-1].transpose(0, 1, 3, 2)
    dx = forward(dy, turned, (2 - padding[0], 2 - padding[1]), x.shape[1:3])
    return forward(x, w, padding, size), dx, np.einsum("ip,ijco,jq->pqco", g, total, g, optimize=True)


def check(x_shape, filters, padding, dtype, seed):
    size = [n + 2 * p - 2 for n, p in zip(x_shape[1:3], padding)]
    w_shape, y_shape = (3, 3, x_shape[3], filters), (x_shape[0], *size, filters)
    x, w, dy = arrays(seed, dtype, x_shape, w_shape, y_shape)
    found, right, bounds = three(x, w, dy, padding), expected(x, w, dy, padding), sizes(x, w, dy, padding)
    for name, f, e, bound in zip(("y", "dx", "dw"), found, right, bounds):
        assert f.dtype == dtype, name
        assert f.flags.c_contiguous, name
        assert_close(f, e, bound, factor=6)


@st.composite
def cases(draw, most_channels=70):
    padding = draw(pairs(0, 2))
    size = [max(n, 3 - 2 * p) for n, p in zip(draw(pairs(1, 20)), padding)]
    channels = st.integers(1, most_channels)
    return (draw(st.integers(1, 4)), *size, draw(channels)), draw(channels), padding


@given(cases(), DTYPES, st.integers(0, 2**32 - 1))
def test_against_reference(case, dtype, seed):
    check(*case, dtype, seed)


LAYERS = {  # name: x shape, filters, padding; each takes another path
    "a ResNet-20 layer": ((3, 32, 32, 16), 16, ONE),
    "many small images in an item": ((40, 8, 8, 64), 64, ONE),
    "an image in bands, the last one odd": ((1, 91, 83, 40), 17, ONE),
    "bands of two images": ((2, 60, 56, 64), 64, ONE),
    "wide": ((3, 7, 7, 256), 272, ONE),
    "wide, one image, odd": ((1, 5, 3, 520), 130, (0, 1)),
    "1×1 images": ((5, 1, 1, 19), 23, ONE),
    "1×1 outputs": ((5, 3, 3, 8), 8, (0, 0)),
    "one row of tiles": ((2, 2, 40, 24), 9, ONE),
    "one channel, one filter": ((2, 9, 9, 1), 1, (2, 2)),
    "no image": ((0, 8, 8, 16), 16, ONE),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, dtype):
    check(*LAYERS[name], dtype, 0)


LARGE = (1030, 3, 4, 136), 136, ONE
HUGE = (2050, 1, 2, 344), 344, ONE


@pytest.mark.parametrize("layer", [LARGE, HUGE], ids=["large", "huge"])
def test_a_large_batch_of_a_wide_layer(layer):
    """It is divided in another way than few images; against the direct kernels, which have their own tests."""
    x_shape, filters, padding = layer
    x, w, dy = arrays(0, np.float32, x_shape, (3, 3, x_shape[3], filters), (*x_shape[:3], filters))
    for found, right in zip(three(x, w, dy, padding), three(x, w, dy, padding, DIRECT)):
        np.testing.assert_allclose(found, right, atol=1e-4 * np.abs(right).max())


@pytest.mark.parametrize("channels", range(1, 35))
def test_any_number_of_channels(channels):
    """Around every multiple of the vector lanes and of the register tile's rows."""
    check((2, 5, 6, channels), 35 - channels, ONE, np.float32, channels)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(4))
def test_fuzz(start):
    rng = np.random.default_rng(start)
    for _ in range(200):
        padding = tuple(int(p) for p in rng.integers(0, 3, 2))
        size = [max(int(n), 3 - 2 * p) for n, p in zip(rng.integers(1, 40, 2), padding)]
        images, channels, filters = (int(n) for n in rng.integers(1, [12, 140, 140]))
        check((images, *size, channels), filters, padding, np.float32, int(rng.integers(1 << 30)))


def test_the_matrices():
    """Bᵀ, G and Aᵀ above compute a convolution exactly, so bounds derived from them are bounds of the algorithm."""
    plain = arrays(6, np.float64, (2, 6, 7, 3), (3, 3, 3, 2), (2, 6, 5, 2))
    for found, right in zip(by_formula(*plain, (1, 0)), expected(*plain, (1, 0)), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-10, atol=1e-12)


# channels: largest error relative to the largest result; RMS error relative to the direct kernels', of y and dx and of dw
ROUNDING = {16: (8e-6, 7, 12), 64: (1.2e-5, 6, 12), 256: (2.5e-5, 6, 14)}


@pytest.mark.parametrize("channels", ROUNDING)
def test_rounding_compared_with_the_direct_kernels(channels):
    """The errors of float32 that ``winograd.py`` gives, with a margin of one half for other arrays."""
    shape, filters = (4, 16, 16, channels), channels
    x, w, dy = arrays(7, np.float32, shape, (3, 3, channels, filters), (4, 16, 16, filters))
    direct = three(x, w, dy, ONE, DIRECT)
    largest, times, weight_times = ROUNDING[channels]
    for found, plain, right, most in zip(
        three(x, w, dy, ONE), direct, expected(x, w, dy, ONE), (times, times, weight_times), strict=True
    ):
        assert np.abs(found - right).max() <= largest * np.abs(right).max()
        assert np.sqrt(((found - right) ** 2).mean()) <= most * np.sqrt(((plain - right) ** 2).mean())
        assert np.abs(plain - right).max() <= 4e-6 * np.abs(right).max()  # or else the line above says nothing


@pytest.mark.parametrize(
    "name",
    ["many small images in an item", "an image in bands, the last one odd", "wide", "a large batch"],
)
def test_the_same_bits_on_any_number_of_threads(name):
    x_shape, filters, padding = LAYERS.get(name, LARGE)
    x, w, dy = arrays(3, np.float32, x_shape, (3, 3, x_shape[3], filters), (*x_shape[:3], filters))
    results = []
    before = mr.get_num_threads()
    try:
        for threads in (1, 2):
            mr.set_num_threads(threads)
            results.append([a.tobytes() for a in three(x, w, dy, padding)])
    finally:
        mr.set_num_threads(before)
    assert results[0] == results[1]


@pytest.fixture
def guard(monkeypatch):
    guard = Guard()
    for module in (winograd, winograd_weight):
        monkeypatch.setattr(module, "empty", guard.empty)
        monkeypatch.setattr(module, "empty_together", guard.empty_together)
    return guard


@pytest.mark.parametrize("channels", [1, 3, 7, 8, 9, 16, 17, 33])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 7), (19, 18)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_stay_within_their_arrays(guard, channels, size, dtype):
    """Inputs are surrounded by NaNs, buffers are filled with them, and nothing is written outside an array."""
    rng = np.random.default_rng(0)
    for padding in (ONE, (1, 2)):
        y_size = [n + 2 * p - 2 for n, p in zip(size, padding)]
        shapes = (9, *size, channels), (3, 3, channels, channels + 2), (9, *y_size, channels + 2)
        plain = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
        found = [a.copy() for a in three(*(guard.between_nans(a) for a in plain), padding)]
        for result, right, bound in zip(found, expected(*plain, padding), sizes(*plain, padding)):
            assert_close(result, right, bound)
    assert len(guard.made) >= 20
    guard.check()


@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (8, 6), (1, 1), (4, 4)])
def test_an_item_reads_no_further_than_documented(rows, columns):
    """Sizes are not rounded up to whole tiles: what may be read behind the inputs is finite, everything after it NaN."""
    channels, filters, width = 12, 20, columns + 2
    x, w = arrays(1, np.float32, (2, rows + 2, columns + 2, channels), (3, 3, channels, filters))
    block = block_for(channels, filters, 4)
    v, m, u = block.sizes(4)
    lanes = target.VECTOR_BYTES // 4
    behind = ((whole(rows) - rows) * width + whole(columns) - columns) * channels
    packed = np.full(x.size + behind + lanes - 1 + 100, np.nan, np.float32)
    packed[: x.size] = x.ravel()
    packed[x.size : x.size + behind] = arrays(2, np.float32, behind)[0]
    V, M, U = (np.full(n, np.nan, np.float32) for n in (v, m, u))
    out = np.full(2 * rows * columns * filters, np.nan, np.float32)
    edge, step = np.empty(9 * 16 * lanes, np.float32), rows * columns * filters
    winograd.transform_filters(w, False, 0, 0, channels, U, edge, block.record()[0])
    winograd.winograd_item(
        packed, 0, 2, x[0].size, width, channels, rows, columns, U, V, M, out, 0, step, filters, block.record()[0],
        np.zeros((0, 4), np.int64),
    )  # fmt: skip
    right = reference.conv2d(x.astype(np.float64), w.astype(np.float64), ONE, (0, 0), ONE, 1)
    np.testing.assert_allclose(out.reshape(right.shape), right, rtol=1e-4, atol=2e-4)


def reached(at, tiles, inner, first, last):
    """[(tile, outputs)] for input ``at`` of a side: ``first`` for the tile's first input, ``last`` for its last, else inner."""
    places = [(t, at - TILE * t) for t in range(tiles) if 0 <= at - TILE * t < SIDE]
    return [(t, {0: first, SIDE - 1: last}.get(place, inner)) for t, place in places]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("pixel", [(5, 6), (3, 0), (4, 8), (11, 2), (7, 11)])
def test_where_a_nan_spreads(pixel, value):
    """To all 16 outputs of the tiles that read it, but from a tile's outermost inputs only to the nearest row or column."""
    x, w, dy = arrays(4, np.float32, (2, 12, 12, 16), (3, 3, 16, 24), (2, 12, 12, 24))
    x[1, *pixel, 5] = value
    rows, columns = (
        {TILE * t + i for t, outs in reached(n + 1, 3, range(TILE), [0], [TILE - 1]) for i in outs} for n in pixel
    )
    with np.errstate(invalid="ignore"):
        y, _, dw = three(x, w, dy, ONE)
    expected = np.ones((2, 12, 12), bool)
    expected[1, min(rows) : max(rows) + 1, min(columns) : max(columns) + 1] = False
    assert (np.isfinite(y) == expected[..., None]).all()
    assert np.isfinite(dw[:, :, np.arange(16) != 5]).all()
    assert not np.isfinite(dw[:, :, 5]).all(axis=(0, 1)).any()


def test_no_kernel_reads_freed_memory():
    """Results are the same if freed blocks are overwritten at once. (Numba frees an array after its last use.)"""
    script = (
        "import hashlib, numpy as np; from test_winograd import LAYERS, arrays, three\n"
        "for name, (x, o, p) in LAYERS.items():\n"
        "    y = [x[0], *(n + 2 * q - 2 for n, q in zip(x[1:3], p)), o]\n"
        "    for a in three(*arrays(5, np.float32, x, (3, 3, x[3], o), y), p):\n"
        "        print(hashlib.sha256(a.tobytes()).hexdigest())\n"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(p) for p in (here, here.parent, here.parents[1], os.environ.get("PYTHONPATH", ""))])
    printed = []
    for tunables in ("", "glibc.malloc.tcache_count=0:glibc.malloc.perturb=165"):
        env = os.environ | {"PYTHONPATH": path, "GLIBC_TUNABLES": tunables}
        found = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
        assert found.returncode == 0, (found.returncode, found.stderr)
        printed.append(found.stdout)
    assert printed[0] == printed[1]
    assert len(printed[0].split()) == 3 * len(LAYERS)


def epilogues(rng, shape):
    """Epilogues of each kind, for outputs of this shape."""
    other, c, z = (rng.standard_normal(shape).astype(np.float32) for _ in range(3))
    mean, scale, shift = rng.standard_normal((3, shape[3]))
    yield Epilogue(NOTHING)
    yield Epilogue(MOMENTS)
    yield Epilogue(ADD, other=other)
    yield Epilogue(NORMALISE, (mean, scale, shift), True, other)
    yield Epilogue(MASK, (mean, scale, shift), True, other, c)
    yield Epilogue(MASK, (mean, scale, shift), True, None, c, z)


@pytest.mark.parametrize("by", [DIRECT, WINOGRAD], ids=["direct", "winograd"])
@pytest.mark.parametrize("shape", [(9, 8, 8, 24), (1, 51, 43, 40)])
def test_prologues_and_epilogues_match_the_reference(shape, by):
    """Both algorithms, float32, against the plain NumPy of ``reference/fusion.py`` in float64."""
    rng = np.random.default_rng(2)
    x, partner = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    w = rng.standard_normal((3, 3, shape[3], 32)).astype(np.float32)
    back = rng.standard_normal((3, 3, 32, shape[3])).astype(np.float32)
    mean, scale, shift = rng.standard_normal((3, shape[3]))
    geometry = ONE, ONE, ONE, 1
    gradient = Operand(x, GRADIENT, (mean, scale, scale, shift), partner)
    operands = Operand(x), Operand(x, NORMALISED, (mean, scale, shift)), gradient
    for operand in operands:
        for epilogue in epilogues(rng, (*shape[:3], 32)):
            if epilogue.kind != MASK:
                found = by.finished(operand, w, *geometry, epilogue=epilogue)
                same_results(found, reference.conv2d(operand, w, *geometry, epilogue))
            if epilogue.kind in (NOTHING, ADD, MASK):
                found = by.finished_input_grad(operand, back, (*shape[:3], 32), *geometry, epilogue=epilogue)
                same_results(found, reference.conv2d_input_grad(operand, back, (*shape[:3], 32), *geometry, epilogue))
        for dy in operands:
            pair = operand, dy, (3, 3, shape[3], shape[3]), *geometry
            dw, right = by.conv2d_weight_grad(*pair), reference.conv2d_weight_grad(*pair)
            np.testing.assert_allclose(dw, right, rtol=1e-4, atol=2e-5 * np.abs(right).max())


def same_results(found, right):
    """y and the epilogue's result match up to rounding. A ReLU with an input near 0 may be on in one and off in the other."""
    (y, result), (right_y, right_result) = found, right
    near = np.isclose(y, right_y, rtol=1e-4, atol=1e-3 * np.abs(right_y).max())
    assert (~near).sum() <= 1e-4 * y.size
    assert (result is None) == (right_result is None)
    if result is not None:
        np.testing.assert_allclose(result, right_result, rtol=1e-3, atol=1e-3 * np.abs(right_result).max())


def test_wrong_shapes_are_refused():
    x, w, dy = (np.zeros(shape, np.float32) for shape in ((2, 8, 8, 4), (3, 3, 4, 6), (2, 7, 8, 6)))
    for call in (
        lambda: backend.conv2d(x, w[:, :, :3], ONE, ONE, ONE, 1),
        lambda: backend.conv2d_input_grad(dy, w, x.shape, ONE, ONE, ONE, 1),
        lambda: backend.conv2d_input_grad(x, w[:, :, :3], x.shape, ONE, ONE, ONE, 1),
        lambda: backend.conv2d_weight_grad(x, dy, w.shape, ONE, ONE, ONE, 1),
        lambda: backend.conv2d(Operand(x, NORMALISED, np.ones((3, 3))), w, ONE, ONE, ONE, 1),
        lambda: backend.conv2d(x, w, ONE, ONE, ONE, 1, Epilogue(NORMALISE, np.ones((3, 5)))),
        lambda: backend.conv2d(x, w, ONE, ONE, ONE, 1, Epilogue(ADD, other=dy)),
    ):
        with pytest.raises(ShapeError):
            call()
