"""One or more cases for every differentiable function: how minires calls it, how PyTorch does, and on which inputs.

``CASES[name]`` is a list of Twins. Gradients, parity with PyTorch and memory format are all tested with this table, and a
test checks that every public function has a case.
"""

from typing import NamedTuple

import numpy as np

from minires import functional as F
from minires import nn
from minires.gradcheck.cases import apart, normal, positive

LABELS = np.array([2, 0, 4, 4, 1, 3])


class Twins(NamedTuple):
    """``ours(*tensors)``, ``theirs(torch, *tensors)``; ``inputs``: how each argument is drawn, as in gradcheck's Case."""

    label: str
    ours: object
    theirs: object
    inputs: tuple


X = (2, 3, 5, 4)  # an image


def unary(name, inputs=(("normal", X),), **settings):
    """The same name and settings in both libraries."""

    def theirs(torch, x):
        function = getattr(torch, name, None) or getattr(torch.nn.functional, name)
        return function(x, **settings)

    label = ", ".join(f"{k}={v}" for k, v in settings.items()) or "plain"
    return Twins(label, lambda x: getattr(F, name)(x, **settings), theirs, inputs)


def functional(name, *args, inputs, **settings):
    """The same name and arguments in torch.nn.functional."""
    label = ", ".join([*map(str, args), *[f"{k}={v}" for k, v in settings.items()]]) or "plain"

    def ours(*x):
        return getattr(F, name)(*x, *args, **settings)

    def theirs(torch, *x):
        return getattr(torch.nn.functional, name)(*x, *args, **settings)

    return Twins(label, ours, theirs, inputs)


BROADCASTS = {
    "same shape": (X, X),
    "a row": (X, (4,)),
    "channels": (X, (3, 1, 1)),
    "both stretch": ((2, 1, 5, 1), (3, 1, 4)),
    "0-d": ((3, 4), ()),
}


def binary(name, first=normal, second=normal):
    """Both libraries' function of two arrays, for all ways to broadcast."""
    return [
        Twins(
            label, getattr(F, name), lambda torch, a, b, name=name: getattr(torch, name)(a, b), (*first(a), *second(b))
        )
        for label, (a, b) in BROADCASTS.items()
    ]


def conv(label, x, w, bias=True, **settings):
    inputs = normal(x, w, w[:1]) if bias else normal(x, w)
    return functional("conv2d", inputs=inputs, **settings)._replace(label=label)


def batch_norm(label, shape, training, affine=True):
    """Each call gets new running statistics, so that one call does not affect the next."""
    C = shape[1]

    def running():
        return np.linspace(-1, 1, C), np.linspace(0.5, 2, C)

    def ours(x, *affine):
        return F.batch_norm(x, *(v.astype(x.dtype) for v in running()), *affine, training=training)

    def theirs(torch, x, *affine):
        mean, var = (torch.tensor(v, dtype=x.dtype) for v in running())
        return torch.nn.functional.batch_norm(x, mean, var, *affine, training=training)

    return Twins(label, ours, theirs, normal(shape, (C,), (C,)) if affine else normal(shape))


def _with(module, **tensors):
    """The module, with these tensors as its parameters."""
    vars(module).update(tensors)
    return module


def step(label, ours, theirs, shortcut=False, norm_first=False):
    """A step of a residual block: ``ours(x, conv, bn[, shortcut])`` with real modules, against its parts in PyTorch."""
    inputs = [(2, 4, 5, 5), (6, 4, 3, 3), (4,) if norm_first else (6,), (4,) if norm_first else (6,)]

    def run(x, w, gamma, beta, *shortcut):
        conv = _with(nn.Conv2d(4, 6, 3, padding=1, bias=False), weight=w)
        bn = _with(nn.BatchNorm2d(len(gamma)), weight=gamma, bias=beta)
        return ours(x, conv, bn, *shortcut)

    def parts(torch, x, w, gamma, beta, *shortcut):
        functions = torch.nn.functional
        conv = lambda t: functions.conv2d(t, w, padding=1)  # noqa: E731
        bn = lambda t: functions.batch_norm(t, None, None, gamma, beta, training=True)  # noqa: E731
        return theirs(torch, x, conv, bn, *shortcut)

    return Twins(label, run, parts, normal(*inputs, *[(2, 6, 5, 5)] * shortcut))


def _seeded_dropout(x):
    """Dropout with the same mask every time, for finite differences."""
    from minires import manual_seed

    manual_seed(3)
    return F.dropout(x, 0.4)


