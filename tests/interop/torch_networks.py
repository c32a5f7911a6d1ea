"""ResNets for CIFAR in plain PyTorch, with the module names of published code, and PyTorch's networks in general."""

import torch
import torch.nn.functional as F
from torch import nn

# What a published code calls the parts: the shortcut, the last layer; and whether its shortcuts are projections
CODES = {
    "akamaster": ("shortcut", "linear", "A"),
    "akamaster, option B": ("shortcut", "linear", "B"),
    "kuangliu": ("shortcut", "linear", "B"),
    "chenyaofo": ("downsample", "fc", "B"),
    "bearpaw": ("downsample", "fc", "B"),
}


class ZeroPad(nn.Module):
    """Option A, as in akamaster/pytorch_resnet_cifar10."""

    def __init__(self, planes):
        super().__init__()
        self.planes = planes

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4), "constant", 0)


class BasicBlock(nn.Module):
    def __init__(self, inside, planes, stride, shortcut, option):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        way: nn.Module = nn.Sequential()
        if stride != 1 or inside != planes:
            projection = nn.Conv2d(inside, planes, 1, stride, bias=False)
            way = ZeroPad(planes) if option == "A" else nn.Sequential(projection, nn.BatchNorm2d(planes))
        self.way = shortcut
        setattr(self, shortcut, way)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + getattr(self, self.way)(x))


class CifarResNet(nn.Module):
    """ResNet-8, -14, -20 … of He et al. 2015, §4.2, with the names of one of CODES."""

    def __init__(self, code, depth=20, num_classes=10, in_channels=3):
        super().__init__()
        shortcut, self.last, option = CODES[code]
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inside = 16
        for stage, planes in enumerate((16, 32, 64), 1):
            blocks = []
            for block in range(n):
                blocks.append(BasicBlock(inside, planes, 2 if stage > 1 and block == 0 else 1, shortcut, option))
                inside = planes
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        setattr(self, self.last, nn.Linear(64, num_classes))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return getattr(self, self.last)(x.mean((2, 3)))


def trained(network, seed=0):
    """The network with statistics and scales of batch norms as after a training, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.0, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
                module.num_batches_tracked += 7
    return network.eval()


def logits(network, images):
    """The network's output for an ndarray of images, as one."""
    with torch.no_grad():
        return network(torch.from_numpy(images)).numpy()


def conv3x3(inside, outside, stride=1, groups=1):
    return nn.Conv2d(inside, outside, 3, stride, 1, groups=groups, bias=False)


