"""The networks in PyTorch, for comparison, with minires' own parameter names.

[1] "Deep Residual Learning for Image Recognition", He et al. 2015: ``resnet20`` … (option A), ``resnet18``, ``34``, ``50`` (B).
[2] "Identity Mappings in Deep Residual Networks", He et al. 2016: ``preresnet110`` … (option A).
[3] "Aggregated Residual Transformations for Deep Neural Networks", Xie et al. 2017: ``resnext29_8x64d``.
[4] "Densely Connected Convolutional Networks", Huang et al. 2017: ``densenet_bc100_12``.
"""

import torch
import torch.nn.functional as F
from torch import nn


def conv(inputs, outputs, kernel, stride=1, groups=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class ZeroPad(nn.Module):
    """Option A of [1]: every stride-th pixel, zeros for the new channels."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.stride, self.border = stride, (outputs - inputs) // 2
        self.by_pooling = False  # the same values without a strided slice

    def forward(self, x):
        s = self.stride
        x = F.max_pool2d(x, 1, s) if self.by_pooling else x[:, :, ::s, ::s]
        return F.pad(x, (0, 0, 0, 0, self.border, self.border))


def shortcut(inputs, outputs, stride, projection):
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if projection:
        return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
    return ZeroPad(inputs, outputs, stride)


class Basic(nn.Module):
    """relu(x + F(x)), F = two 3×3 convolutions with batch norm."""

    expansion = 1

    def __init__(self, inputs, channels, stride, projection):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, channels, 3, stride), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = conv(channels, channels, 3), nn.BatchNorm2d(channels)
        self.downsample = shortcut(inputs, channels, stride, projection)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """relu(x + F(x)), F = 1×1, 3×3 (with the stride), 1×1. The 3×3 has 8 groups in ``Grouped``."""

    expansion, groups = 4, 1

    def __init__(self, inputs, channels, stride, projection):
        super().__init__()
        inner = channels * self.groups
        self.conv1, self.bn1 = conv(inputs, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = conv(inner, inner, 3, stride, self.groups), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = conv(inner, 4 * channels, 1), nn.BatchNorm2d(4 * channels)
        self.downsample = shortcut(inputs, 4 * channels, stride, projection)

    def forward(self, x):
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class Grouped(Bottleneck):
    """The bottleneck of [3]: 8 groups, each as wide as the bottleneck would be."""

    groups = 8


class PreBasic(nn.Module):
    """x + F(x), F = BN → relu → 3×3, twice; where the shape changes, the shortcut forks after the first BN and relu."""

    expansion = 1

    def __init__(self, inputs, channels, stride, projection):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, channels, 3, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(channels), conv(channels, channels, 3)
        self.downsample = shortcut(inputs, channels, stride, projection)
        self.changes = stride != 1 or inputs != channels

    def forward(self, x):
        y = F.relu(self.norm1(x))
        if self.changes:
            x = y
        y = self.conv2(F.relu(self.norm2(self.conv1(y))))
        return self.downsample(x) + y


def stage(block, inputs, channels, depth, stride, projection=False):
    blocks = [block(inputs, channels, stride, projection)]
    blocks += [block(channels * block.expansion, channels, 1, projection) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


class CifarResNet(nn.Module):
    """[1, §4.2]: 6n + 2 layers; of bottlenecks, with projections, [3, §4.2]: 9n + 2."""

    def __init__(self, n, block=Basic, width=16, projection=False):
        super().__init__()
        wider, w = block.expansion, width
        self.conv1, self.bn1 = conv(3, w, 3), nn.BatchNorm2d(w)
        self.layer1 = stage(block, w, w, n, 1, projection)
        self.layer2 = stage(block, w * wider, 2 * w, n, 2, projection)
        self.layer3 = stage(block, 2 * w * wider, 4 * w, n, 2, projection)
        self.fc = nn.Linear(4 * w * wider, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean((2, 3)))


class CifarPreResNet(nn.Module):
    """[2]: the same with pre-activation."""

    def __init__(self, n):
        super().__init__()
        stages = stage(PreBasic, 16, 16, n, 1), stage(PreBasic, 16, 32, n, 2), stage(PreBasic, 32, 64, n, 2)
        self.stem = nn.ModuleDict({"conv": conv(3, 16, 3)})
        self.stages = nn.Sequential(*(nn.Sequential() for _ in stages))
        for place, blocks in zip(self.stages, stages):
            place.add_module("blocks", blocks)
        self.norm, self.head = nn.BatchNorm2d(64), nn.ModuleDict({"fc": nn.Linear(64, 10)})

    def forward(self, x):
        x = F.relu(self.norm(self.stages(self.stem["conv"](x))))
        return self.head["fc"](x.mean((2, 3)))


class ResNet(nn.Module):
    """[1, table 1], as torchvision has it."""

    def __init__(self, block, depths):
        super().__init__()
        wider = block.expansion
        self.conv1, self.bn1 = conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        self.layer1 = stage(block, 64, 64, depths[0], 1, True)
        self.layer2 = stage(block, 64 * wider, 128, depths[1], 2, True)
        self.layer3 = stage(block, 128 * wider, 256, depths[2], 2, True)
        self.layer4 = stage(block, 256 * wider, 512, depths[3], 2, True)
        self.fc = nn.Linear(512 * wider, 1000)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class Dense(nn.Module):
    """[x, F(x)], F = BN → relu → 1×1 → BN → relu → 3×3. [4, §3]"""

    def __init__(self, inputs, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, 4 * growth, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), conv(4 * growth, growth, 3)

    def forward(self, x):
        y = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, y], 1)


class Transition(nn.Module):
    """BN → relu → 1×1 to half the channels → average pooling by 2."""

    def __init__(self, inputs):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), conv(inputs, inputs // 2, 1)

    def forward(self, x):
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class CifarDenseNet(nn.Module):
    """[4, §4.2]: DenseNet-BC, 6n + 4 layers."""

    def __init__(self, n, growth):
        super().__init__()
        channels = 2 * growth
        self.features = nn.Sequential()
        self.features.add_module("conv0", conv(3, channels, 3))
        for block in (1, 2, 3):
            if block > 1:
                self.features.add_module(f"transition{block - 1}", Transition(channels))
                channels //= 2
            layers = nn.Sequential()
            for i in range(n):
                layers.add_module(f"denselayer{i + 1}", Dense(channels + i * growth, growth))
            self.features.add_module(f"denseblock{block}", layers)
            channels += n * growth
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, 10)

    def forward(self, x):
        return self.classifier(F.relu(self.features(x)).mean((2, 3)))


IMAGENET = {
    "resnet18": (Basic, (2, 2, 2, 2)),
    "resnet34": (Basic, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}


OTHERS = {
    "resnext29_8x64d": lambda: CifarResNet(3, Grouped, 64, True),
    "densenet_bc100_12": lambda: CifarDenseNet(16, 12),
}


def without_slices(net):
    """The network, made to compute the same without strided slices, which ncnn does not have."""
    for module in net.modules():
        if isinstance(module, ZeroPad):
            module.by_pooling = True
    return net


DEPTHS = (8, 14, 20, 32, 44, 56, 110, 1202)  # those of basic blocks


def create(name):
    """The network of that name, He-initialised. Raises ValueError for one that is not written here."""
    cifar = {
        f"{prefix}{d}": (net, d)
        for d in DEPTHS
        for prefix, net in (("resnet", CifarResNet), ("preresnet", CifarPreResNet))
    }
    if name in IMAGENET:
        net = ResNet(*IMAGENET[name])
    elif name in OTHERS:
        net = OTHERS[name]()
    elif name in cifar:
        family, depth = cifar[name]
        net = family((depth - 2) // 6)
    else:
        raise ValueError(f"{name} has no PyTorch twin here; these have: {', '.join([*cifar, *IMAGENET, *OTHERS])}")
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return net
