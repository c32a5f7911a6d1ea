"""Runs every kernel and a training step, for the tests that examine a whole process.

python everything.py bits              a hash of all results in float32 and float64, on one line
python everything.py bits 3            the same, on three threads set by set_num_threads
python everything.py signatures        compiled kernels, and those whose signatures differ after foreign arrays
python everything.py together          every kernel from two Python threads at once, compared with one alone
"""

import hashlib
import json
import pkgutil
import sys
import threading
from importlib import import_module

import numpy as np

import minires as mr
from minires import functional as F
from minires import kernels
from minires.kernels.descriptors import GRADIENT, MASK, MOMENTS, NORMALISE, NORMALISED, Epilogue, Operand
from minires.ops.resize import line

ONE, LABELS = (1, 1), np.arange(40, dtype=np.int64) % 10
CONVOLUTIONS = [  # x shape, w shape, stride, padding, dilation, groups: few items and many, direct and packed, phases
    ((19, 13, 11, 16), (3, 3, 16, 16), ONE, ONE, ONE, 1),
    ((5, 16, 16, 16), (3, 3, 16, 32), (2, 2), ONE, ONE, 1),
    ((3, 7, 7, 70), (1, 1, 70, 130), (2, 2), (0, 0), ONE, 1),
    ((1, 40, 60, 3), (7, 7, 3, 20), (2, 2), (3, 3), ONE, 1),
    ((4, 9, 9, 24), (3, 3, 6, 24), (1, 2), (2, 2), (2, 2), 4),
    ((2, 8, 8, 128), (3, 3, 128, 128), ONE, ONE, ONE, 1),
    ((5, 7, 7, 130), (3, 3, 130, 130), (2, 2), ONE, ONE, 1),
    ((4, 8, 8, 144), (3, 3, 72, 144), ONE, ONE, ONE, 2),  # groups in slices
    ((9, 9, 8, 256), (3, 3, 64, 256), ONE, ONE, ONE, 4),
    ((3, 9, 9, 128), (3, 3, 64, 160), (2, 2), ONE, ONE, 2),
    ((17, 8, 8, 128), (3, 3, 4, 128), ONE, ONE, ONE, 32),  # joined groups, in slices
    ((3, 7, 9, 24), (3, 3, 1, 48), (2, 1), ONE, ONE, 24),
    ((1, 7, 7, 192), (3, 3, 192, 192), ONE, ONE, ONE, 1),  # divided by output channels
]


