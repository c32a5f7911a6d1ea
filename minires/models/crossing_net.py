"""A network of five layers with two shortcuts that cross, to study how gradients flow where paths are not nested."""

from typing import Any, Literal

from .. import functional as F
from .. import nn
from ..tensor import Tensor
from .blocks import conv1x1
from .parts import global_pool, he_init
from .registry import register


class CrossingNet(nn.Module):
    """Two residual functions that overlap, each as in "Deep Residual Learning", He et al. 2015, eq. 2: y = F(x) + Wₛx.

        x ─ conv1 ─► v1 ─ pool ─► v2 ─ conv2 ─► v3 ─ pool ─► v4 ─ conv3 ─► v5 ─ global pool ─ fc ─► logits
                     └─────────│── shortcut_a ──┘                          │
                               └──────────────── shortcut_b ───────────────┘

    For 227×227×3: v1 55×55×96, v2 27×27×96, v3 27×27×256, v4 13×13×256, v5 13×13×384. Sizes from 35×35 up work.
    Wₛ is a 1×1 convolution at the centres of the pooling windows.
    """

    image_size = 227

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, pool: Literal["avg", "max"] = "avg") -> None:
        self.conv1 = nn.Conv2d(in_channels, 96, 11, stride=4, bias=False)
        self.bn1 = nn.BatchNorm2d(96)
        self.maxpool = nn.MaxPool2d(3, stride=2)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, bias=False)
        self.bn2 = nn.BatchNorm2d(256)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(384)
        self.shortcut_a = conv1x1(96, 256)
        self.shortcut_b = conv1x1(96, 384)
        self.avgpool = global_pool(pool)
        self.fc = nn.Linear(384, num_classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        v5 = self.feature_maps(x)[-1]
        return self.fc(F.flatten(self.avgpool(v5), 1))

    def feature_maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The five feature maps v1 … v5."""
        v1 = F.conv_bn_relu(x, self.conv1, self.bn1)
        v2 = self.maxpool(v1)
        v3 = F.conv_bn_add_relu(v2, self.conv2, self.bn2, self.shortcut_a(window_centres(v1)))
        v4 = self.maxpool(v3)
        v5 = F.conv_bn_add_relu(v4, self.conv3, self.bn3, self.shortcut_b(window_centres(v2)))
        return v1, v2, v3, v4, v5


def window_centres(x: Any) -> Any:
    """The pixels at the centres of 3×3 windows with stride 2: rows and columns 1, 3, 5 …, except the last row and column,
    which have no window around them. For odd sizes, such as 55 or 27 pixels, that is x[:, :, 1::2, 1::2]."""
    return x[:, :, 1:-1:2, 1:-1:2]


register("crossing", CrossingNet, "Five layers and two shortcuts that cross.", {})
