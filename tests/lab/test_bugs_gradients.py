"""The bug zoo: what each mistake makes of a gradient, against formulas; that gradcheck finds it."""

import numpy as np
import pytest
from bug_network import IMAGES, LABELS, RNG, Net, check, gradients, loss_of

import minires as mr
from minires import functional as F
from minires import lab
from minires.gradcheck import GradcheckError
from minires.lab.experiments.bugs import BACKWARD, BOTH_PASSES
from minires.lab.experiments.bugs.backward import additions_below, overwriting_input_grad
from minires.models.blocks import BasicBlock, PreActBasicBlock
from minires.ops.fused import BatchNormAddReLU
from minires.tensor import topological_order


def differ(a, b):
    return [name for name in a if not np.allclose(a[name], b[name], rtol=1e-9, atol=1e-13)]


names = pytest.mark.parametrize("name", [m.name for m in BACKWARD])
paths = pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])

# --- every mistake in the backward pass

OPERATIONS = {
    "tape": (None,),
    "addition": ("add_relu",),
    "shortcut": ("zero_pad_shortcut",),
    "batch norm": ("batchnorm",),
    "convolution": ("conv2d",),
    "ReLU": ("add_relu", "relu"),
    "pooling": ("avgpool2d",),
    "classifier": ("linear",),
}


def test_there_are_enough_of_them():
    assert len(BACKWARD) >= 14
    assert len(lab.MISTAKES) == len(BACKWARD) + len(BOTH_PASSES)
    assert {m.fused for m in lab.MISTAKES.values()} <= {"fused", "array", "same"}


@pytest.mark.parametrize(  # the usual suite takes the path that training takes, and the other one where there is none
    ("name", "fused"),
    [
        pytest.param(
            *(m.name, fused),
            marks=() if fused == (m.fused != "array") else pytest.mark.slow,
            id=f"{m.name}-{'fused' if fused else 'unfused'}",
        )
        for m in BACKWARD
        for fused in (True, False)
    ],
)
def test_gradcheck_finds_it_and_says_where(name, fused):
    mistake, model = lab.MISTAKES[name], Net(blocks=4 if name == "depth-from-global" else 1)
    right = gradients(model, fused)[1]
    with lab.inject(name), mr.fusion(fused):
        result = check(model)
    assert not result.passed
    if name != "depth-from-global" and mistake.where != "loss":
        assert result.operation in OPERATIONS[mistake.where]
    if mistake.where == "loss":
        assert "the mistake is in the loss" in result.location
    assert not differ(right, gradients(model, fused)[1])  # it is gone


@paths
@pytest.mark.parametrize("blocks", [1, 4])
def test_gradcheck_passes_without_a_mistake(fused, blocks):
    with mr.fusion(fused):
        assert check(Net(blocks=blocks)).passed


def test_an_error_by_gradcheck_does_not_leave_it_behind():
    model = Net()
    with pytest.raises(GradcheckError), lab.inject("skip-dropped"):
        mr.gradcheck_model(model, IMAGES, directions=1, eps=1e-5)
    assert check(model).passed


@paths
def test_the_global_depth_is_right_at_one_depth_only(fused):
    three, four = Net(blocks=3), Net(blocks=4)
    right = [gradients(m, fused)[1] for m in (three, four)]
    with lab.inject("depth-from-global"), mr.fusion(fused):
        assert check(three).passed
        wrong = [gradients(m, fused)[1] for m in (three, four)]
    assert not differ(right[0], wrong[0])
    assert all((g == 0).all() for name, g in wrong[1].items() if name.startswith("layer.3"))
    assert "conv.weight" in differ(right[1], wrong[1])
    ops = [x.op for x in topological_order([loss_of(four)]) if x.op is not None and x.op.residual is not None]
    assert [additions_below(op) for op in ops] == [0, 1, 2, 3]


@pytest.mark.parametrize("block", [BasicBlock, PreActBasicBlock])
@names
def test_forward_is_right_and_fused_is_as_wrong_as_unfused(name, block):
    model = Net(block, blocks=4)
    right_loss, right = gradients(model)
    unfused_loss, _ = gradients(model, fused=False)
    with lab.inject(name):
        fused_loss, wrong = gradients(model)
        assert fused_loss == right_loss
        again_loss, again = gradients(model, fused=False)
        assert again_loss == unfused_loss
    for key in wrong:
        np.testing.assert_allclose(wrong[key], again[key], rtol=1e-7, atol=1e-10)
    only_v1 = name == "relu-mask-of-branch" and block is PreActBasicBlock
    assert bool(differ(right, wrong)) != only_v1
    assert not differ(right, gradients(model)[1])


def test_the_fused_path_does_run():
    with lab.inject("norm-mean-dropped"):
        ops = [type(x.op) for x in topological_order([loss_of(Net())])]
    assert BatchNormAddReLU in ops


