"""The speed record that ``minutes20`` is compared with, in PyTorch: airbench94 with Muon, one training step.

"94% on CIFAR-10 in 3.29 Seconds on a Single GPU", Jordan 2024, and its successor with Muon, ``airbench94_muon.py`` of
github.com/KellerJordan/cifar10-airbench: 8 epochs of 25 steps of 2,000 images reach 94.0 %, six views averaged.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import nn

EPOCHS, BATCH, IMAGES = 8, 2000, 50_000
STEPS = EPOCHS * IMAGES // BATCH
WIDTHS = (64, 256, 256)
WHITENED = 24  # filters of the first layer


def conv(inputs, outputs):
    """3×3, without bias; the first filters hand on their inputs."""
    made = nn.Conv2d(inputs, outputs, 3, padding="same", bias=False)
    nn.init.dirac_(made.weight.data[:inputs])
    return made


def norm(channels):
    made = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    made.weight.requires_grad = False
    return made


class Group(nn.Module):
    """conv, max pooling, BN, GELU, conv, BN, GELU."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1, self.conv2 = conv(inputs, outputs), conv(outputs, outputs)
        self.norm1, self.norm2 = norm(outputs), norm(outputs)

    def forward(self, x):
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class CifarNet(nn.Module):
    """(N, 3, 32, 32) → logits (N, 10). The first layer's weights stand for the whitening ones, which cost the same.

    Its bias is trained in 3 of the 8 epochs, and takes a part of a step in these; here it is in none, to the peer's advantage.
    """

    def __init__(self):
        super().__init__()
        self.whiten = nn.Conv2d(3, WHITENED, 2, bias=True)
        self.whiten.requires_grad_(False)
        self.groups = nn.Sequential(*(Group(i, o) for i, o in zip((WHITENED, *WIDTHS), WIDTHS)))
        self.head = nn.Linear(WIDTHS[-1], 10, bias=False)

    def forward(self, x):
        x = self.groups(F.gelu(self.whiten(x)))
        return self.head(F.max_pool2d(x, 3).flatten(1)) / WIDTHS[-1]


def orthogonalize(g, steps=3):
    """Newton–Schulz iterations towards the nearest matrix with orthonormal rows or columns."""
    x = g / (g.norm() + 1e-7)
    tall = g.shape[0] > g.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose matrices are orthogonalised; the filters have a fixed norm."""

    def __init__(self, params, lr, momentum):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                v = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
                v.mul_(group["momentum"]).add_(p.grad)
                g = p.grad.add(v, alpha=group["momentum"])
                p.mul_(len(p) ** 0.5 / p.norm())
                p.add_(orthogonalize(g.reshape(len(g), -1)).view(g.shape), alpha=-group["lr"])


def train_step(threads, channels_last=False, compiled=False, bfloat16=False):
    """step(): forward, backward and both optimizers, once; returns the loss."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = CifarNet()
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))
    if channels_last:
        net, images = net.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
    run = torch.compile(net) if compiled else net
    trained = [p for p in net.parameters() if p.requires_grad]
    biases, head = [p for p in trained if p.ndim == 1], [p for p in trained if p.ndim == 2]
    decay = 2e-6 * BATCH
    groups = [{"params": biases, "lr": 0.053, "weight_decay": decay / 0.053}]
    groups += [{"params": head, "lr": 0.67, "weight_decay": decay / 0.67}]
    optimizers = [torch.optim.SGD(groups, momentum=0.85, nesterov=True)]
    optimizers += [Muon([p for p in trained if p.ndim == 4], lr=0.24, momentum=0.6)]

    def step():
        with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
            logits = run(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=0.2, reduction="sum")
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        net.zero_grad(set_to_none=True)
        return loss.item()

    return step
