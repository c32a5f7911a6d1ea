"""Updates without a backward pass, as operations whose backward is the derivative of the update's formula.

Compared with finite differences of the code that performs the update, they reveal a wrong sign in SGD's momentum or in a
running average as they would a wrong backward pass.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .. import functional as F
from ..optim import SGD
from ..tensor import Op, Tensor


class SGDSteps(Op):
    """w after two steps of SGD with the gradients g₁ and g₂. With uₜ = gₜ + λwₜ₋₁, lr = η and momentum μ:

    w₁ = w₀ − ηc·u₁,  w₂ = w₁ − η(c·u₂ + k·u₁),  where c = 1 and k = μ, or with Nesterov c = 1 + μ and k = μ².
    """

    label = "SGD"
    lr, momentum, weight_decay = 0.5, 0.8, 0.3

    def __init__(self, nesterov: bool) -> None:
        self.nesterov = nesterov

    def forward(self, w0: NDArray, *gradients: NDArray) -> NDArray:
        w = Tensor(w0.copy(order="K"), requires_grad=True)
        optimizer = SGD([w], self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov)
        for g in gradients:
            w.grad = g.copy(order="K")
            optimizer.step()
        return w.data

    def backward(self, dy: NDArray, needs: Sequence[bool]) -> tuple[NDArray, NDArray, NDArray]:
        lr, mu, decay = self.lr, self.momentum, self.weight_decay
        c, k = (1 + mu, mu * mu) if self.nesterov else (1, mu)
        w1_w0, w1_g1 = 1 - lr * c * decay, -lr * c
        w2_w0 = w1_w0 - lr * (c * decay * w1_w0 + k * decay)
        w2_g1 = w1_g1 - lr * (c * decay * w1_g1 + k)
        w2_g2 = -lr * c
        return w2_w0 * dy, w2_g1 * dy, w2_g2 * dy


class RunningStatistics(Op):
    """Batch norm's running mean and variance (C,) after a batch x: r ← (1 − m)·r + m·new, the variance unbiased.

    dx = m·(dmean/M + 2(x − μ)·dvar/(M − 1)),  dr = (1 − m)·dy. The output is both, stacked: (2, C).
    """

    label = "running statistics"
    momentum = 0.25

    def forward(self, x: NDArray, mean: NDArray, var: NDArray) -> NDArray:
        self.x = x
        mean, var = mean.copy(), var.copy()
        F.batch_norm(Tensor(x), mean, var, training=True, momentum=self.momentum)
        return np.stack([mean, var])

    def backward(self, dy: NDArray, needs: Sequence[bool]) -> tuple[NDArray, NDArray, NDArray]:
        M = self.x.size // self.x.shape[1]
        dmean, dvar = dy[:, :, None, None]  # (C, 1, 1)
        centred = self.x - self.x.mean((0, 2, 3), keepdims=True)
        dx = self.momentum * (dmean / M + 2 * centred * dvar / (M - 1))
        return dx, (1 - self.momentum) * dy[0], (1 - self.momentum) * dy[1]
