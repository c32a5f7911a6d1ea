"""Random programs: operations, looks at values and in-place changes, run twice to compare fused with unfused operations.

A program is a list of (action, tensors, numbers) drawn from a seed; it does not depend on the values, so that both runs do the
same. Every array that a user can reach may be changed: ``.data``, ``.numpy()``, ``np.asarray`` and views of them, of inputs,
of parameters, of results, before the operation that follows and between the forward and the backward pass.
"""

import numpy as np

import minires as mr
from minires import nn
from minires.errors import GraphError

F = mr.functional
CHANNELS, SIZE = 4, 5

STEPS = {  # name: (number of tensors, function of the tensors and the layers)
    "conv": (1, lambda t, conv, bn: conv(t[0])),
    "bn": (1, lambda t, conv, bn: bn(t[0])),
    "relu": (1, lambda t, conv, bn: F.relu(t[0])),
    "scale": (1, lambda t, conv, bn: t[0] * 0.5),
    "add": (2, lambda t, conv, bn: t[0] + t[1]),
    "add_relu": (2, lambda t, conv, bn: F.add_relu(t[0], t[1])),
    "detach": (1, lambda t, conv, bn: t[0].detach()),
    "flat": (1, lambda t, conv, bn: F.reshape(F.flatten(t[0], 1), *t[0].shape)),
    "pool": (1, lambda t, conv, bn: F.max_pool2d(t[0], 3, stride=1, padding=1)),
    "zero_pad": (1, lambda t, conv, bn: F.zero_pad_shortcut(t[0], 1, 1, 1)[:, 1:-1]),
    "shortcut": (2, lambda t, conv, bn: F.conv_bn_add_relu(t[0], conv, bn, F.zero_pad_shortcut(t[1], 1, 0, 0))),
    "conv_bn": (1, lambda t, conv, bn: F.conv_bn(t[0], conv, bn)),
    "conv_bn_relu": (1, lambda t, conv, bn: F.conv_bn_relu(t[0], conv, bn)),
    "conv_bn_add_relu": (2, lambda t, conv, bn: F.conv_bn_add_relu(t[0], conv, bn, t[1])),
    "block": (1, lambda t, conv, bn: F.conv_bn_add_relu(F.conv_bn_relu(t[0], conv, bn), conv, bn, t[0])),
    "bn_relu": (1, lambda t, conv, bn: F.bn_relu(t[0], bn)),
    "bn_relu_conv": (1, lambda t, conv, bn: F.bn_relu_conv(t[0], bn, conv)),
    "bn_relu_conv_add": (2, lambda t, conv, bn: F.bn_relu_conv_add(t[0], bn, conv, t[1])),
}
LOOKS = {  # what a user writes to get at the array of a tensor
    "data": lambda x: x.data,
    "numpy": lambda x: x.numpy(),
    "asarray": np.asarray,
    "detached": lambda x: x.detach().numpy(),
    "part": lambda x: x.data[:, 1:],
}
CHANGES = {  # each keeps the array's values apart: a variance of 0 would enlarge rounding errors
    "scale": lambda a, noise: np.multiply(a, 1.5, out=a),
    "shift": lambda a, noise: np.add(a, 0.25, out=a),
    "noise": lambda a, noise: a.__setitem__(..., noise[: a.size].reshape(a.shape)),
    "one": lambda a, noise: a.__setitem__((0,) * a.ndim, 3.0),
}


