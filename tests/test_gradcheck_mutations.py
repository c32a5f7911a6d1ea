"""Mistakes planted in backward passes: each must be found and located, in the table of operations and in a network.

A mutation replaces a function of the reference back end or a method of an operation. ``wrong`` are exactly the entries of
the table that must fail; ``operation`` is what each must blame; ``module`` is the first wrong module of Net.
"""

from importlib import import_module
from typing import NamedTuple

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.gradcheck.cases import check, select
from minires.gradcheck.locate import NO_OPERATION
from minires.kernels import reference
from minires.kernels.reference import conv, pool
from minires.models.blocks import BasicBlock
from minires.ops import activation, arithmetic, linear, normalization, reduction

STEPS = {"conv_bn", "conv_bn_relu", "conv_bn_add_relu", "bn_relu", "bn_relu_conv", "bn_relu_conv_add"}
RELUS = {"conv_bn_relu", "conv_bn_add_relu", "bn_relu", "bn_relu_conv", "bn_relu_conv_add"}
LOSS = "the loss"
EPS = 1e-6  # no sweep over steps, which takes four evaluations of five and has its own tests


class Net(nn.Module):
    """A little of everything; for each mutation, its first wrong module is known."""

    def __init__(self):
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer = BasicBlock(4, 6, stride=2, option="B")
        self.avgpool = nn.AvgPool2d(2)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(0.3)
        self.hidden = nn.Linear(6, 6)
        self.scale = nn.Parameter(np.linspace(0.5, 2, 6, dtype=np.float32))
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.maxpool(F.conv_bn_relu(x, self.conv, self.bn))
        x = self.flatten(self.avgpool(self.layer(x)))
        return self.head(self.hidden(self.dropout(x)).tanh() * self.scale)


def smoothed(y):
    return F.cross_entropy(y, np.array([0, 3, 4, 1]), label_smoothing=0.2)


class Mutation(NamedTuple):
    plant: object
    wrong: set
    operation: str | None
    module: str | None
    loss: object = None


# --- the tape


def fan_out_overwritten(monkeypatch):
    tape = import_module("minires.tensor")  # mr.tensor is the function
    monkeypatch.setattr(tape, "_add", lambda totals, x, dx, owned: totals.update({id(x): (dx, False)}))


# --- batch norm


def _batch_norm_grad(monkeypatch, change):
    right = reference.batch_norm_grad

    def wrong(dy, x, mean, inv_std, weight, training):
        dx, dw, db = right(dy, x, mean, inv_std, weight, training)
        return change(dx, dw, db, dy, x, mean, inv_std, weight, training)

    monkeypatch.setattr(reference, "batch_norm_grad", wrong)


def mean_term_dropped(monkeypatch):
    def change(dx, dw, db, dy, x, mean, inv_std, weight, training):
        return dx + training * weight * inv_std * db * x.shape[-1] / x.size, dw, db

    _batch_norm_grad(monkeypatch, change)


def variance_term_dropped(monkeypatch):
    def change(dx, dw, db, dy, x, mean, inv_std, weight, training):
        return dx + training * weight * inv_std * (x - mean) * inv_std * dw * x.shape[-1] / x.size, dw, db

    _batch_norm_grad(monkeypatch, change)


def running_statistics_used_in_training(monkeypatch):
    right = normalization.BatchNorm.backward

    def wrong(self, dy, needs):
        if self.running is not None:
            self.mean, var, _ = self.running
            self.inv_std = 1 / np.sqrt(var + self.eps)
        return right(self, dy, needs)

    monkeypatch.setattr(normalization.BatchNorm, "backward", wrong)


def running_momentum_sign(monkeypatch):
    def wrong(running_mean, running_var, momentum, mean, var, count):
        running_mean[...] = (1 + momentum) * running_mean - momentum * mean
        running_var[...] = (1 + momentum) * running_var - momentum * var * (count / (count - 1))

    monkeypatch.setattr(normalization, "update_running_stats", wrong)


# --- convolution


def col2im_overwriting(monkeypatch):
    def wrong(columns, x_shape, stride, padding, dilation):
        N, H, W, C = x_shape
        OH, OW, KH, KW = columns.shape[1:5]
        padded = np.zeros((N, H + 2 * padding[0], W + 2 * padding[1], C))
        for kh in range(KH):
            for kw in range(KW):
                rows, cols = conv.tap(kh, kw, (OH, OW), stride, dilation)
                padded[:, rows, cols] = columns[:, :, :, kh, kw]
        return padded[:, padding[0] : padding[0] + H, padding[1] : padding[1] + W]

    monkeypatch.setattr(conv, "col2im", wrong)