def _dropout_twin(torch, x):
    from minires import manual_seed
    from minires.random import generator

    manual_seed(3)
    keep = generator().random(tuple(x.shape), dtype=np.float32) >= 0.4
    return x * torch.tensor(keep / 0.6, dtype=x.dtype)


def _index(label, index):
    def theirs(torch, x):
        parts = index if isinstance(index, tuple) else (index,)
        return x[tuple(torch.as_tensor(p) if isinstance(p, np.ndarray) else p for p in parts)]

    return Twins(label, lambda x: F.getitem(x, index), theirs, normal((3, 4, 6, 5)))


CASES = {
    # arithmetic
    "add": binary("add"),
    "sub": binary("sub"),
    "mul": binary("mul"),
    "div": binary("div", second=positive),
    "pow": [
        *binary("pow", first=positive),
        Twins("square", lambda x: F.pow(x, 2), lambda torch, x: x**2, normal(X)),
        Twins("cube of a scalar base", lambda x: F.pow(2.0, x), lambda torch, x: 2.0**x, normal(X)),
    ],
    "neg": [unary("neg")],
    "exp": [unary("exp")],
    "log": [unary("log", positive(X))],
    "sqrt": [unary("sqrt", positive(X))],
    "abs": [unary("abs", apart(X))],
    "clip": [
        unary("clip", apart(X), min=-2.0, max=3.0),
        unary("clip", apart(X), min=0.0),
        unary("clip", apart(X), max=1),
    ],
    # activations
    "relu": [unary("relu", apart(X)), unary("relu", apart((7,)))._replace(label="1-d")],
    "residual_add": [Twins("one shape", F.residual_add, lambda torch, a, b: a + b, normal(X, X))],
    "add_relu": [
        Twins("same shape", F.add_relu, lambda torch, a, b: torch.relu(a + b), normal(X, X)),
        Twins("broadcast", F.add_relu, lambda torch, a, b: torch.relu(a + b), normal(X, (3, 1, 1))),
    ],
    "leaky_relu": [unary("leaky_relu", apart(X)), unary("leaky_relu", apart(X), negative_slope=0.2)],
    "gelu": [unary("gelu"), unary("gelu", approximate="tanh")],
    "sigmoid": [unary("sigmoid")],
    "tanh": [unary("tanh")],
    "softmax": [unary("softmax", dim=1), unary("softmax", normal((4, 7)), dim=-1)],
    "log_softmax": [unary("log_softmax", dim=1), unary("log_softmax", normal((4, 7)), dim=-1)],
    "dropout": [
        Twins("fixed mask", _seeded_dropout, _dropout_twin, normal(X)),
        functional("dropout", 0.5, False, inputs=normal(X)),
    ],
    # layers
    "conv2d": [
        conv("plain", (2, 3, 5, 4), (4, 3, 3, 3)),
        conv("padded, strided", (2, 3, 6, 7), (5, 3, 3, 3), stride=2, padding=1, bias=False),
        conv("everything uneven", (1, 4, 9, 8), (6, 2, 2, 3), stride=(3, 1), padding=(2, 3), dilation=(2, 3), groups=2),
        conv("1×1, stride 2", (2, 5, 4, 5), (3, 5, 1, 1), stride=2),
        conv("depthwise", (2, 4, 4, 4), (8, 1, 3, 3), padding=1, groups=4),
        conv("1×1 images, one of them", (1, 3, 1, 1), (2, 3, 3, 3), padding=1),
    ],
    "linear": [
        functional("linear", inputs=normal((6, 5), (4, 5), (4,))),
        functional("linear", inputs=normal((2, 3, 5), (4, 5)))._replace(label="3-d, no bias"),
        functional("linear", inputs=normal((5,), (4, 5), (4,)))._replace(label="1-d"),
    ],
    "matmul": [
        Twins(label, F.matmul, lambda torch, a, b: torch.matmul(a, b), normal(a, b))
        for label, a, b in [
            ("2-d", (4, 5), (5, 3)),
            ("1-d, 1-d", (5,), (5,)),
            ("1-d, 2-d", (5,), (5, 3)),
            ("2-d, 1-d", (4, 5), (5,)),
            ("batches", (2, 4, 5), (2, 5, 3)),
            ("batch, 2-d", (2, 4, 5), (5, 3)),
            ("2-d, batch", (4, 5), (2, 5, 3)),
            ("batches that broadcast", (2, 1, 4, 5), (3, 5, 2)),
            ("4-d", (2, 3, 4, 5), (2, 3, 5, 2)),
        ]
    ],
    "batch_norm": [
        batch_norm("training", (3, 4, 3, 2), True),
        batch_norm("evaluation", (3, 4, 3, 2), False),
        batch_norm("not affine", (2, 3, 3, 3), True, affine=False),
        batch_norm("features, training", (6, 5), True),
        batch_norm("features, evaluation", (6, 5), False),
    ],
    "max_pool2d": [
        functional("max_pool2d", 2, inputs=apart(X)),
        functional("max_pool2d", 3, 2, 1, inputs=apart((2, 3, 7, 6))),
        functional("max_pool2d", (3, 2), (1, 2), (1, 0), (2, 1), inputs=apart((2, 3, 7, 6))),
    ],
    "avg_pool2d": [
        functional("avg_pool2d", 2, inputs=normal(X)),
        functional("avg_pool2d", 3, 2, 1, inputs=normal((2, 3, 7, 6))),
        functional("avg_pool2d", (3, 2), (1, 3), (1, 1), count_include_pad=False, inputs=normal((2, 3, 7, 6))),
    ],
    "global_avg_pool2d": [
        Twins("plain", F.global_avg_pool2d, lambda t, x: t.nn.functional.adaptive_avg_pool2d(x, 1), normal(X))
    ],
    "global_max_pool2d": [
        Twins("plain", F.global_max_pool2d, lambda t, x: t.nn.functional.adaptive_max_pool2d(x, 1), apart(X))
    ],
    "interpolate": [
        functional("interpolate", (7, 3), inputs=normal(X)),
        functional("interpolate", 9, inputs=normal(X), mode="bilinear"),
        functional("interpolate", inputs=normal(X), scale_factor=2.0),
        functional("interpolate", inputs=normal(X), scale_factor=(1.7, 0.6), mode="nearest"),
        functional("interpolate", inputs=normal(X), scale_factor=(1.7, 0.6), mode="bilinear", align_corners=False),
        functional("interpolate", (1, 11), inputs=normal(X), mode="bilinear", align_corners=True),
    ],
    # steps of residual blocks
    "conv_bn": [step("plain", F.conv_bn, lambda t, x, conv, bn: bn(conv(x)))],
    "conv_bn_relu": [step("plain", F.conv_bn_relu, lambda t, x, conv, bn: t.relu(bn(conv(x))))],
    "conv_bn_add_relu": [
        step("plain", F.conv_bn_add_relu, lambda t, x, conv, bn, s: t.relu(bn(conv(x)) + s), shortcut=True)
    ],
    "bn_relu": [step("plain", lambda x, conv, bn: F.bn_relu(conv(x), bn), lambda t, x, conv, bn: t.relu(bn(conv(x))))],
    "bn_relu_conv": [
        step(
            "plain",
            lambda x, conv, bn: F.bn_relu_conv(x, bn, conv),
            lambda t, x, conv, bn: conv(t.relu(bn(x))),
            norm_first=True,
        )
    ],
    "bn_relu_conv_add": [
        step(
            "plain",
            lambda x, conv, bn, s: F.bn_relu_conv_add(x, bn, conv, s),
            lambda t, x, conv, bn, s: conv(t.relu(bn(x))) + s,
            shortcut=True,
            norm_first=True,
        )
    ],
    # losses
    "cross_entropy": [
        Twins(
            f"smoothing {smoothing}, {reduction}",
            lambda x, s=smoothing, r=reduction: F.cross_entropy(x, LABELS, label_smoothing=s, reduction=r),
            lambda t, x, s=smoothing, r=reduction: t.nn.functional.cross_entropy(
                x, t.as_tensor(LABELS), label_smoothing=s, reduction=r
            ),
            normal((6, 5)),
        )
        for smoothing in (0.0, 0.1)
        for reduction in ("mean", "sum", "none")
    ],
    "mse_loss": [functional("mse_loss", inputs=normal((4, 3), (4, 3)), reduction=r) for r in ("mean", "sum", "none")],
    # reductions
    "sum": [
        Twins("all", F.sum, lambda t, x: t.sum(x), normal(X)),
        Twins("channels", lambda x: F.sum(x, 1), lambda t, x: t.sum(x, 1), normal(X)),
        Twins("kept", lambda x: F.sum(x, (0, -1), True), lambda t, x: t.sum(x, (0, -1), True), normal(X)),
    ],
    "mean": [
        Twins("all", F.mean, lambda t, x: t.mean(x), normal(X)),
        Twins("rows", lambda x: F.mean(x, -2), lambda t, x: t.mean(x, -2), normal(X)),
        Twins("kept", lambda x: F.mean(x, (2, 3), True), lambda t, x: t.mean(x, (2, 3), True), normal(X)),
    ],
    "max": [
        Twins("all", F.max, lambda t, x: t.amax(x), apart(X)),
        Twins("rows", lambda x: F.max(x, 2), lambda t, x: t.amax(x, 2), apart(X)),
        Twins("kept", lambda x: F.max(x, (1, 3), True), lambda t, x: t.amax(x, (1, 3), True), apart(X)),
    ],
    # moving elements
    "reshape": [
        Twins("to an image", lambda x: F.reshape(x, (2, 5, 3, -1)), lambda t, x: x.reshape(2, 5, 3, -1), normal(X)),
        Twins("to rows", lambda x: F.reshape(x, 6, 20), lambda t, x: x.reshape(6, 20), normal(X)),
        Twins("from rows", lambda x: F.reshape(x, 2, 2, 3, 5), lambda t, x: x.reshape(2, 2, 3, 5), normal((4, 15))),
    ],
    "flatten": [
        Twins("all", F.flatten, lambda t, x: x.flatten(), normal(X)),
        Twins("from 1", lambda x: F.flatten(x, 1), lambda t, x: x.flatten(1), normal(X)),
    ],
    "permute": [Twins("plain", lambda x: F.permute(x, 3, 0, -2, 1), lambda t, x: x.permute(3, 0, -2, 1), normal(X))],
    "transpose": [Twins("plain", lambda x: F.transpose(x, 1, -1), lambda t, x: x.transpose(1, -1), normal(X))],
    "getitem": [
        _index("slices", (slice(None), slice(1, 3), slice(None, None, 2), slice(-4, None, 3))),
        _index("integers", (1, slice(None), -1)),
        _index("None and ...", (None, Ellipsis, 2)),
        _index("a new axis of three", (slice(None), None, 0)),
        _index("an array with repeats", np.array([0, 2, 0, 1, 2])),
        _index("arrays", (np.array([0, 1, 1]), np.array([3, 0, 0]))),
        _index("a mask", np.array([True, False, True])),
    ],
    "cat": [
        Twins("channels", lambda *x: F.cat(x, 1), lambda t, *x: t.cat(x, 1), normal(X, (2, 1, 5, 4), X)),
        Twins("one image", lambda x: F.cat([x], 1), lambda t, x: t.cat([x], 1), normal(X)),
        Twins("channels from behind", lambda *x: F.cat(x, -3), lambda t, *x: t.cat(x, -3), normal(X, (2, 20, 5, 4))),
        Twins("rows", lambda *x: F.cat(x), lambda t, *x: t.cat(x), normal((2, 3), (4, 3))),
        Twins("images", lambda *x: F.cat(x), lambda t, *x: t.cat(x), normal(X, (1, 3, 5, 4))),
    ],
    "stack": [
        Twins("images", lambda *x: F.stack(x), lambda t, *x: t.stack(x), normal((3, 5, 4), (3, 5, 4))),
        Twins("last", lambda *x: F.stack(x, -1), lambda t, *x: t.stack(x, -1), normal((3, 4), (3, 4))),
    ],
    "pad": [
        functional("pad", (1, 2), inputs=normal((3, 4))),
        functional("pad", (1, 2, 0, 3), inputs=normal(X))._replace(label="image"),
        Twins(
            "channels, value",
            lambda x: F.pad(x, (0, 0, 1, 0, 2, 1), value=0.5),
            lambda t, x: t.nn.functional.pad(x, (0, 0, 1, 0, 2, 1), value=0.5),
            normal(X),
        ),
    ],
    "zero_pad_shortcut": [
        Twins(
            "uneven",
            lambda x: F.zero_pad_shortcut(x, 2, 1, 2),
            lambda t, x: t.nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)),
            normal(X),
        ),
        Twins(
            "of an inner tensor, materialized",
            lambda x: F.zero_pad_shortcut(x * 2, 3, 0, 1) * 3,
            lambda t, x: t.nn.functional.pad((x * 2)[:, :, ::3, ::3], (0, 0, 0, 0, 0, 1)) * 3,
            normal(X),
        ),
    ],
}

EVERY = [(name, case) for name, cases in CASES.items() for case in cases]
IDS = [f"{name}: {case.label}" for name, case in EVERY]
