"""The CIFAR ResNet (option A) and its training step in plain JAX: NHWC, one jitted function, its state donated."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def structure(depth):
    """[(name, inputs, outputs, stride)] of the convolutions, stem first, two a block; {} in a name is conv or bn."""
    convs, inputs = [("{}1", 3, 16, 1)], 16
    for s, outputs in enumerate((16, 32, 64)):
        for i in range((depth - 2) // 6):
            name = f"layer{s + 1}.{i}.{{}}"
            convs += [(name + "1", inputs, outputs, 2 if s and not i else 1), (name + "2", outputs, outputs, 1)]
            inputs = outputs
    return convs


def initial(convs, rng):
    """He-normal weights (KH, KW, I, O), scale 1 and shift 0, and the classifier."""
    parameters = {
        "convs": [rng.normal(0, np.sqrt(2 / (9 * o)), (3, 3, i, o)).astype(np.float32) for _, i, o, _ in convs],
        "scales": [np.ones(o, np.float32) for _, _, o, _ in convs],
        "shifts": [np.zeros(o, np.float32) for _, _, o, _ in convs],
        "fc": rng.normal(0, 0.1, (64, 10)).astype(np.float32),
        "bias": np.zeros(10, np.float32),
    }
    return jax.tree.map(jnp.asarray, parameters)


def given(convs, weights):
    """The parameters from a state dict with PyTorch's names."""
    names = [name for name, *_ in convs]
    parameters = {
        "convs": [np.asarray(weights[n.format("conv") + ".weight"]).transpose(2, 3, 1, 0) for n in names],
        "scales": [np.asarray(weights[n.format("bn") + ".weight"]) for n in names],
        "shifts": [np.asarray(weights[n.format("bn") + ".bias"]) for n in names],
        "fc": np.asarray(weights["fc.weight"]).T,
        "bias": np.asarray(weights["fc.bias"]),
    }
    return jax.tree.map(jnp.asarray, parameters)


def forward(parameters, running, x, convs):
    """(logits, new running statistics); batch statistics normalise, as in training."""
    new = []

    def conv_bn(x, i):
        stride = convs[i][3]
        x = lax.conv_general_dilated(
            x, parameters["convs"][i], (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        count = x.size // x.shape[3]
        new.append((0.9 * running[i][0] + 0.1 * mean, 0.9 * running[i][1] + 0.1 * var * count / (count - 1)))
        return (x - mean) * (parameters["scales"][i] * lax.rsqrt(var + 1e-5)) + parameters["shifts"][i]

    x = jax.nn.relu(conv_bn(x, 0))
    for i in range(1, len(convs), 2):
        _, inputs, outputs, stride = convs[i]
        y = conv_bn(jax.nn.relu(conv_bn(x, i)), i + 1)
        border = (outputs - inputs) // 2
        x = jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (border, border)))
        x = jax.nn.relu(x + y)
    return x.mean((1, 2)) @ parameters["fc"] + parameters["bias"], new


def train_step(case, data, weights, lr, momentum, weight_decay):
    """(step, number of parameters): forward, cross-entropy, backward, SGD with momentum and weight decay."""
    convs = structure(int(case.model.removeprefix("resnet")))
    parameters = given(convs, weights) if weights else initial(convs, np.random.default_rng(0))
    velocity = jax.tree.map(jnp.zeros_like, parameters)
    running = [(jnp.zeros(o), jnp.ones(o)) for _, _, o, _ in convs]
    images, labels = jnp.asarray(data[0].transpose(0, 2, 3, 1)), jnp.asarray(data[1])

    def loss_of(parameters, running):
        logits, new = forward(parameters, running, images, convs)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean(), new

    def update(parameters, velocity, running):
        (loss, running), grads = jax.value_and_grad(loss_of, has_aux=True)(parameters, running)
        velocity = jax.tree.map(lambda v, g, p: momentum * v + g + weight_decay * p, velocity, grads, parameters)
        return jax.tree.map(lambda p, v: p - lr * v, parameters, velocity), velocity, running, loss

    jitted = jax.jit(update, donate_argnums=(0, 1, 2))
    state = parameters, velocity, running

    def step():
        nonlocal state
        *state, loss = jitted(*state)
        jax.block_until_ready(state)
        return float(loss)

    return step, sum(leaf.size for leaf in jax.tree.leaves(parameters))