# --- additions and the tape


def test_the_shortcut_and_its_shares():
    """With one addition the gradient is linear in the shortcut's factor: 0, ½, 1, 2."""
    model = Net()
    _, right = gradients(model)
    found = {}
    for name in ("skip-dropped", "skip-doubled", "skip-halved"):
        with lab.inject(name):
            found[name] = gradients(model)[1]
    for key, g in right.items():
        np.testing.assert_allclose(found["skip-dropped"][key] + found["skip-doubled"][key], 2 * g, atol=1e-12)
        below = key.startswith(("conv", "bn", "layer"))
        np.testing.assert_allclose(found["skip-halved"][key], g / 2 if below else g, atol=1e-12)
    assert differ(found["skip-dropped"], right) == ["conv.weight", "bn.weight", "bn.bias"]


def test_fan_out():
    x = mr.tensor([3.0], requires_grad=True)
    with lab.inject("fan-out-overwritten"):
        (x * 2 + x * 5).backward()
    assert x.grad.item() in (2, 5)
    x.grad = None
    (x * 2 + x * 5).backward()
    assert x.grad.item() == 7


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("relu-mask-of-branch", lambda a, b, dy: a > 0),
        ("relu-mask-of-gradient", lambda a, b, dy: dy > 0),
        ("relu-passes-everything", lambda a, b, dy: dy == dy),
    ],
)
def test_masks(name, mask):
    a, b, dy = RNG.standard_normal((3, 2, 3, 4, 4))
    x, s = mr.tensor(a, requires_grad=True), mr.tensor(b, requires_grad=True)
    with lab.inject(name):
        F.add_relu(x, s).backward(dy)
    for t in (x, s):
        np.testing.assert_array_equal(t.grad, dy * mask(a, b, dy))


def test_the_upsampled_shortcut():
    x, dy = mr.tensor(RNG.standard_normal((2, 3, 5, 4)), requires_grad=True), RNG.standard_normal((2, 7, 3, 2))
    with lab.inject("shortcut-upsampled"):
        F.zero_pad_shortcut(x, 2, 1, 3).backward(dy)
    expected = [[np.kron(dy[n, 1 + c], np.ones((2, 2)))[:5, :4] for c in range(3)] for n in range(2)]
    np.testing.assert_array_equal(x.grad, expected)


# --- batch norm


@pytest.mark.parametrize(
    ("name", "mean_is_constant", "variance_is_constant"),
    [
        ("norm-mean-dropped", True, False),
        ("norm-variance-dropped", False, True),
        ("norm-statistics-constant", True, True),
    ],
)
def test_dropped_terms_are_constant_statistics(name, mean_is_constant, variance_is_constant):
    """Against the composition of operations in which the mean or the variance is detached from the graph."""
    values, dy = RNG.standard_normal((3, 2, 4, 4)) * 2 + 1, RNG.standard_normal((3, 2, 4, 4))
    x, w, b = (mr.tensor(v, requires_grad=True) for v in (values, np.array([1.5, 0.5]), np.zeros(2)))
    mean = x.mean((0, 2, 3), keepdim=True)
    # Σ (x − μ) = 0, so that the variance does not depend on x through μ
    away = x - mean.detach()
    variance = (away * away).mean((0, 2, 3), keepdim=True)
    mean = mean.detach() if mean_is_constant else mean
    variance = variance.detach() if variance_is_constant else variance
    ((x - mean) / (variance + 1e-5).sqrt() * w.reshape(1, 2, 1, 1) + b.reshape(1, 2, 1, 1)).backward(dy)
    expected = [t.grad for t in (x, w, b)]
    for t in (x, w, b):
        t.grad = None
    with lab.inject(name):
        F.batch_norm(x, None, None, w, b, training=True).backward(dy)
    for t, grad in zip((x, w, b), expected):
        np.testing.assert_allclose(t.grad, grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["norm-stale-statistics", "norm-scale-of-input"])