def kernel_flipped(monkeypatch):
    right = reference.conv2d_input_grad
    monkeypatch.setattr(reference, "conv2d_input_grad", lambda dy, w, *rest: right(dy, w[::-1, ::-1], *rest))


def padding_off_by_one(monkeypatch):
    right = conv.col2im

    def wrong(columns, x_shape, stride, padding, dilation):
        dx = right(columns, x_shape, stride, padding, dilation)
        return np.roll(dx, 1, axis=1) if padding[0] else dx

    monkeypatch.setattr(conv, "col2im", wrong)


def stride_ignored(monkeypatch):
    right = reference.conv2d_weight_grad

    def wrong(x, dy, w_shape, stride, padding, dilation, groups):
        x, dy = reference.values(x), reference.values(dy)
        spread = [(n - 1) * s + 1 for n, s in zip(dy.shape[1:3], stride)]  # the size of dy, spread over the pixels of x
        near = np.zeros((len(x), *spread, dy.shape[3]))
        near[:, : dy.shape[1], : dy.shape[2]] = dy
        short = tuple(
            slice(0, n - (n + 2 * p - d * (k - 1) - 1) % s)  # rows that no window sees
            for n, k, s, p, d in zip(x.shape[1:3], w_shape, stride, padding, dilation)
        )
        return right(x[:, short[0], short[1]], near, w_shape, (1, 1), padding, dilation, groups)

    monkeypatch.setattr(reference, "conv2d_weight_grad", wrong)


# --- linear, activations, pooling, losses


def weight_gradient_transposed(monkeypatch):
    right = linear.Linear.backward

    def wrong(self, dy, needs):
        dx, dw, db = right(self, dy, needs)
        return dx, None if dw is None else np.ascontiguousarray(dw.T), db

    monkeypatch.setattr(linear.Linear, "backward", wrong)


def bias_gradient_averaged(monkeypatch):
    right = linear.Linear.backward

    def wrong(self, dy, needs):
        dx, dw, db = right(self, dy, needs)
        return dx, dw, None if db is None else db / len(dy)

    monkeypatch.setattr(linear.Linear, "backward", wrong)


def wrong_mask(monkeypatch):
    monkeypatch.setattr(reference, "relu_grad", lambda dy, y: np.where(dy > 0, dy, 0))


def copies_averaged(monkeypatch):
    right = arithmetic.unbroadcast
    monkeypatch.setattr(arithmetic, "unbroadcast", lambda dy, shape: right(dy, shape) * np.prod(shape) / dy.size)


def softmax_sum_dropped(monkeypatch):
    monkeypatch.setattr(activation.Softmax, "backward", lambda self, dy, needs: (self.y * dy,))


def dropout_scale_forgotten(monkeypatch):
    monkeypatch.setattr(activation.Dropout, "backward", lambda self, dy, needs: (dy * (self.scale > 0),))


def missing_1_over_n(monkeypatch):
    monkeypatch.setattr(reduction.Mean, "backward", lambda self, dy, needs: (self.spread(dy),))


def max_pooling_overwriting(monkeypatch):
    def wrong(dy, index, x_shape):
        N, H, W, C = x_shape
        dx = np.zeros((N, H * W, C))
        dx[np.arange(N)[:, None, None, None], index, np.arange(C)] = dy
        return dx.reshape(x_shape)

    monkeypatch.setattr(reference, "max_pool2d_grad", wrong)


def average_not_divided(monkeypatch):
    monkeypatch.setattr(pool, "_counts", _counts_only_forward(pool._counts))


def _counts_only_forward(right):
    """The reference back end counts in the forward and in the backward pass; only in the latter is the count wrong."""
    from inspect import currentframe

    def counts(*args):
        found = right(*args)
        return np.ones_like(found) if currentframe().f_back.f_code.co_name == "avg_pool2d_grad" else found

    return counts


def label_smoothing_forgotten(monkeypatch):
    right = reference.cross_entropy_grad
    monkeypatch.setattr(reference, "cross_entropy_grad", lambda p, labels, smoothing, dy: right(p, labels, 0.0, dy))


# --- the optimizer


def momentum_sign(monkeypatch):
    right = reference.sgd_step

    def wrong(params, grads, velocities, lr, momentum, weight_decay, nesterov):
        right(params, grads, velocities, lr, -momentum, weight_decay, nesterov)

    monkeypatch.setattr(reference, "sgd_step", wrong)