def draw(seed, length=14):
    """The program of a seed: a list of actions. Tensors are named by the order in which they are made."""
    rng = np.random.default_rng(seed)

    def pick(options):
        return str(rng.choice(sorted(options)))

    program, tensors = [], 2  # two inputs
    for _ in range(length):
        kind = rng.random()
        if kind < 0.55:
            step = pick(STEPS)
            recent = [tensors - 1 - int(min(rng.geometric(0.45) - 1, tensors - 1)) for _ in range(STEPS[step][0])]
            program.append(("step", step, recent, int(rng.integers(2)), int(rng.integers(2))))
            tensors += 1
        elif kind < 0.68:
            program.append(("look", pick(LOOKS), int(rng.integers(tensors))))
        elif kind < 0.83:
            program.append(("change", pick(CHANGES), pick(LOOKS), int(rng.integers(tensors))))
        elif kind < 0.88:
            program.append(("change again", pick(CHANGES), int(rng.integers(100))))
        elif kind < 0.91:
            program.append(("parameter", pick(CHANGES), int(rng.integers(100))))
        elif kind < 0.93:
            program.append(("replace", int(rng.integers(tensors))))
        elif kind < 0.94:
            program.append(("hook", pick(CHANGES), int(rng.integers(tensors)), int(rng.integers(100))))
        elif kind < 0.98:
            program.append(("mode", bool(rng.integers(2)), bool(rng.random() < 0.7)))
        else:
            program.append(("backward", [int(i) for i in rng.integers(tensors, size=2)]))
    program.append(("backward", [tensors - 1, int(rng.integers(tensors)), int(rng.integers(tensors))]))
    return program


def hook(found, change, array, noise):
    """A backward hook that writes down the gradient and changes an array."""

    def on_gradient(gradient):
        found.append(gradient.copy())
        change(array, noise)

    return on_gradient


def run(program, seed, dtype=np.float64):
    """Everything that a user can see of a run: values as they are at the end, gradients, errors; a list of arrays."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(2 * CHANNELS * SIZE * SIZE).astype(dtype)
    mr.manual_seed(seed)
    convs = [nn.Conv2d(CHANNELS, CHANNELS, k, padding=k // 2, bias=False).to(dtype) for k in (1, 3)]
    norms = [nn.BatchNorm2d(CHANNELS).to(dtype) for _ in range(2)]
    for bn in norms:
        bn.weight.data[...], bn.bias.data[...] = rng.uniform(0.5, 2, CHANNELS), rng.uniform(-1, 1, CHANNELS)
    parameters = [p for layer in (*convs, *norms) for p in layer.parameters()]
    inputs = [mr.tensor(rng.standard_normal((2, CHANNELS, SIZE, SIZE)).astype(dtype)) for _ in range(2)]
    for x in inputs:
        x.requires_grad_()
    tensors, seen, found, recording = list(inputs), [], [], True
    for action, *what in program:
        if action == "step":
            step, which, conv, bn = what
            with mr.set_grad_enabled(recording):
                tensors.append(STEPS[step][1]([tensors[i] for i in which], convs[conv], norms[bn]))
        elif action == "look":
            found.append(LOOKS[what[0]](tensors[what[1]]).copy())
        elif action == "change":
            change, look, i = what
            seen.append(LOOKS[look](tensors[i]))
            CHANGES[change](seen[-1], noise)
        elif action == "change again" and seen:
            CHANGES[what[0]](seen[what[1] % len(seen)], noise)
        elif action == "parameter":
            CHANGES[what[0]](parameters[what[1] % len(parameters)].data, noise)
        elif action == "replace":
            x = tensors[what[0]]
            x.data = noise.reshape(x.shape).copy()
        elif action == "hook" and seen and tensors[what[1]].requires_grad:
            change, i, j = what
            tensors[i].register_hook(hook(found, CHANGES[change], seen[j % len(seen)], noise))
        elif action == "mode":
            training, recording = what
            for bn in norms:
                bn.train(training)
        elif action == "backward":
            total = sum((tensors[i] * noise[i % 7]).sum() for i in what[0])
            try:
                total.backward(retain_graph=True)
            except GraphError as error:
                found.append(np.frombuffer(type(error).__name__.encode(), np.uint8))
    found += [x.data.copy() for x in tensors]
    found += [np.zeros(0) if x.grad is None else x.grad for x in (*inputs, *parameters)]
    return found + [s.copy() for bn in norms for s in (bn.running_mean, bn.running_var)]
