"""The peers: each builds a training step of the same ResNet and batch in a process of its own, and runs it when told to.

``python -m benchmarks.peers NAME MODEL BATCH`` reads lines from standard input: a number of steps to run. It answers with a
JSON list of their seconds. Between two lines it sleeps on the pipe, so that it does not disturb the peer whose turn it is.
"""

import json
import sys
import time

import numpy as np


def _batch(size):
    rng = np.random.default_rng(1)
    return rng.standard_normal((size, 3, 32, 32), dtype=np.float32), rng.integers(0, 10, size)


def minires_step(model, batch):
    """A training step of minires: forward, backward, SGD with momentum and weight decay."""
    import minires as mr
    from minires import functional as F

    mr.manual_seed(0)
    net = mr.models.create(model)
    optimizer = mr.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images, labels = _batch(batch)
    images = mr.tensor(images)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def torch_step(model, batch, channels_last=False, compiled=False):
    """The same step in PyTorch."""
    import torch

    from .torch_resnet import cifar_resnet

    torch.manual_seed(0)
    net = cifar_resnet(model)
    images, labels = map(torch.from_numpy, _batch(batch))
    if channels_last:
        net, images = net.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
    run = torch.compile(net) if compiled else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


PEERS = {
    "minires": minires_step,
    "PyTorch NCHW": torch_step,
    "PyTorch channels_last": lambda model, batch: torch_step(model, batch, channels_last=True),
    "PyTorch compile": lambda model, batch: torch_step(model, batch, compiled=True),
}


def main():
    name, model, batch = sys.argv[1:]
    step = PEERS[name](model, int(batch))
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
