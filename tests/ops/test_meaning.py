"""What gradient checks and parity with PyTorch do not cover: running statistics, NaN, kinks, dropout statistics, views."""

import numpy as np
import pytest

import minires as mr
from minires import functional as F


class TestBatchNorm:
    @pytest.mark.parametrize("momentum", [0.1, 0.5, 1.0, 0.0])
    def test_running_statistics_follow_pytorch(self, momentum, backend, torch):
        rng = np.random.default_rng(0)
        ours = np.zeros(3, np.float32), np.ones(3, np.float32)
        theirs = torch.zeros(3), torch.ones(3)
        for n in (2, 4):  # small batches show whether the variance is the unbiased one
            x = (rng.standard_normal((n, 3, 2, 1)) * 3 + 1).astype(np.float32)
            F.batch_norm(mr.tensor(x), *ours, training=True, momentum=momentum)
            torch.nn.functional.batch_norm(torch.tensor(x), *theirs, training=True, momentum=momentum)
            for a, b in zip(ours, theirs):
                np.testing.assert_allclose(a, b.numpy(), rtol=1e-5, atol=1e-6)

    def test_running_statistics_by_hand(self, backend):
        mean, var = np.array([10.0]), np.array([2.0])
        x = np.array([1.0, 3.0]).reshape(2, 1, 1, 1)
        F.batch_norm(mr.tensor(x), mean, var, training=True, momentum=0.25)
        assert mean.tolist() == [0.75 * 10 + 0.25 * 2]
        assert var.tolist() == [0.75 * 2 + 0.25 * 2]  # biased variance 1, unbiased 2

    def test_evaluation_changes_nothing_and_uses_them(self, backend):
        mean, var = np.array([1.0, 2.0]), np.array([4.0, 9.0])
        x = np.random.default_rng(0).standard_normal((3, 2, 2, 2))
        y = F.batch_norm(mr.tensor(x), mean, var, eps=0.0).numpy()
        np.testing.assert_allclose(y, (x - mean[:, None, None]) / np.sqrt(var)[:, None, None])
        assert (mean.tolist(), var.tolist()) == ([1, 2], [4, 9])

    def test_later_updates_do_not_reach_a_recorded_graph(self, backend):
        """Evaluation, then a training step on the same statistics, then the backward pass of the first."""
        mean, var = np.array([1.0]), np.array([4.0])
        x = mr.tensor(np.ones((2, 1, 2, 2)), requires_grad=True)
        y = F.batch_norm(x, mean, var, eps=0.0)
        F.batch_norm(mr.tensor(np.arange(8.0).reshape(2, 1, 2, 2)), mean, var, training=True, momentum=1.0)
        y.sum().backward()
        np.testing.assert_allclose(x.grad, 0.5)

    def test_accuracy_with_a_large_mean(self, backend):
        x = (np.random.default_rng(0).standard_normal((16, 4, 8, 8)) * 0.1 + 1000).astype(np.float32)
        mean, var = np.zeros(4, np.float32), np.zeros(4, np.float32)
        y = F.batch_norm(mr.tensor(x), mean, var, training=True, momentum=1.0, eps=0.0).numpy()
        np.testing.assert_allclose(var, x.astype(np.float64).var((0, 2, 3), ddof=1), rtol=1e-3)
        np.testing.assert_allclose(y.astype(np.float64).var((0, 2, 3)), 1, rtol=2e-3)

    def test_float32_statistics_with_float64_images(self, backend):
        mean, var = np.zeros(2, np.float32), np.ones(2, np.float32)
        y = F.batch_norm(mr.tensor(np.random.default_rng(0).standard_normal((4, 2, 3, 3))), mean, var, training=True)
        assert (y.dtype, mean.dtype, var.dtype) == (np.float64, np.float32, np.float32)


class TestNaN:
    """A NaN is a mistake that must be visible: no maximum and no threshold may hide it."""

    def test_it_reaches_the_output(self, backend):
        x = np.zeros((2, 3, 4, 4), np.float32)
        x[1, 2, 3, 0] = np.nan
        t, w = mr.tensor(x), mr.tensor(np.ones((2, 3, 1, 1), np.float32))
        assert np.isnan(F.relu(t).numpy()).sum() == 1
        assert np.isnan(F.add_relu(t, mr.tensor(np.ones_like(x))).numpy()).sum() == 1
        assert np.isnan(F.max_pool2d(t, 2).numpy()).sum() == 1
        assert np.isnan(F.global_max_pool2d(t).numpy()).sum() == 1
        assert np.isnan(F.avg_pool2d(t, 2).numpy()).sum() == 1
        assert np.isnan(F.conv2d(t, w).numpy()).sum() == 2
        assert np.isnan(F.batch_norm(t, None, None, training=True).numpy()).sum() == 2 * 4 * 4
        assert np.isnan(t.max().item())
        for f in (F.leaky_relu, F.gelu, F.sigmoid, F.tanh):
            assert np.isnan(f(t).numpy()).sum() == 1

    def test_it_reaches_the_gradient(self, backend):
        for f in (F.relu, lambda x: F.max_pool2d(x, 2), lambda x: F.add_relu(x, x)):
            x = mr.tensor(np.ones((1, 1, 2, 2), np.float32), requires_grad=True)
            y = f(x)
            y.backward(np.full(y.shape, np.nan, np.float32))
            assert np.isnan(x.grad).any()


