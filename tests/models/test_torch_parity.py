"""Whole models against twins in PyTorch, written independently: outputs, all gradients, running statistics."""

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.models import (
    BasicBlock,
    Bottleneck,
    CifarPreResNet,
    CifarResNet,
    CrossingNet,
    PreActBottleneckV1,
    ResNet,
    ResNetV2,
)

torch = pytest.importorskip("torch")
tnn = torch.nn
tF = torch.nn.functional


@pytest.fixture(autouse=True)
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def conv(i, o, k, stride=1, padding=None):
    return tnn.Conv2d(i, o, k, stride, k // 2 if padding is None else padding, bias=False)


class PadA(tnn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.i, self.o, self.stride = i, o, stride

    def forward(self, x):
        y = x.new_zeros(len(x), self.o, *x[:, :, :: self.stride, :: self.stride].shape[2:])
        first = (self.o - self.i) // 2
        y[:, first : first + self.i] = x[:, :, :: self.stride, :: self.stride]
        return y


class TwinBlock(tnn.Module):
    """Basic block or bottleneck of either paper; the names say which."""

    def __init__(self, i, c, stride, option, bottleneck, preact, v1):
        super().__init__()
        o = 4 * c if bottleneck else c
        self.option, self.preact, self.same = option, preact, stride == 1 and i == o
        s1, s2 = (stride, 1) if v1 or not bottleneck else (1, stride)
        plan = [(i, c, 1, s1), (c, c, 3, s2), (c, o, 1, 1)] if bottleneck else [(i, c, 3, s1), (c, c, 3, s2)]
        self.steps = range(1, len(plan) + 1)
        for n, (a, b, k, s) in zip(self.steps, plan):
            self.add_module(f"conv{n}", conv(a, b, k, s))
            self.add_module(f"norm{n}" if preact else f"bn{n}", tnn.BatchNorm2d(a if preact else b))
        if not self.same and option == "A":
            self.downsample = PadA(i, o, stride)
        elif not self.same and option == "B":
            projection = conv(i, o, 1, stride)
            self.downsample = (
                tnn.ModuleDict({"conv": projection}) if preact else tnn.Sequential(projection, tnn.BatchNorm2d(o))
            )

    def shortcut(self, x):
        if self.same:
            return x
        return self.downsample["conv"](x) if self.preact and self.option == "B" else self.downsample(x)

    def forward(self, x):
        y, way_round = x, x
        for n in self.steps:
            c, bn = getattr(self, f"conv{n}"), getattr(self, f"{'norm' if self.preact else 'bn'}{n}")
            if self.preact:
                y = bn(y).relu()
                way_round = y if n == 1 and not self.same else way_round
                y = c(y)
            else:
                y = bn(c(y))
                y = y.relu() if n < len(self.steps) else y
        if self.option is not None:
            y = y + self.shortcut(way_round)
        return y if self.preact else y.relu()


def twin_stages(widths, depths, i, option, bottleneck, preact, v1):
    for k, (c, n) in enumerate(zip(widths, depths)):
        blocks = []
        for j in range(n):
            blocks.append(TwinBlock(i, c, 2 if k and not j else 1, option, bottleneck, preact, v1))
            i = 4 * c if bottleneck else c
        yield tnn.Sequential(*blocks)


class Twin(tnn.Module):
    def __init__(self, widths, depths, option, bottleneck, preact, v1=False, imagenet=False, pool="avg"):
        super().__init__()
        self.preact, self.imagenet, self.pool, width = preact, imagenet, pool, widths[0]
        stem = conv(3, width, 7, 2) if imagenet else conv(3, width, 3)
        stages = list(twin_stages(widths, depths, width, option, bottleneck, preact, v1))
        last = widths[-1] * (4 if bottleneck else 1)
        if preact:
            self.stem = tnn.ModuleDict({"conv": stem})
            self.stages = tnn.Sequential(*[tnn.ModuleDict({"blocks": s}) for s in stages])
            self.norm, self.head = tnn.BatchNorm2d(last), tnn.ModuleDict({"fc": tnn.Linear(last, 10)})
        else:
            self.conv1, self.bn1, self.fc = stem, tnn.BatchNorm2d(width), tnn.Linear(last, 10)
            for k, s in enumerate(stages):
                self.add_module(f"layer{k + 1}", s)
        self.count = len(stages)

    def forward(self, x):
        x = self.stem["conv"](x) if self.preact else self.bn1(self.conv1(x)).relu()
        x = tF.max_pool2d(x, 3, 2, 1) if self.imagenet else x
        for k in range(self.count):
            x = self.stages[k]["blocks"](x) if self.preact else getattr(self, f"layer{k + 1}")(x)
        x = self.norm(x).relu() if self.preact else x
        x = x.mean((2, 3)) if self.pool == "avg" else x.amax((2, 3))
        return self.head["fc"](x) if self.preact else self.fc(x)


class TwinCrossing(tnn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 96, 11, 4, 0), tnn.BatchNorm2d(96)
        self.conv2, self.bn2 = conv(96, 256, 5), tnn.BatchNorm2d(256)
        self.conv3, self.bn3 = conv(256, 384, 3), tnn.BatchNorm2d(384)
        self.shortcut_a, self.shortcut_b, self.fc = conv(96, 256, 1), conv(96, 384, 1), tnn.Linear(384, 10)

    def forward(self, x):
        v1 = self.bn1(self.conv1(x)).relu()
        v2 = tF.max_pool2d(v1, 3, 2)
        v3 = (self.bn2(self.conv2(v2)) + self.shortcut_a(v1[:, :, 1::2, 1::2])).relu()
        v4 = tF.max_pool2d(v3, 3, 2)
        v5 = (self.bn3(self.conv3(v4)) + self.shortcut_b(v2[:, :, 1::2, 1::2])).relu()
        return self.fc(v5.mean((2, 3)))


CIFAR, IMAGENET = (16, 32, 64), (64, 128, 256, 512)
MODELS = {
    "resnet20": (lambda: CifarResNet(20), lambda: Twin(CIFAR, (3, 3, 3), "A", False, False), 16),
    "resnet8 B": (lambda: CifarResNet(8, option="B"), lambda: Twin(CIFAR, (1, 1, 1), "B", False, False), 16),
    "plain14": (lambda: CifarResNet(14, option=None), lambda: Twin(CIFAR, (2, 2, 2), None, False, False), 16),
    "preresnet14": (lambda: CifarPreResNet(14), lambda: Twin(CIFAR, (2, 2, 2), "A", False, True), 16),
    "preresnet8 B": (lambda: CifarPreResNet(8, option="B"), lambda: Twin(CIFAR, (1, 1, 1), "B", False, True), 16),
    "preplain8": (lambda: CifarPreResNet(8, option=None), lambda: Twin(CIFAR, (1, 1, 1), None, False, True), 16),
    "preresnet20 of bottlenecks": (
        lambda: CifarPreResNet(20, PreActBottleneckV1, option="B"),
        lambda: Twin(CIFAR, (2, 2, 2), "B", True, True, v1=True),
        16,
    ),
    "resnet18": (
        lambda: mr.models.resnet18(num_classes=10),
        lambda: Twin(IMAGENET, (2, 2, 2, 2), "B", False, False, imagenet=True),
        48,
    ),
    "shallow plain, max pooling": (
        lambda: ResNet(BasicBlock, (1, 1, 1, 1), option=None, num_classes=10, pool="max"),
        lambda: Twin(IMAGENET, (1, 1, 1, 1), None, False, False, imagenet=True, pool="max"),
        48,
    ),
    "shallow bottlenecks": (
        lambda: ResNet(Bottleneck, (2, 1, 1, 1), num_classes=10),
        lambda: Twin(IMAGENET, (2, 1, 1, 1), "B", True, False, imagenet=True),
        48,
    ),
    "shallow bottlenecks v1, option A": (
        lambda: ResNet(Bottleneck, (2, 1, 1, 1), option="A", v1=True, num_classes=10),
        lambda: Twin(IMAGENET, (2, 1, 1, 1), "A", True, False, v1=True, imagenet=True),
        48,
    ),
    "shallow v2": (
        lambda: ResNetV2((2, 1, 1, 1), num_classes=10),
        lambda: Twin(IMAGENET, (2, 1, 1, 1), "B", True, True, imagenet=True),
        48,
    ),
    "crossing": (lambda: CrossingNet(num_classes=10), TwinCrossing, 67),
}


def close(name, ours, theirs, rtol=1e-8):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, name
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=rtol * max(np.abs(theirs).max(), 1e-3), err_msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_same_as_in_torch(name):
    ours, theirs, size = MODELS[name]
    rng = np.random.default_rng(1)
    mr.manual_seed(1)
    ours, theirs = ours().double(), theirs().double()
    for key, array in ours.state_dict().items():  # batch norms that do something, in evaluation too
        if array.ndim == 1:
            array[...] = rng.uniform(0.5, 1.5, array.shape) - (0 if key.endswith(("weight", "var")) else 1)
    theirs.load_state_dict({key: torch.tensor(array) for key, array in ours.state_dict().items()})  # the same keys
    x, y = rng.standard_normal((3, 3, size, size)), np.array([1, 5, 9])
    a, b = mr.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)

    logits, twin_logits = ours(a), theirs(b)
    F.cross_entropy(logits, y).backward()
    tF.cross_entropy(twin_logits, torch.tensor(y)).backward()
    close("logits", logits.numpy(), twin_logits)
    close("input's gradient", a.grad, b.grad)
    grads = {key: p.grad for key, p in theirs.named_parameters()}
    for key, p in ours.named_parameters():
        close(key, p.grad, grads[key])
    for key, array in ours.state_dict().items():
        if "running" in key or "tracked" in key:
            close(key, array, theirs.state_dict()[key])
    with mr.no_grad(), torch.no_grad():
        close("in evaluation", ours.eval()(mr.tensor(x)).numpy(), theirs.eval()(b))