def test_norms_against_formulas(name):
    values, dy = RNG.standard_normal((3, 2, 4, 4)) * 2 + 1, RNG.standard_normal((3, 2, 4, 4))
    x, w, b = (mr.tensor(v, requires_grad=True) for v in (values, np.array([1.5, 0.5]), np.zeros(2)))
    mean, var = np.array([0.5, -0.3]), np.array([2.0, 0.7])
    with lab.inject(name):
        F.batch_norm(x, mean, var, w, b, training=True, momentum=0.1).backward(dy)
    for c, gamma in enumerate(w.data):
        v, g = values[:, c], dy[:, c]
        mu, inv = (mean[c], (var[c] + 1e-5) ** -0.5) if "stale" in name else (v.mean(), (v.var() + 1e-5) ** -0.5)
        x_hat = (v - mu) * inv
        dx = gamma * inv * (g - g.mean() - x_hat * (g * x_hat).mean())
        np.testing.assert_allclose(x.grad[:, c], dx, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(w.grad[c], (g * (x_hat if "stale" in name else v)).sum(), rtol=1e-9)
        np.testing.assert_allclose(b.grad[c], g.sum(), rtol=1e-9)


def test_evaluation_has_no_such_terms():
    x = mr.tensor(RNG.standard_normal((3, 2, 4, 4)), requires_grad=True)
    statistics = np.zeros(2), np.ones(2)
    for name in ("norm-mean-dropped", "norm-stale-statistics"):
        x.grad = None
        with lab.inject(name):
            F.batch_norm(x, *statistics).backward(np.ones(x.shape))
        np.testing.assert_allclose(x.grad, (1 + 1e-5) ** -0.5)


# --- convolution


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 1, 1, 1), (2, 1, 1, 2), (1, 2, 2, 1), (2, 0, 1, 1)]
)
def test_col2im_keeps_the_last_gradient_of_a_pixel(stride, padding, dilation, groups):
    dy_shape = F.conv2d(
        mr.tensor(np.zeros((2, 4, 5, 6))),
        mr.tensor(np.zeros((4, 4 // groups, 3, 3))),
        None,
        stride,
        padding,
        dilation,
        groups,
    ).shape
    w, dy = RNG.standard_normal((3, 3, 4 // groups, 4)), RNG.standard_normal((2, *dy_shape[2:], 4))
    expected = np.zeros((2, 5, 6, 4))
    for kh, kw, oh, ow in np.ndindex(3, 3, *dy_shape[2:]):  # taps outermost, as in col2im
        h, v = oh * stride + kh * dilation - padding, ow * stride + kw * dilation - padding
        if 0 <= h < 5 and 0 <= v < 6:
            for c in range(4):
                size, group = 4 // groups, c // (4 // groups)
                outputs = slice(group * size, (group + 1) * size)
                expected[:, h, v, c] = dy[:, oh, ow, outputs] @ w[kh, kw, c % size, outputs]
    geometry = (stride, stride), (padding, padding), (dilation, dilation), groups
    np.testing.assert_allclose(overwriting_input_grad(dy, w, (2, 5, 6, 4), geometry), expected, atol=1e-12)


@paths
def test_convolutions(fused):
    images, filters, dy = (
        RNG.standard_normal((3, 2, 5, 5)),
        RNG.standard_normal((4, 2, 3, 3)),
        RNG.standard_normal((3, 4, 5, 5)),
    )

    def grads(images, filters, dy):
        x, w = mr.tensor(images, requires_grad=True), mr.tensor(filters, requires_grad=True)
        with mr.fusion(fused):
            F.conv2d(x, w, padding=1).backward(dy)
        return x.grad, w.grad

    dx, dw = grads(images, filters, dy)
    with lab.inject("kernel-not-flipped"):
        wrong_dx, same_dw = grads(images, filters, dy)
    np.testing.assert_allclose(wrong_dx, grads(images, filters[:, :, ::-1, ::-1].copy(), dy)[0], atol=1e-12)
    np.testing.assert_array_equal(same_dw, dw)
    with lab.inject("weight-gradient-of-last-image"):
        same_dx, wrong_dw = grads(images, filters, dy)
    np.testing.assert_allclose(wrong_dw, grads(images[-1:], filters, dy[-1:])[1], atol=1e-12)
    np.testing.assert_array_equal(same_dx, dx)


# --- head and loss


def test_head_and_loss():
    x, dy = mr.tensor(RNG.standard_normal((3, 2, 4, 4)), requires_grad=True), RNG.standard_normal((3, 2, 1, 1))
    with lab.inject("pool-mean-missing"):
        F.global_avg_pool2d(x).backward(dy)
    np.testing.assert_allclose(x.grad, np.broadcast_to(dy, x.shape))
    y = mr.tensor(RNG.standard_normal((3, 5)), requires_grad=True)
    p = np.exp(y.data) / np.exp(y.data).sum(1, keepdims=True)
    g = p - np.eye(5)[LABELS]
    with lab.inject("loss-mean-missing"):
        F.cross_entropy(y, LABELS).backward()
    np.testing.assert_allclose(y.grad, g)
    y.grad = None
    with lab.inject("softmax-twice"):
        F.cross_entropy(y, LABELS).backward()
    jacobians = [np.diag(q) - np.outer(q, q) for q in p]
    np.testing.assert_allclose(y.grad, [j @ v / 3 for j, v in zip(jacobians, g)], atol=1e-14)
    w, b = mr.tensor(RNG.standard_normal((5, 5)), requires_grad=True), mr.tensor(np.zeros(5), requires_grad=True)
    with lab.inject("bias-gradient-averaged"):
        F.linear(y, w, b).backward(g)
    np.testing.assert_allclose(b.grad, g.mean(0))
    np.testing.assert_allclose(w.grad, g.T @ y.data)
