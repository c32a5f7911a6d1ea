"""The same training twice, recorded and plain, for the tests of recordings."""

import numpy as np

import minires as mr
from minires import RecordedStep
from minires import functional as F
from minires.models.resnet_cifar import CifarResNet

BATCH, SIZE = 4, 32


def images(seed, batch=BATCH, size=SIZE, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((batch, 3, size, size)).astype(dtype)


def labels(seed, batch=BATCH, classes=10):
    return np.random.default_rng(seed).integers(0, classes, batch)


def make(network=lambda: CifarResNet(8), dtype=np.float32):
    """(model, optimizer), always the same."""
    mr.manual_seed(0)
    model = network().to(dtype)
    return model, mr.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3, nesterov=True)


def bits(arrays):
    return [None if a is None else np.ascontiguousarray(a).tobytes() for a in arrays]


class Twins:
    """The same training twice, recorded and plain; ``step`` compares every bit of the two."""

    def __init__(self, network=lambda: CifarResNet(8), dtype=np.float32, smoothing=0.0):
        self.dtype, self.smoothing = dtype, smoothing
        self.model, self.optimizer = make(network, dtype)
        self.plain, self.plain_optimizer = make(network, dtype)
        self.recorded = RecordedStep(self.model, smoothing)
        self.seed = 0

    @property
    def both(self):
        return (self.model, self.optimizer), (self.plain, self.plain_optimizer)

    def step(self, batch=BATCH, size=SIZE):
        self.seed += 1
        x, y = images(self.seed, batch, size, self.dtype), labels(self.seed, batch)
        loss, logits = self.recorded(x, y)
        self.plain.zero_grad()
        out = self.plain(mr.Tensor(x))
        expected = F.cross_entropy(out, y, label_smoothing=self.smoothing)
        expected.backward()
        assert bits([loss, logits]) == bits([expected.data, out.data])
        if self.seed % 2:  # nobody has to look at gradients
            assert bits(p.grad for p in self.model.parameters()) == bits(p.grad for p in self.plain.parameters())
        for _, optimizer in self.both:
            optimizer.step()
        states = [model.state_dict() for model, _ in self.both]
        assert bits(states[0].values()) == bits(states[1].values())
        return self.recorded.state

    def steps(self, count, **sizes):
        return [self.step(**sizes) for _ in range(count)]


RUNS = ["waiting", "recorded", "checked", "checked", "checked"]  # the states of a recording, call by call