class WideBlock(nn.Module):
    """A block of Zagoruyko & Komodakis 2016, with the names of xternalz/WideResNet-pytorch."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inside), conv3x3(inside, outside, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outside), conv3x3(outside, outside)
        self.convShortcut = None if inside == outside else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x):
        y = F.relu(self.bn1(x))
        way = x if self.convShortcut is None else self.convShortcut(y)
        return way + self.conv2(F.relu(self.bn2(self.conv1(y))))


class WideResNet(nn.Module):
    """WRN-depth-widen with those names."""

    def __init__(self, depth=10, widen=2):
        super().__init__()
        self.conv1, inside = conv3x3(3, 16), 16
        for stage in (1, 2, 3):
            outside, blocks = 16 * widen * 2 ** (stage - 1), []
            for block in range((depth - 4) // 6):
                blocks.append(WideBlock(inside, outside, 2 if stage > 1 and block == 0 else 1))
                inside = outside
            setattr(self, f"block{stage}", nn.Sequential())
            getattr(self, f"block{stage}").add_module("layer", nn.Sequential(*blocks))
        self.bn1, self.fc = nn.BatchNorm2d(inside), nn.Linear(inside, 10)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class AggregatedBlock(nn.Module):
    """A block of Xie et al. 2017, with the names of prlz77/ResNeXt.pytorch."""

    def __init__(self, inside, outside, stride, groups, inner):
        super().__init__()
        self.conv_reduce, self.bn_reduce = nn.Conv2d(inside, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv_conv, self.bn = conv3x3(inner, inner, stride, groups), nn.BatchNorm2d(inner)
        self.conv_expand, self.bn_expand = nn.Conv2d(inner, outside, 1, bias=False), nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential()
        if inside != outside:
            self.shortcut.add_module("shortcut_conv", nn.Conv2d(inside, outside, 1, stride, bias=False))
            self.shortcut.add_module("shortcut_bn", nn.BatchNorm2d(outside))

    def forward(self, x):
        y = F.relu(self.bn_reduce(self.conv_reduce(x)))
        y = self.bn_expand(self.conv_expand(F.relu(self.bn(self.conv_conv(y)))))
        return F.relu(self.shortcut(x) + y)


class CifarResNeXt(nn.Module):
    """ResNeXt-depth for CIFAR with those names."""

    def __init__(self, depth=11, groups=2, base_width=16):
        super().__init__()
        self.conv_1_3x3, self.bn_1 = conv3x3(3, 64), nn.BatchNorm2d(64)
        inside = 64
        for stage in (1, 2, 3):
            outside, blocks = 256 * 2 ** (stage - 1), nn.Sequential()
            for block in range((depth - 2) // 9):
                stride, inner = 2 if stage > 1 and block == 0 else 1, groups * base_width * outside // 256
                name = f"stage_{stage}_bottleneck_{block}"
                blocks.add_module(name, AggregatedBlock(inside, outside, stride, groups, inner))
                inside = outside
            setattr(self, f"stage_{stage}", blocks)
        self.classifier = nn.Linear(inside, 10)

    def forward(self, x):
        x = F.relu(self.bn_1(self.conv_1_3x3(x)))
        return self.classifier(self.stage_3(self.stage_2(self.stage_1(x))).mean((2, 3)))


class DenseLayer(nn.Module):
    """A layer of Huang et al. 2017 with a bottleneck, with the names of andreasveit/densenet-pytorch."""

    def __init__(self, inside, growth):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inside), nn.Conv2d(inside, 4 * growth, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(4 * growth), conv3x3(4 * growth, growth)

    def forward(self, x):
        return torch.cat([x, self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))], 1)


class Transition(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inside), nn.Conv2d(inside, outside, 1, bias=False)

    def forward(self, x):
        return F.avg_pool2d(self.conv1(F.relu(self.bn1(x))), 2)


class DenseNet(nn.Module):
    """DenseNet-BC for CIFAR of three blocks; flat: with the names of bearpaw/pytorch-classification."""

    def __init__(self, layers=2, growth=12, flat=False):
        super().__init__()
        inside = 2 * growth
        self.conv1, self.flat = conv3x3(3, inside), flat
        for block in (1, 2, 3):
            made = nn.Sequential(*(DenseLayer(inside + i * growth, growth) for i in range(layers)))
            if not flat:
                outer = nn.Sequential()
                outer.add_module("layer", made)
            setattr(self, f"dense{block}" if flat else f"block{block}", made if flat else outer)
            inside += layers * growth
            if block < 3:
                setattr(self, f"trans{block}", Transition(inside, inside // 2))
                inside //= 2
        setattr(self, "bn" if flat else "bn1", nn.BatchNorm2d(inside))
        self.fc = nn.Linear(inside, 10)

    def forward(self, x):
        x = self.conv1(x)
        for block in (1, 2, 3):
            x = getattr(self, f"dense{block}" if self.flat else f"block{block}")(x)
            x = getattr(self, f"trans{block}")(x) if block < 3 else x
        return self.fc(F.relu((self.bn if self.flat else self.bn1)(x)).mean((2, 3)))


class SequentialBlock(nn.Module):
    """A block with the names of weiaicunzai/pytorch-cifar100; bottleneck: of three convolutions."""

    def __init__(self, inside, planes, stride, bottleneck):
        super().__init__()
        outside = 4 * planes if bottleneck else planes
        kernels = ((inside, planes, 1), (planes, planes, 3), (planes, outside, 1))
        layers: list[nn.Module] = []
        for i, (a, b, size) in enumerate(kernels if bottleneck else ((inside, planes, 3), (planes, planes, 3))):
            conv = nn.Conv2d(a, b, size, stride if i == int(bottleneck) else 1, size // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(b), nn.ReLU()]
        self.residual_function = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x):
        return F.relu(self.residual_function(x) + self.shortcut(x))


class SmallImageResNet(nn.Module):
    """ResNet-18, -50 … with a 3×3 stem for images of 32 pixels, with those names."""

    def __init__(self, depths=(2, 2, 2, 2), bottleneck=False, num_classes=100, in_channels=3):
        super().__init__()
        self.conv1 = nn.Sequential(conv3x3(in_channels, 64), nn.BatchNorm2d(64), nn.ReLU())
        inside = 64
        for stage, depth in enumerate(depths):
            blocks = []
            for block in range(depth):
                stride, planes = 2 if stage and not block else 1, 64 << stage
                blocks.append(SequentialBlock(inside, planes, stride, bottleneck))
                inside = 4 * planes if bottleneck else planes
            setattr(self, f"conv{stage + 2}_x", nn.Sequential(*blocks))
        self.fc = nn.Linear(inside, num_classes)

    def forward(self, x):
        x = self.conv3_x(self.conv2_x(self.conv1(x)))
        return self.fc(self.conv5_x(self.conv4_x(x)).mean((2, 3)))


# the names of kuangliu/pytorch-cifar for the same network
KUANGLIU = (
    ("conv1.0.", "conv1."),
    ("conv1.1.", "bn1."),
    *((f"conv{i + 1}_x.", f"layer{i}.") for i in (1, 2, 3, 4)),
    *((f"residual_function.{3 * i}.", f"conv{i + 1}.") for i in (0, 1, 2)),
    *((f"residual_function.{3 * i + 1}.", f"bn{i + 1}.") for i in (0, 1, 2)),
    ("fc.", "linear."),
)
