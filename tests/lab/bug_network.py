"""A small network for the bug zoo: its gradients, and its gradient check."""

import numpy as np

import minires as mr
from minires import functional as F
from minires import nn
from minires.models.blocks import BasicBlock, conv3x3

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.standard_normal((3, 3, 6, 6)), np.array([1, 4, 1])


class Net(nn.Module):
    """A small residual network: a convolution, ``blocks`` blocks of which the first has stride 2, and a classifier."""

    def __init__(self, block=BasicBlock, blocks=1):
        mr.manual_seed(0)
        self.conv, self.bn = conv3x3(3, 4), nn.BatchNorm2d(4)
        self.layer = nn.Sequential(block(4, 8, 2, "A"), *[block(8, 8, 1, "A") for _ in range(blocks - 1)])
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)
        for p in self.parameters():  # so that γ ≠ 1 and β ≠ 0
            p.data = p.data + 0.1 * np.random.default_rng(p.size).standard_normal(p.shape).astype(np.float32)
        self.double()

    def forward(self, x):
        x = self.layer(F.conv_bn_relu(x, self.conv, self.bn))
        return self.fc(F.flatten(self.pool(x), 1))


def loss_of(model, images=IMAGES, labels=LABELS):
    return F.cross_entropy(model(mr.tensor(images)), labels)


def gradients(model, fused=True, images=IMAGES, labels=LABELS):
    """(loss, {parameter: gradient})."""
    model.zero_grad()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.reset_running_stats()
    with mr.fusion(fused):
        loss = loss_of(model, images, labels)
        loss.backward()
    return loss.item(), {n: np.zeros(p.shape) if p.grad is None else p.grad for n, p in model.named_parameters()}


def check(model, images=IMAGES):
    return mr.gradcheck_model(
        model, images, loss=lambda y: F.cross_entropy(y, LABELS), directions=1, eps=1e-5, raise_exception=False
    )
