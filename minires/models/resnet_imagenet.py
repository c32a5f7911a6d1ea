"""Networks for large images: a 7×7 stem, a max pooling, four stages of 64 … 512 channels at 1/4 … 1/32 of the size.

ResNet: "Deep Residual Learning for Image Recognition", He et al. 2015, table 1 [1]. Names as in torchvision.
ResNetV2: "Identity Mappings in Deep Residual Networks", He et al. 2016 [2]. Layout and names as in timm's resnetv2.
Wide ResNets: "Wide Residual Networks", Zagoruyko & Komodakis 2016, table 8; ResNeXt: "Aggregated Residual Transformations for
Deep Neural Networks", Xie et al. 2017, table 1. Both are ResNets with other 3×3 convolutions in their bottlenecks, as in
torchvision.
"""

from typing import Literal

from .. import functional as F
from .. import nn
from ..tensor import Tensor
from .blocks import BasicBlock, Bottleneck, BottleneckV1, Option, PreActBottleneck
from .parts import global_pool, grouping, he_init, stage
from .registry import register


class ResNet(nn.Module):
    """[1, table 1]: (N, in_channels, H, W) of any size → logits (N, num_classes).

    depths: the numbers of blocks of the stages C2 … C5. option: "A" for shortcuts padded with zero channels, "B" for
    projections, None for a plain network. v1: bottlenecks with the stride on the first 1×1 convolution, as in [1], instead
    of the 3×3; basic blocks are not affected. pool: "avg" or "max", the global pooling. groups, base_width: of bottlenecks,
    which make wide ResNets and ResNeXts; see ``blocks.inner_width``.
    """

    recordable = True
    image_size = 224

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        option: Option = "B",
        v1: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        pool: Literal["avg", "max"] = "avg",
        groups: int = 1,
        base_width: int = 64,
    ) -> None:
        if v1 and block is Bottleneck:
            block = BottleneckV1
        expansion = block.expansion
        inner = grouping(block, groups, base_width)
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(block, 64, 64, depths[0], 1, option, **inner)
        self.layer2 = stage(block, 64 * expansion, 128, depths[1], 2, option, **inner)
        self.layer3 = stage(block, 128 * expansion, 256, depths[2], 2, option, **inner)
        self.layer4 = stage(block, 256 * expansion, 512, depths[3], 2, option, **inner)
        self.avgpool = global_pool(pool)
        self.fc = nn.Linear(512 * expansion, num_classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv_bn_relu(x, self.conv1, self.bn1)
        x = self.maxpool(x)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.layer4(x)
        return self.fc(F.flatten(self.avgpool(x), 1))


class ResNetV2(nn.Module):
    """[2]: (N, in_channels, H, W) of any size → logits (N, num_classes), with pre-activation bottlenecks.

    The stem has no norm and no relu, since the first block begins with them; a final norm and relu precede the global
    pooling. depths: the numbers of blocks of the four stages. Other options as of ResNet.
    """

    recordable = True
    image_size = 224

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        option: Option = "B",
        num_classes: int = 1000,
        in_channels: int = 3,
        pool: Literal["avg", "max"] = "avg",
    ) -> None:
        conv = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.stem = nn.Sequential({"conv": conv, "pool": nn.MaxPool2d(3, stride=2, padding=1)})
        self.stages = nn.Sequential(
            nn.Sequential({"blocks": stage(PreActBottleneck, 64, 64, depths[0], 1, option)}),
            nn.Sequential({"blocks": stage(PreActBottleneck, 256, 128, depths[1], 2, option)}),
            nn.Sequential({"blocks": stage(PreActBottleneck, 512, 256, depths[2], 2, option)}),
            nn.Sequential({"blocks": stage(PreActBottleneck, 1024, 512, depths[3], 2, option)}),
        )
        self.norm = nn.BatchNorm2d(2048)
        self.head = nn.Sequential(
            {"pool": global_pool(pool), "flatten": nn.Flatten(), "fc": nn.Linear(2048, num_classes)}
        )
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.stages(x)
        x = F.bn_relu(x, self.norm)
        return self.head(x)


DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # [1, table 1]
_BASIC = {"block": BasicBlock, "groups": 1, "base_width": 64}
for _d in (18, 34):
    register(f"resnet{_d}", ResNet, f"ResNet-{_d} for ImageNet.", _BASIC | {"depths": DEPTHS[_d]})
for _d in (50, 101, 152):
    register(f"resnet{_d}", ResNet, f"ResNet-{_d} for ImageNet.", {"block": Bottleneck, "depths": DEPTHS[_d]})
for _d in (18, 34):
    register(
        f"plain{_d}",
        ResNet,
        f"The plain counterpart of resnet{_d}.",
        _BASIC | {"depths": DEPTHS[_d], "option": None, "v1": False},
    )
for _d in (50, 101, 152):
    register(f"resnet{_d}v2", ResNetV2, f"Pre-activation ResNet-{_d} for ImageNet.", {"depths": DEPTHS[_d]})
for _d in (50, 101):
    register(
        f"wide_resnet{_d}_2",
        ResNet,
        f"ResNet-{_d} for ImageNet with 3×3 convolutions of twice the width.",
        {"block": Bottleneck, "depths": DEPTHS[_d], "groups": 1, "base_width": 128},
    )
for _d, _groups, _width in ((50, 32, 4), (101, 32, 8), (101, 64, 4)):
    register(
        f"resnext{_d}_{_groups}x{_width}d",
        ResNet,
        f"ResNeXt-{_d} for ImageNet, of {_groups} groups that are {_width} channels wide.",
        {"block": Bottleneck, "depths": DEPTHS[_d], "groups": _groups, "base_width": _width},
    )
