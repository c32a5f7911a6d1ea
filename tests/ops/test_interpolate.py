"""F.interpolate against PyTorch for many sizes, to the pixel; its gradient as the transpose; infinities; bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minires as mr
from minires import functional as F
from minires import kernels
from minires.errors import ConfigError, DtypeError, MiniresError, ShapeError
from minires.kernels import reference
from minires.kernels.sampling import Line
from minires.ops.resize import line

SIZES, SCALES = st.integers(1, 40), st.floats(0.05, 6)


def torchs(torch, x, **settings):
    return torch.nn.functional.interpolate(torch.tensor(x), **settings).numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_nearest_pixel_of_every_size(torch, dtype):
    for size in (*range(1, 26), 57, 224):
        x = np.arange(size, dtype=dtype).reshape(1, 1, 1, size)
        for target in (*range(1, 40), 100, 223, 225):
            found = F.interpolate(mr.tensor(x), (1, target)).numpy()
            np.testing.assert_array_equal(found, torchs(torch, x, size=(1, target)), err_msg=f"{size} to {target}")


@given(st.tuples(SIZES, SIZES), st.one_of(st.tuples(SIZES, SIZES), st.tuples(SCALES, SCALES)), st.integers(0, 99))
def test_sizes_and_factors(torch, shape, target, seed):
    x = np.random.default_rng(seed).standard_normal((2, 3, *shape)).astype(np.float32)
    by = {"size": target} if isinstance(target[0], int) else {"scale_factor": target}
    if "scale_factor" in by and not all(int(n * s) for n, s in zip(shape, target)):
        with pytest.raises(ConfigError, match="interpolate: images of "):
            F.interpolate(mr.tensor(x), **by)
        return
    np.testing.assert_array_equal(F.interpolate(mr.tensor(x), **by).numpy(), torchs(torch, x, **by))
    for align_corners in (None, False, True):
        settings = {**by, "mode": "bilinear", "align_corners": align_corners}
        expected = torchs(torch, x, **settings)
        np.testing.assert_allclose(F.interpolate(mr.tensor(x), **settings).numpy(), expected, rtol=1e-5, atol=1e-5)


@given(st.tuples(SIZES, SIZES), st.tuples(SIZES, SIZES), st.sampled_from(["nearest", "bilinear"]), st.booleans())
def test_both_back_ends_and_the_transpose(shape, target, mode, align_corners):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *shape, 5))
    dy = rng.standard_normal((2, *target, 5))
    lines = [line(n, m, None, mode, align_corners, "d") for n, m in zip(shape, target)]
    y, dx = kernels.resize(x, *lines), kernels.resize_grad(dy, x.shape, *lines)
    np.testing.assert_allclose(y, reference.resize(x, *lines), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, reference.resize_grad(dy, x.shape, *lines), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose((y * dy).sum(), (x * dx).sum(), rtol=1e-9, atol=1e-9)


def test_infinities_stay_where_they_are(backend):
    x = np.zeros((1, 1, 3, 3), np.float32)
    x[0, 0, 1, 1] = np.inf
    y = F.interpolate(mr.tensor(x), 6).numpy()
    assert np.isinf(y).sum() == 4
    assert not np.isnan(y).any()
    same = F.interpolate(mr.tensor(x), 3).numpy()
    np.testing.assert_array_equal(same, x)


def test_a_decoder_is_trained_and_recorded():
    class Decoder(mr.nn.Module):
        recordable = True

        def __init__(self):
            self.conv, self.fc = mr.nn.Conv2d(3, 4, 3, padding=1), mr.nn.Linear(4, 10)

        def forward(self, x):
            y = F.interpolate(self.conv(x), scale_factor=2, mode="bilinear")
            return self.fc(F.flatten(F.global_max_pool2d(F.relu(y)), 1))

    mr.manual_seed(0)
    model = Decoder()
    step, rng = mr.RecordedStep(model), np.random.default_rng(0)
    for _ in range(4):
        x, labels = rng.standard_normal((2, 3, 5, 6)).astype(np.float32), rng.integers(0, 10, 2)
        step(x, labels)
        found = model.conv.weight.grad.copy()
        model.zero_grad()
        F.cross_entropy(model(mr.tensor(x)), labels).backward()
        np.testing.assert_array_equal(found, model.conv.weight.grad)
    assert step.state == "checked"


X = np.ones((1, 2, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "give one of size and scale_factor, not neither"),
        ({"size": 3, "scale_factor": 2}, "give one of size and scale_factor, not both"),
        ({"size": 0}, "size is a whole number from 1 up, or a pair of them, not 0"),
        ({"size": 2.5}, "size is a whole number from 1 up"),
        ({"size": (2, 3, 4)}, "size is a whole number from 1 up"),
        ({"size": 1 << 40}, "images of 3×4 would become 1099511627776×1099511627776"),
        ({"scale_factor": 0}, "scale_factor is a number above 0, or a pair of them, not 0"),
        ({"scale_factor": float("nan")}, "scale_factor is a number above 0"),
        ({"scale_factor": (1, float("inf"))}, "scale_factor is a number above 0"),
        ({"scale_factor": "2"}, "scale_factor is a number above 0"),
        ({"scale_factor": True}, "scale_factor is a number above 0"),
        ({"scale_factor": 0.1}, "images of 3×4 would become 0×0"),
        ({"size": 3, "mode": "bicubic"}, "mode is one of nearest, bilinear, not 'bicubic'"),
        ({"size": 3, "mode": "billinear"}, r"mode is .* not 'billinear' \(did you mean bilinear"),
        ({"size": 3, "mode": None}, "mode is one of nearest, bilinear, not None"),
        (
            {"size": 3, "align_corners": True},
            "align_corners is true or false, of mode 'bilinear', not True of 'nearest'",
        ),
        ({"size": 3, "mode": "bilinear", "align_corners": 2}, "align_corners is true or false"),
    ],
)
def test_settings_that_cannot_be(settings, said):
    with pytest.raises(ConfigError, match=f"interpolate: {said}"):
        F.interpolate(mr.tensor(X), **settings)


def test_inputs_that_cannot_be():
    for x, error in ((X[0], ShapeError), (X.astype(np.int64), DtypeError), (np.ones((0, 2, 3, 4), "f4"), ShapeError)):
        with pytest.raises(error, match="interpolate: "):
            F.interpolate(mr.tensor(x), 2)
    with pytest.raises(DtypeError, match="interpolate: takes Tensors"):
        F.interpolate(X, 2)


@pytest.mark.parametrize("first", [[0, 1, 3], [-1, 0, 1], [1, 0, 2], []])
def test_positions_outside_are_refused_by_the_kernel(first):
    good = line(3, 3, None, "nearest", False, "d")
    first = np.array(first, np.int64)
    bad = Line(first, first, np.zeros(len(first)))
    for lines in ((bad, good), (good, bad)):
        with pytest.raises(MiniresError, match=r"resize: the positions are not those of an axis of length 3"):
            kernels.resize(np.zeros((1, 3, 3, 2)), *lines)
        with pytest.raises(MiniresError, match=r"resize_grad: the positions|resize_grad: shapes"):
            kernels.resize_grad(np.zeros((1, 3, 3, 2)), (1, 3, 3, 2), *lines)


@pytest.mark.parametrize("size", [(2, 4), (4, 2), (4, 4), (3, 5)])
def test_an_infinite_pixel_between_others(size):
    x = np.zeros((1, 1, 2, 2), np.float32)
    x[0, 0, 0, 0] = np.inf
    found = {}
    for name in ("numba", "reference"):
        with mr.backend(name), np.errstate(invalid="ignore"):
            found[name] = F.interpolate(mr.tensor(x), size, mode="bilinear").numpy()
    np.testing.assert_array_equal(found["numba"], found["reference"])
