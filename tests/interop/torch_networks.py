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
