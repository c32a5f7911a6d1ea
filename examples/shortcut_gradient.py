"""The gradient of a shortcut, by hand and by the tape.

A residual block computes y = F(x) + x (He et al. 2015, eq. 1), with F two layers and a ReLU between them:

    F(x) = W₂ relu(W₁ x)

The chain rule gives the gradient that the block hands on to what comes before it:

    ∂L/∂x = ∂L/∂y + (∂F/∂x)ᵀ ∂L/∂y

The first term takes the shortcut: it arrives exactly as it set out, however deep the network and whatever the weights.
The second term goes through F. He et al. 2016, eq. 5, is this equation for a whole stack of blocks.

    python examples/shortcut_gradient.py
"""

import numpy as np

import minires as mr
from minires import functional as F


def by_hand(x, W1, W2, dy):
    """Both terms of ∂L/∂x in NumPy. Every row of x (8, 16) is an example, so W x is written x @ W.T."""
    # Forward, F alone: the addition of x needs nothing remembered.
    z = x @ W1.T  # (8, 32)
    # Backward, layer by layer, each step the transpose of its forward step.
    da = dy @ W2  # (8, 32)  through W₂
    dz = da * (z > 0)  # (8, 32)  through relu, whose slope is 1 above zero and 0 below
    through_F = dz @ W1  # (8, 16)  through W₁: now it is (∂F/∂x)ᵀ ∂L/∂y
    through_shortcut = dy  # (8, 16)  through "+ x", whose derivative is the identity
    return through_shortcut, through_F


def by_tape(x, W1, W2, dy):
    """∂L/∂x as minires computes it: the tape sums over the two paths from x to y."""
    x, W1, W2 = mr.tensor(x, requires_grad=True), mr.tensor(W1), mr.tensor(W2)
    y = F.linear(F.relu(F.linear(x, W1)), W2) + x
    y.backward(dy)
    return x.grad


def main():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 16))
    W1 = rng.standard_normal((32, 16)) * np.sqrt(2 / 16)
    W2 = rng.standard_normal((16, 32)) * np.sqrt(2 / 32)
    dy = rng.standard_normal((8, 16))  # ∂L/∂y: of the loss, whatever it is, this is all that the block gets to see

    print("The first numbers of ∂L/∂x:")
    print("    by hand    ", *(f"{v:18.15f}" for v in sum(by_hand(x, W1, W2, dy))[0, :3]))
    print("    by the tape", *(f"{v:18.15f}" for v in by_tape(x, W1, W2, dy)[0, :3]))

    print("\nNow W₂ is scaled by s. The norms of the two terms and of their sum, and how far hand and tape differ:\n")
    print("       s   ‖∂L/∂y‖   ‖(∂F/∂x)ᵀ∂L/∂y‖   ‖∂L/∂x‖   largest |hand − tape|")
    for s in (1.0, 0.1, 0.01, 0.0):
        through_shortcut, through_F = by_hand(x, W1, s * W2, dy)
        dx = through_shortcut + through_F
        difference = abs(dx - by_tape(x, W1, s * W2, dy)).max()
        norms = [np.linalg.norm(term) for term in (through_shortcut, through_F, dx)]
        print(f"{s:8.2f}{norms[0]:10.4f}{norms[1]:18.4f}{norms[2]:10.4f}{difference:24.1e}")

    print("\nA plain layer, y = F(x), would pass on the third column alone, and it shrinks with the weights. With the")
    print("shortcut the gradient tends to ∂L/∂y instead: it does not vanish however small the weights are.")


if __name__ == "__main__":
    main()