CONVOLUTIONS = {"conv2d", *STEPS}
BROADCASTING = {"add", "sub", "mul", "div", "pow", "add_relu", "matmul"}
MUTATIONS = {
    "fan-out overwritten": Mutation(fan_out_overwritten, {"fan-out", "mse_loss"}, None, "layer"),
    "batch norm's mean term dropped": Mutation(mean_term_dropped, {"batch_norm", *STEPS}, "batchnorm", "layer.bn2"),
    "batch norm's variance term dropped": Mutation(
        variance_term_dropped, {"batch_norm", *STEPS}, "batchnorm", "layer.bn2"
    ),
    "running statistics used in training": Mutation(
        running_statistics_used_in_training, {"batch_norm", *STEPS}, "batchnorm", "layer.bn2"
    ),
    "sign of the running momentum": Mutation(running_momentum_sign, {"running statistics"}, "running statistics", None),
    "col2im overwriting": Mutation(col2im_overwriting, CONVOLUTIONS, "conv2d", "layer.conv2"),
    "flipped kernel": Mutation(kernel_flipped, CONVOLUTIONS, "conv2d", "layer.conv2"),
    "padding off by one": Mutation(padding_off_by_one, CONVOLUTIONS, "conv2d", "layer.conv2"),
    "stride ignored": Mutation(stride_ignored, {"conv2d"}, "conv2d", "layer.downsample.0"),
    "transposed weight gradient": Mutation(weight_gradient_transposed, {"linear"}, "linear", "head"),
    "bias gradient averaged": Mutation(bias_gradient_averaged, {"linear"}, "linear", "head"),
    "wrong mask": Mutation(wrong_mask, {"relu", "add_relu", "fan-out", *RELUS}, "relu|add_relu", "layer"),
    "copies averaged": Mutation(copies_averaged, BROADCASTING - {"matmul", "add_relu"}, "add|sub|mul|div|pow", ""),
    "softmax's sum dropped": Mutation(softmax_sum_dropped, {"softmax"}, "softmax", None),
    "dropout's scale forgotten": Mutation(dropout_scale_forgotten, {"dropout"}, "dropout", "dropout"),
    "missing 1/N": Mutation(missing_1_over_n, {"mean", "cross_entropy", "mse_loss"}, "mean", LOSS, smoothed),
    "max pooling overwriting": Mutation(max_pooling_overwriting, {"max_pool2d"}, "maxpool2d", "maxpool"),
    "average not divided": Mutation(average_not_divided, {"avg_pool2d", "global_avg_pool2d"}, "avgpool2d", "avgpool"),
    "label smoothing forgotten": Mutation(label_smoothing_forgotten, {"cross_entropy"}, "crossentropy", LOSS, smoothed),
    "momentum sign": Mutation(momentum_sign, {"SGD"}, "SGD", None),
}
every_mutation = pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)


@pytest.fixture(autouse=True)
def readable_kernels():
    with mr.backend("reference"):
        yield


def table():
    return {
        check.name: check
        for check in (check(name, case, eps=EPS, most_elements=0, directions=3) for name, case in select())
    }


def network():
    mr.manual_seed(0)
    return Net(), np.random.default_rng(0).standard_normal((4, 2, 6, 6))


def test_without_a_mistake_nothing_is_wrong():
    assert all(table().values())
    for loss in (None, smoothed):
        assert mr.gradcheck_model(*network(), loss=loss, eps=EPS)


@every_mutation
def test_the_table_finds_it_and_blames_the_operation(mutation, monkeypatch):
    mutation.plant(monkeypatch)
    failed = [result for result in table().values() if not result.passed]
    assert {result.name.partition(":")[0] for result in failed} == mutation.wrong
    for result in failed:
        if mutation.operation is None:
            assert result.operation is None
            assert NO_OPERATION in result.explain()
        elif not result.error or "raised" in result.error:
            assert result.operation in mutation.operation.split("|"), result.explain()


@every_mutation
def test_a_network_finds_it_and_names_the_module(mutation, monkeypatch):
    mutation.plant(monkeypatch)
    result = mr.gradcheck_model(*network(), loss=mutation.loss, eps=EPS, raise_exception=False)
    if mutation.module is None:  # it does not affect the network's gradients
        assert result
        return
    assert not result
    if mutation.module == LOSS:
        assert result.module is None
        assert "the mistake is in the loss" in result.explain()
        return
    assert result.module == mutation.module, result.explain()
    if mutation.operation:
        assert result.operation in {*mutation.operation.split("|")}
    shape_differs = "has shape" in result.finding or "returns a gradient of shape" in result.finding
    assert shape_differs or "analytic" in result.finding
    assert result.finding.startswith(mutation.module or "scale")