class TestKinks:
    @pytest.mark.parametrize(
        ("f", "at", "slope"),
        [
            (F.relu, 0.0, 0.0),
            (F.abs, 0.0, 0.0),
            (F.leaky_relu, 0.0, 0.01),
            (lambda x: F.clip(x, 0.0, 1.0), 0.0, 1.0),
            (lambda x: F.clip(x, 0.0, 1.0), 1.0, 1.0),
            (lambda x: F.pow(x, 0.0), 0.0, 0.0),
            (lambda x: F.pow(x, 2.0), 0.0, 0.0),
        ],
    )
    def test_the_slope_is_that_of_pytorch(self, f, at, slope, backend):
        x = mr.tensor([at], requires_grad=True)
        f(x).sum().backward()
        np.testing.assert_allclose(x.grad, [slope], rtol=1e-6)

    def test_ties_of_max_share_the_gradient(self):
        x = mr.tensor([[1.0, 3.0, 3.0]], requires_grad=True)
        x.max(1).sum().backward()
        assert x.grad.tolist() == [[0, 0.5, 0.5]]


class TestExtremes:
    def test_nothing_overflows(self, backend):
        x = mr.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], requires_grad=True)
        for f, expected in (
            (F.sigmoid, [0, 0, 0.5, 1, 1]),
            (F.softmax, [0, 0, 0, 0, 1]),
            (F.log_softmax, [-2e4, -10100, -1e4, -9900, 0]),
        ):
            x.grad = None
            y = f(x)
            np.testing.assert_allclose(y.numpy(), expected, atol=1e-30, rtol=1e-6)
            y.sum().backward()
            assert np.isfinite(x.grad).all()

    def test_a_power_with_a_base_of_zero(self):
        x, y = mr.tensor([0.0, 2.0], requires_grad=True), mr.tensor([3.0, 3.0], requires_grad=True)
        F.pow(x, y).sum().backward()
        np.testing.assert_allclose(x.grad, [0, 12])
        np.testing.assert_allclose(y.grad, [0, 8 * np.log(2)], rtol=1e-6)


class TestDropout:
    def test_proportion_and_scale(self):
        mr.manual_seed(0)
        y = F.dropout(mr.tensor(np.ones((200, 200), np.float32)), 0.3).numpy()
        assert abs((y == 0).mean() - 0.3) < 0.01
        np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-6)

    def test_masks_are_new_each_time_and_repeat_with_the_seed(self):
        x, masks = mr.tensor(np.ones(1000, np.float32)), []
        for seed in (1, 1, 2):
            mr.manual_seed(seed)
            masks += [F.dropout(x).numpy(), F.dropout(x).numpy()]
        a, b, again_a, again_b, other, _ = masks
        assert (a != b).any()
        assert (a != other).any()
        np.testing.assert_array_equal([a, b], [again_a, again_b])

    def test_probabilities_0_and_1(self):
        x = mr.tensor([1.0, 2.0], requires_grad=True)
        assert F.dropout(x, 0.0).numpy().tolist() == [1, 2]
        y = F.dropout(x, 1.0)
        y.sum().backward()
        assert (y.numpy().tolist(), x.grad.tolist()) == ([0, 0], [0, 0])


@pytest.mark.parametrize("f", [lambda x: x[:, 1:], lambda x: x[0], lambda x: x[..., None], lambda x: F.pad(x, (1, 1))])
def test_a_slice_shares_no_memory_with_its_source(f):
    """Changing a slice in place changes nothing else, because a graph may hold the source."""
    x = mr.tensor(np.ones((3, 4)))
    f(x).numpy()[...] = 5
    assert (x.numpy() == 1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_of_a_bias_is_a_sum_over_positions(dtype):
    """Of as many values as a training step has, whose sum is exact in float64."""
    rng = np.random.default_rng(0)
    x, w, b = (mr.tensor(rng.standard_normal(s).astype(dtype)) for s in ((16, 2, 32, 33), (5, 2, 3, 3), (5,)))
    b.requires_grad = True
    dy = rng.standard_normal((16, 5, 32, 33)).astype(dtype)
    F.conv2d(x, w, b, padding=1).backward(dy)
    expected = dy.sum((0, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(b.grad, expected, atol=(1e-4 if dtype == "float32" else 1e-10) * dy.size**0.5)
