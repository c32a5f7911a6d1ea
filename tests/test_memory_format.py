"""Images stay channels-last in the forward and backward pass of every operation: kernels copy any other order."""

import numpy as np
import pytest
from op_cases import EVERY, IDS

import minires as mr
from minires import functional as F
from minires.gradcheck.cases import draw
from minires.kernels import empty_like
from minires.kernels.memory_format import hwio, is_channels_last, nchw, nhwc, oihw, to_channels_last

every_case = pytest.mark.parametrize(("name", "case"), EVERY, ids=IDS)


@every_case
def test_outputs_are_channels_last(name, case, backend):
    y = case.ours(*[mr.from_numpy(a) for a in draw(case, np.float32)])
    assert y.ndim != 4 or is_channels_last(y.numpy()), f"strides {y.numpy().strides} of shape {y.shape}"


@every_case
def test_gradients_have_the_memory_order_of_their_inputs(name, case, backend):
    arrays = draw(case, np.float32)
    if name.startswith(("conv", "bn_relu_conv")):  # a weight is stored (KH, KW, I, O)
        arrays[1] = oihw(hwio(arrays[1]))
    inputs = [mr.from_numpy(a).requires_grad_() for a in arrays]
    y = case.ours(*inputs)
    y.backward(to_channels_last(np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)))
    for i, (a, x) in enumerate(zip(arrays, inputs)):
        if a.ndim == 4:
            stored = (3, 2, 0, 1) if is_weight(name, i) else (0, 2, 3, 1)
            axes = np.argsort(stored) if is_weight(name, i) else stored
            assert x.grad.transpose(axes).flags.c_contiguous, f"input {i}: strides {x.grad.strides}, shape {a.shape}"


def is_weight(name, i):
    return i == 1 and name.startswith(("conv", "bn_relu"))


@every_case
def test_another_memory_order_changes_no_value(name, case, backend):
    arrays = draw(case)
    dy = None
    results = []
    for order in ("as they are", "C", "F"):
        stored = arrays if order == "as they are" else [np.asarray(a, order=order) for a in arrays]
        inputs = [mr.from_numpy(a).requires_grad_() for a in stored]
        y = case.ours(*inputs)
        dy = np.random.default_rng(1).standard_normal(y.shape) if dy is None else dy
        y.backward(np.asarray(dy, order="C" if order == "as they are" else order))
        results.append([y.numpy(), *[x.grad for x in inputs]])
    for other in results[1:]:
        for a, b in zip(results[0], other):
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-13)


def test_tensor_stores_images_channels_last():
    x = np.arange(120.0).reshape(2, 3, 4, 5)
    assert is_channels_last(mr.tensor(x).numpy())
    np.testing.assert_array_equal(mr.tensor(x).numpy(), x)
    assert mr.from_numpy(x).numpy() is x


def test_a_layer_does_not_copy_a_channels_last_image(monkeypatch):
    """Its NHWC view is used, not a copy: what a convolution saves for its backward pass is the input's own memory."""
    x = mr.tensor(np.ones((2, 3, 4, 4), np.float32))
    y = F.conv2d(x, mr.tensor(np.ones((5, 3, 1, 1), np.float32), requires_grad=True))
    assert np.may_share_memory(y.op.x.operand().array, x.numpy())


class TestHelpers:
    def test_views_of_images(self):
        x = np.arange(120.0).reshape(2, 4, 5, 3)
        assert np.shares_memory(nhwc(nchw(x)), x)
        assert nchw(x).shape == (2, 3, 4, 5)
        np.testing.assert_array_equal(nchw(x)[1, 2], x[1, :, :, 2])
        c_order = np.arange(120.0).reshape(2, 3, 4, 5)
        assert not np.shares_memory(nhwc(c_order), c_order)
        np.testing.assert_array_equal(nhwc(c_order)[1, 2, 3], c_order[1, :, 2, 3])

    def test_views_of_weights(self):
        w = np.arange(120.0).reshape(5, 4, 3, 2)
        stored = hwio(w)
        assert stored.shape == (3, 2, 4, 5)
        assert stored.flags.c_contiguous
        np.testing.assert_array_equal(oihw(stored), w)
        assert np.shares_memory(hwio(oihw(stored)), stored)

    def test_read_only_and_unaligned_arrays_are_copied(self):
        x = np.ones((2, 4, 5, 3), np.float32)
        x.flags.writeable = False
        assert not np.shares_memory(nhwc(nchw(x)), x)
        odd = np.frombuffer(bytearray(481), np.uint8)[1:].view(np.float32).reshape(2, 4, 5, 3)
        assert not np.shares_memory(nhwc(nchw(odd)), odd)

    @pytest.mark.parametrize("shape", [(), (3,), (40, 50, 60), (16, 32, 9, 20), (2, 1, 3, 1)])
    def test_empty_like_keeps_the_order(self, shape):
        base = np.zeros(shape, np.float32)
        for axes in ([*range(len(shape))], [*range(len(shape))][::-1]):
            x = base.transpose(axes)
            y = empty_like(x)
            assert (y.shape, y.dtype) == (x.shape, x.dtype)
            assert [s for s, n in zip(y.strides, y.shape) if n > 1] == [s for s, n in zip(x.strides, x.shape) if n > 1]
        if len(shape) == 4:
            assert is_channels_last(empty_like(to_channels_last(base)))
