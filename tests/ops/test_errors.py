"""Invalid arguments are refused: the message names the operation, what it got, and what to do."""

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.errors import ConfigError, DataError, DtypeError, ShapeError


def t(*shape, dtype=np.float32):
    return mr.tensor(np.ones(shape, dtype))


IMAGE, WEIGHT = (2, 6, 8, 8), (4, 6, 3, 3)
WRONG = {  # what: (call, error, what the message says)
    "add": (lambda: t(3, 4) + t(5), ShapeError, r"add: .*\(3, 4\) and \(5,\)"),
    "matmul": (lambda: t(3, 4) @ t(5, 2), ShapeError, r"matmul: .*\(3, 4\) and \(5, 2\)"),
    "matmul, leading axes": (lambda: t(2, 3, 4) @ t(3, 4, 2), ShapeError, r"\(2, 3, 4\) and \(3, 4, 2\)"),
    "matmul, 0-d": (lambda: t() @ t(3), ShapeError, r"matmul: .*\(\) and \(3,\)"),
    "linear": (lambda: F.linear(t(2, 5), t(3, 4)), ShapeError, r"linear: .*\(2, 5\).*\(3, 4\)"),
    "linear, bias": (lambda: F.linear(t(2, 4), t(3, 4), t(4)), ShapeError, r"bias of shape \(4,\).*\(3, 4\)"),
    "conv2d, channels": (
        lambda: F.conv2d(t(*IMAGE), t(4, 5, 3, 3)),
        ShapeError,
        r"conv2d: .*\(2, 6, 8, 8\).*\(4, 5, 3, 3\)",
    ),
    "conv2d, groups": (lambda: F.conv2d(t(*IMAGE), t(4, 2, 3, 3), groups=3), ShapeError, "4 filters .* 3 groups"),
    "conv2d, no groups": (lambda: F.conv2d(t(*IMAGE), t(*WEIGHT), groups=0), ConfigError, "groups .* 0"),
    "conv2d, no image": (lambda: F.conv2d(t(6, 8, 8), t(*WEIGHT)), ShapeError, r"\(N, C, H, W\).*\(6, 8, 8\)"),
    "conv2d, weight": (lambda: F.conv2d(t(*IMAGE), t(4, 6, 3)), ShapeError, r"\(O, I, KH, KW\).*\(4, 6, 3\)"),
    "conv2d, bias": (lambda: F.conv2d(t(*IMAGE), t(*WEIGHT), t(6)), ShapeError, r"bias of shape \(6,\).*\(4,\)"),
    "conv2d, kernel": (lambda: F.conv2d(t(2, 6, 2, 8), t(*WEIGHT)), ShapeError, r"kernel \(3, 3\).*\(2, 6, 2, 8\)"),
    "conv2d, dilation": (lambda: F.conv2d(t(*IMAGE), t(*WEIGHT), dilation=4), ShapeError, r"dilation \(4, 4\)"),
    "conv2d, nothing": (lambda: F.conv2d(t(0, 6, 8, 8), t(*WEIGHT)), ShapeError, r"\(0, 6, 8, 8\)"),
    "conv2d, stride": (lambda: F.conv2d(t(*IMAGE), t(*WEIGHT), stride=0), ConfigError, "stride .* 0"),
    "conv2d, padding": (lambda: F.conv2d(t(*IMAGE), t(*WEIGHT), padding=(1, -1)), ConfigError, r"padding .* \(1, -1\)"),
    "conv2d, halves": (
        lambda: F.conv2d(t(*IMAGE), t(*WEIGHT), stride=1.5),
        ConfigError,
        "stride .* 1.5",
    ),
    "conv2d, dtypes": (
        lambda: F.conv2d(t(*IMAGE), t(*WEIGHT, dtype=np.float64)),
        DtypeError,
        "conv2d: .*float32 and float64",
    ),
    "conv2d, integers": (lambda: F.conv2d(t(*IMAGE, dtype=int), t(*WEIGHT, dtype=int)), DtypeError, "int64"),
    "conv2d, arrays": (lambda: F.conv2d(np.ones(IMAGE), t(*WEIGHT)), DtypeError, r"ndarray.*mr\.tensor"),
    "pool, window": (lambda: F.max_pool2d(t(2, 3, 2, 2), 3), ShapeError, r"max_pool2d: .*\(3, 3\).*\(2, 3, 2, 2\)"),
    "pool, padding": (lambda: F.max_pool2d(t(*IMAGE), 3, padding=2), ConfigError, r"\(2, 2\).*half.*\(3, 3\)"),
    "pool, no image": (lambda: F.avg_pool2d(t(3, 4), 2), ShapeError, r"avg_pool2d: .*\(3, 4\)"),
    "global pool": (lambda: F.global_avg_pool2d(t(3, 4)), ShapeError, r"global_avg_pool2d: .*\(3, 4\)"),
    "batch norm, rank": (lambda: F.batch_norm(t(3, 4, 5), None, None, training=True), ShapeError, r"\(3, 4, 5\)"),
    "batch norm, statistics": (
        lambda: F.batch_norm(t(*IMAGE), np.zeros(5), np.ones(6)),
        ShapeError,
        r"running_mean of shape \(5,\).*\(6,\)",
    ),
    "batch norm, one value": (
        lambda: F.batch_norm(t(1, 6, 1, 1), None, None, training=True),
        ShapeError,
        r"one value per channel.*\(1, 6, 1, 1\)",
    ),
    "reshape": (lambda: t(3, 4).reshape(5, -1), ShapeError, r"reshape: 12 elements of shape \(3, 4\).*\(5, -1\)"),
    "permute": (lambda: t(3, 4).permute(0, 0), ShapeError, r"permute: \(0, 0\).*\(3, 4\)"),
    "transpose": (lambda: t(3, 4).transpose(0, 2), ShapeError, "dim 2 .* 2 dimensions"),
    "sum": (lambda: t(3, 4).sum(2), ShapeError, "sum: dim 2"),
    "softmax": (lambda: F.softmax(t(3, 4), dim=-3), ShapeError, "softmax: dim -3"),
    "index": (lambda: t(3, 4)[5], ShapeError, r"index.*\(3, 4\)"),
    "cat": (lambda: F.cat([t(3, 4), t(3, 5)]), ShapeError, r"cat: .*\(3, 4\) and \(3, 5\)"),
    "stack": (lambda: F.stack([t(3, 4), t(4, 3)]), ShapeError, r"stack: .*\(3, 4\) and \(4, 3\)"),
    "relu of an array": (lambda: F.relu(np.ones(3)), DtypeError, r"relu: takes Tensors, got ndarray.*mr\.tensor"),
    "sum of an array": (lambda: F.sum(np.ones(3)), DtypeError, "sum: takes Tensors"),
    "two arrays": (lambda: F.add(np.ones(3), np.ones(3)), DtypeError, "add: takes Tensors"),
    "cat, other axes": (lambda: F.cat([t(3, 4), t(3)], 1), ShapeError, r"cat: .*\(3, 4\) and \(3,\)"),
    "cat, nothing": (lambda: F.cat([]), ShapeError, "cat: needs one"),
    "stack, nothing": (lambda: F.stack([]), ShapeError, "stack: needs one"),
    "astype, half": (lambda: t(3).astype(np.float16), DtypeError, "float16.*float32"),
    "cross-entropy, integers": (
        lambda: F.cross_entropy(mr.tensor([[1, 2]]), np.zeros(1, int)),
        DtypeError,
        "cross_entropy: needs float32 or float64, got int64",
    ),
    "batch norm, half the statistics": (
        lambda: F.batch_norm(t(3, 4), np.zeros(4), None),
        ConfigError,
        "running_mean and running_var come together",
    ),
    "zero_pad_shortcut, rank": (lambda: F.zero_pad_shortcut(t(3, 4), 2, 1, 1), ShapeError, r"shortcut: .*\(3, 4\)"),
    "zero_pad_shortcut, stride": (lambda: F.zero_pad_shortcut(t(*IMAGE), 0, 1, 1), ConfigError, "stride .* 0"),
    "zero_pad_shortcut, channels": (lambda: F.zero_pad_shortcut(t(*IMAGE), 2, 1, -1), ConfigError, "after .* -1"),
    "pad": (lambda: F.pad(t(3, 4), (1, 2, 3)), ConfigError, r"pad: \(1, 2, 3\).*\(3, 4\)"),
    "pad, negative": (lambda: F.pad(t(3, 4), (1, -2)), ConfigError, r"\(1, -2\)"),
    "dropout": (lambda: F.dropout(t(3), 1.5), ConfigError, "dropout: .*1.5"),
    "gelu": (lambda: F.gelu(t(3), "fast"), ConfigError, "'fast'"),
    "mse, broadcast": (lambda: F.mse_loss(t(4), t(4, 1)), ShapeError, r"mse_loss: .*\(4,\).*\(4, 1\)"),
    "mse, dtypes": (lambda: F.mse_loss(t(4), np.ones(4)), DtypeError, "float32 and float64"),
    "cross-entropy, broadcast": (
        lambda: F.cross_entropy(t(4, 3), np.zeros((4, 1), int)),
        ShapeError,
        r"cross_entropy: .*\(4, 3\).*\(4, 1\)",
    ),
    "cross-entropy, one-hot": (lambda: F.cross_entropy(t(4, 3), np.zeros((4, 3), int)), ShapeError, r"\(4, 3\)"),
    "cross-entropy, fewer labels": (
        lambda: F.cross_entropy(t(4, 3), np.zeros(3, int)),
        ShapeError,
        r"\(4, 3\).*\(3,\)",
    ),
    "cross-entropy, floats": (lambda: F.cross_entropy(t(4, 3), np.zeros(4)), DtypeError, "float64.*astype"),
    "cross-entropy, label": (
        lambda: F.cross_entropy(t(4, 3), np.array([0, 1, 3, 2])),
        DataError,
        r"label 3 of sample 2 .*\[0, 3\)",
    ),
    "cross-entropy, negative": (lambda: F.cross_entropy(t(2, 3), np.array([0, -1])), DataError, "label -1 of sample 1"),
    "cross-entropy, empty": (lambda: F.cross_entropy(t(0, 3), np.zeros(0, int)), ShapeError, r"empty.*\(0, 3\)"),
    "cross-entropy, smoothing": (
        lambda: F.cross_entropy(t(2, 3), np.zeros(2, int), label_smoothing=2),
        ConfigError,
        "label_smoothing .* 2",
    ),
    "cross-entropy, reduction": (
        lambda: F.cross_entropy(t(2, 3), np.zeros(2, int), reduction="median"),
        ConfigError,
        "'median'",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_invalid_arguments_are_refused(what):
    call, error, words = WRONG[what]
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_labels_of_any_integer_dtype(dtype, backend):
    labels = np.array([2, 0], dtype)
    logits = mr.tensor([[1.0, 2.0, 3.0], [0.0, 5.0, -1.0]])
    expected = F.cross_entropy(logits, labels.astype(np.int64)).item()
    assert F.cross_entropy(logits, labels).item() == expected
    assert F.cross_entropy(logits, mr.from_numpy(labels)).item() == expected
