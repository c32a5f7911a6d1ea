"""Gradients by depth in a plain network and in its residual twin, then a short training of both.

preresnet56 is a stack of blocks x ↦ x + F(x); preplain56 has the same layers, the same weights at the start, and no
shortcuts: x ↦ F(x). In the residual network, from block l to a later block L of the same stage (He et al. 2016, eq. 5),

    ∂L/∂x_l = (1 + ∂/∂x_l Σ F)ᵀ ∂L/∂x_L

a sum in which the gradient of x_L is one term. In the plain network the gradient is a product with one factor a block.
A product of many factors need not vanish: with batch normalisation it does not (He et al. 2015, §4.1), and at
initialisation it is known to grow (Yang et al. 2019, "A Mean Field Theory of Batch Normalization").

    python examples/plain_against_residual.py            # 56 layers
    python examples/plain_against_residual.py --depth 20
"""

import argparse

import numpy as np

import minires as mr
from minires import functional as F


def gradient_norms(model, images, labels):
    """‖∂L/∂y‖ at the output y of every block, from the first block to the last."""
    blocks = [m for m in model.modules() if isinstance(m, mr.models.PreActBasicBlock)]
    norms = {}

    def hear(block, grad_input, grad_output):
        norms[block] = float(np.linalg.norm(grad_output[0]))

    handles = [block.register_full_backward_hook(hear) for block in blocks]
    F.cross_entropy(model(mr.tensor(images)), labels).backward()
    for handle in handles:
        handle.remove()
    return [norms[block] for block in blocks]


def train(model, loader, steps, lr):
    """The loss of every step of SGD, the learning rate rising to lr and falling again."""
    optimizer = mr.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    schedule = mr.optim.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    losses = []
    for _, (images, labels) in zip(range(steps), loader):
        loss = F.cross_entropy(model(mr.tensor(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=56, choices=(8, 14, 20, 32, 44, 56, 110), help="layers")
    parser.add_argument("--steps", type=int, default=60, help="steps of the training; 0: none")
    options = parser.parse_args()

    names = [f"{kind}{options.depth}" for kind in ("preplain", "preresnet")]
    models = []
    for name in names:
        mr.manual_seed(0)  # for each: the two begin with the same weights
        models.append(mr.models.create(name))

    training_set, _ = mr.data.shapes(train=32 * max(options.steps, 2), test=1)
    images, labels = next(iter(mr.data.Loader(training_set, 64)))
    plain, residual = [gradient_norms(model, images, labels) for model in models]

    print("‖∂L/∂y‖ at each block's output, at initialisation. A bar is ▇▇ for each doubling since the last block.\n")
    print(f"block    {names[0]:<38}{names[1]}")
    for i, norms in enumerate(zip(plain, residual)):
        bars = ["▇" * max(0, round(2 * np.log2(norm / last))) for norm, last in zip(norms, (plain[-1], residual[-1]))]
        print(f"{i + 1:5}    {norms[0]:.1e} {bars[0]:<30}{norms[1]:.1e} {bars[1]}".rstrip())
    print("\nOn the way from the last block back to the first, the gradient's norm is multiplied")
    for name, norms in zip(names, (plain, residual)):
        print(f"    by {norms[0] / norms[-1]:7.1f} in {name}")

    if options.steps:
        print(f"\nThen {options.steps} training steps on the built-in images. Guessing would give a loss of 2.303.\n")
        print(f"{'':14}loss of the first ten steps   of the last ten")
        for name, model in zip(names, models):
            losses = train(model, mr.data.Loader(training_set, 32), options.steps, lr=0.05)
            print(f"{name:<14}{np.mean(losses[:10]):27.3f}{np.mean(losses[-10:]):18.3f}")


if __name__ == "__main__":
    main()
