"""Parameters and gradients for the tests of optimizers."""

import numpy as np

from minires import nn


def params(dtype=np.float64):
    """A filter, as kernels store it, and a bias."""
    rng = np.random.default_rng(0)
    conv = rng.standard_normal((3, 3, 4, 5)).astype(dtype).transpose(3, 2, 0, 1)
    return [nn.Parameter(conv), nn.Parameter(rng.standard_normal(7).astype(dtype))]


def give_grads(parameters, seed):
    rng = np.random.default_rng(seed)
    for p in parameters:
        p.grad = np.empty_like(p.data)
        p.grad[...] = rng.standard_normal(p.shape)