def calls(dtype, change=lambda x: x):
    """Yield (name, result) of every kernel; ``change`` may give each input another position or order in memory."""
    rng = np.random.default_rng(0)

    def new(*shape):
        return change(rng.standard_normal(shape).astype(dtype))

    for x_shape, w_shape, *geometry in CONVOLUTIONS:
        x, w = new(*x_shape), new(*w_shape)
        y = kernels.conv2d(x, w, *geometry)
        dy = new(*y.shape)
        yield "conv2d", y
        yield "conv2d_input_grad", kernels.conv2d_input_grad(dy, w, x_shape, *geometry)
        yield "conv2d_weight_grad", kernels.conv2d_weight_grad(x, dy, w_shape, *geometry)
    for x_shape, w_shape, *geometry in CONVOLUTIONS[::2]:
        yield from fused(new, x_shape, w_shape, geometry)
    for shape in ((7, 15, 15, 24), (33, 8, 8, 64), (257, 10)):
        x, dy, scale, shift = new(*shape), new(*shape), new(shape[-1]), new(shape[-1])
        mean, var = kernels.batch_norm_stats(x)
        yield "batch_norm_stats", np.stack([mean, var])
        yield "batch_norm", kernels.batch_norm(x, mean, scale, shift)
        dx, dw, db = kernels.batch_norm_grad(dy, x, mean, 1 / np.sqrt(var), np.asarray(scale, np.float64), True)
        yield "batch_norm_grad", np.concatenate([dx.ravel(), dw, db])
    x, z, dy = new(5, 17, 19, 24), new(5, 17, 19, 24), new(5, 9, 10, 24)
    y, index = kernels.max_pool2d(x, (3, 3), (2, 2), (1, 1), ONE)
    yield "max_pool2d", y
    yield "max_pool2d_grad", kernels.max_pool2d_grad(dy, change(index), x.shape)
    yield "avg_pool2d", kernels.avg_pool2d(x, (3, 3), (2, 2), (1, 1), True)
    yield "avg_pool2d_grad", kernels.avg_pool2d_grad(dy, x.shape, (3, 3), (2, 2), (1, 1), True)
    yield "relu", kernels.relu(x)
    yield "relu_grad", kernels.relu_grad(z, kernels.relu(x))
    yield "add", kernels.add(x, z)
    yield "add_relu", kernels.add_relu(x, z)
    y = kernels.zero_pad_shortcut(x, 2, 3, 4)
    yield "zero_pad_shortcut", y
    yield "zero_pad_shortcut_grad", kernels.zero_pad_shortcut_grad(new(*y.shape), x.shape, 2, 3)
    lines = line(17, 30, None, "bilinear", False, x.dtype.char), line(19, 7, None, "nearest", False, x.dtype.char)
    y = kernels.resize(x, *lines)
    yield "resize", y
    yield "resize_grad", kernels.resize_grad(new(*y.shape), x.shape, *lines)
    y = kernels.concat_channels([x, z, new(5, 17, 19, 3)])
    yield "concat_channels", y
    for part in kernels.split_channels(y, [20, 4, 27]):
        yield "split_channels", part
    yield "matmul", kernels.matmul(new(211, 130), new(130, 70))
    yield "matmul", kernels.matmul(new(130, 211).T, new(130, 5))
    yield "matmul", kernels.matmul(new(3, 100, 20), new(70, 20).T)
    losses, p = kernels.cross_entropy(new(40, 10), change(LABELS), 0.1)
    yield "cross_entropy", np.concatenate([losses, p.ravel()])
    yield "cross_entropy_grad", kernels.cross_entropy_grad(change(p), change(LABELS), 0.1, new(40))
    param, velocity = (np.array(new(70, 50)) for _ in range(2))
    for momentum in (0.9, 0.0):
        kernels.sgd_step([param], [new(70, 50)], [velocity] if momentum else None, 0.1, momentum, 1e-2, momentum > 0)
    yield "sgd_step", np.stack([param, velocity])
    yield "not_finite", kernels.not_finite([new(70, 50), change(np.full(9, np.nan, dtype)), new(3)])
    mean, var, weight, bias = new(24), np.abs(new(24)), new(24), new(24)
    yield "norm_fixed_terms", kernels.norm_fixed_terms(mean, change(var), 0.1, weight, bias)
    batch, batches = [change(np.asarray(a, np.float64)) for a in (weight, var)], np.zeros((), np.int64)
    running = np.array(mean), np.array(var)
    kernels.update_running_stats(*running, batches, 0.3, *batch, 50)
    yield "update_running_stats", np.stack(running)
    images, indices = rng.integers(0, 256, (9, 12, 12, 3), dtype=np.uint8), np.array([4, 0, 8, 1])
    out, how = np.empty((4, 12, 12, 3), dtype), {"pad": 2, "reflect": True, "flip": True, "cutout": 3}
    yield "augment_batch", kernels.augment_batch(change(images), change(indices), out, [0.5] * 3, [0.2] * 3, **how)


