"""The CIFAR ResNet of He et al. 2015 (section 4.2, shortcut option A) in PyTorch, for comparison."""

import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.border = stride, (outputs - inputs) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.border or self.stride != 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.border, self.border))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """6n + 2 layers, 16, 32 and 64 channels."""

    def __init__(self, n, classes=10):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        blocks, inputs = [], 16
        for outputs in (16, 32, 64):
            for i in range(n):
                blocks.append(Block(inputs, outputs, 2 if outputs > 16 and i == 0 else 1))
                inputs = outputs
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(64, classes)

    def forward(self, x):
        return self.fc(self.blocks(F.relu(self.bn1(self.conv1(x)))).mean((2, 3)))


def cifar_resnet(name):
    """``resnet20``, ``resnet56``, … by depth."""
    depth = int(name.removeprefix("resnet"))
    if (depth - 2) % 6:
        raise ValueError(f"a CIFAR ResNet has 6n + 2 layers, not {depth}")
    return CifarResNet((depth - 2) // 6)
