"""Data, networks and truncated gradients for the tests of the experiments that train."""

import numpy as np

import minires as mr
from minires import functional as F
from minires.data import Dataset
from minires.lab.setting import normalised


def dataset(images=64, side=8, seed=0):
    """Images whose colours tell the class, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 4
    base = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [150, 150, 40]])[labels]
    pixels = base[:, None, None] + rng.integers(-40, 40, (images, side, side, 3))
    return Dataset(pixels.astype(np.uint8), labels, ("r", "g", "b", "y"), "colours")


def network(name="resnet8", **options):
    mr.manual_seed(1)
    return mr.models.create(name, width=4, num_classes=4, **options)


def batch(data, count=16):
    return normalised(data, np.arange(count), np.float32)


def truncated_by_detach(model, images, labels, attached):
    """The gradients of all weights by the tape, where only the residual functions of the blocks ``attached`` have one."""
    before, blocks = F.conv_bn_add_relu, []

    def cut(x, conv, bn, shortcut, factor):
        branch = bn(conv(x))
        blocks.append(conv)
        return F.add_relu(branch if len(blocks) - 1 in attached else branch.detach(), shortcut)

    F.conv_bn_add_relu = cut
    try:
        with mr.fusion(False):
            F.cross_entropy(model(mr.tensor(images)), labels).backward()
    finally:
        F.conv_bn_add_relu = before
    found = {name: None if p.grad is None else p.grad.copy() for name, p in model.named_parameters()}
    model.zero_grad()
    return found