def fused(new, x_shape, w_shape, geometry):
    """Yield (name, result) of kernels with prologues and epilogues; ``new`` makes an array of a given shape."""
    I, O = x_shape[3], w_shape[3]
    x, w = new(*x_shape), new(*w_shape)
    weight, bias, dy, partner = new(I), new(I), new(*x_shape), new(*x_shape)
    terms = kernels.norm_forward_terms(*kernels.batch_norm_stats(x), 0.1, weight, bias)
    yield "norm_forward_terms", terms
    normalised = Operand(x, NORMALISED, terms[:3])
    yield "values", kernels.values(normalised)
    y, moments = kernels.conv2d(normalised, w, *geometry, Epilogue(MOMENTS))
    yield "conv2d", y
    yield "conv2d", moments
    other, c = new(*y.shape), new(*y.shape)
    y_terms = kernels.norm_forward_terms(*moments, 0.1, new(O), new(O))[:3]
    yield "conv2d", kernels.conv2d(normalised, w, *geometry, Epilogue(NORMALISE, y_terms, other=other))[0]
    for epilogue in (
        Epilogue(MASK, terms[:3], other=partner, c=x),
        Epilogue(MASK, terms[:3], c=x, z=kernels.relu(partner)),
    ):
        g, sums = kernels.pointwise(Operand(dy), epilogue)
        yield "pointwise", np.concatenate([g.ravel(), sums.ravel()])
        dx, sums = kernels.conv2d_input_grad(Operand(c), w, x_shape, *geometry, epilogue)
        yield "conv2d_input_grad", np.concatenate([dx.ravel(), sums.ravel()])
    count = x.size // I
    parameters, (dweight, dbias) = kernels.norm_backward_terms(
        sums, kernels.batch_norm_stats(x)[0], terms, weight, count
    )
    yield "norm_backward_terms", np.concatenate([parameters.ravel(), dweight, dbias])
    gradient = Operand(c, GRADIENT, kernels.norm_forward_terms(*moments, 0.1, new(O), new(O)), other)
    yield "conv2d_weight_grad", kernels.conv2d_weight_grad(normalised, gradient, w_shape, *geometry)


def train():
    """Two training steps of a ResNet-8. Returns every parameter and running statistic."""
    mr.manual_seed(0)
    rng = np.random.default_rng(0)
    model = mr.models.create("resnet8", num_classes=10)
    optimizer = mr.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    for _ in range(2):
        x = mr.tensor(rng.standard_normal((21, 3, 32, 32)).astype(np.float32))
        loss = F.cross_entropy(model(x), rng.integers(0, 10, 21), label_smoothing=0.1)
        model.zero_grad()
        loss.backward()
        optimizer.step()
    return model.state_dict()


def bits():
    digest = hashlib.sha256()
    for dtype in (np.float32, np.float64):
        for _, result in calls(dtype):
            digest.update(np.ascontiguousarray(result).tobytes())
    for name, value in sorted(train().items()):
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def signatures():
    """The number of times that each compiled function of the package has been compiled."""
    counts = {}
    for info in pkgutil.walk_packages(kernels.__path__, "minires.kernels."):
        module = import_module(info.name)
        for name, value in vars(module).items():
            if hasattr(value, "signatures") and value.__module__ == module.__name__:
                counts[f"{info.name.rpartition('.')[2]}.{name}"] = len(value.signatures)
    return counts


def foreign():
    """Functions that store the same values differently: in order, gaps, alignment, writeability or direction."""

    def sliced(x):
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]

    def read_only(x):
        x = x.copy()
        x.flags.writeable = False
        return x

    def unaligned(x):
        x = np.ascontiguousarray(x)
        memory = np.zeros(x.nbytes + 1, np.uint8)
        memory[1:] = x.reshape(-1).view(np.uint8)
        return memory[1:].view(x.dtype).reshape(x.shape)

    def backwards(x):
        return np.ascontiguousarray(x[::-1])[::-1]

    return [np.asfortranarray, sliced, read_only, unaligned, backwards]


def compare_signatures():
    plain_results = [result.copy() for _, result in calls(np.float32)]
    plain = signatures()
    for change in foreign():
        for (name, result), expected in zip(calls(np.float32, change), plain_results, strict=True):
            assert np.array_equal(result, expected), f"{name} of {change.__name__} arrays differs"
    after = signatures()
    return {
        "compiled": sum(n > 0 for n in plain.values()),
        "more": {name: [plain[name], n] for name, n in after.items() if n != plain[name]},
    }


def together():
    """Run everything on two Python threads at once, several times, and compare with the results of one alone."""

    alone = [result.tobytes() for _, result in calls(np.float32)]
    wrong = []

    def work():
        for _ in range(3):
            for (name, result), expected in zip(calls(np.float32), alone, strict=True):
                if result.tobytes() != expected:
                    wrong.append(name)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"wrong": wrong}


if __name__ == "__main__":
    if sys.argv[1] == "bits":
        if len(sys.argv) > 2:
            mr.set_num_threads(int(sys.argv[2]))
        print(bits())
    elif sys.argv[1] == "signatures":
        print(json.dumps(compare_signatures()))
    elif sys.argv[1] == "together":
        print(json.dumps(together()))
