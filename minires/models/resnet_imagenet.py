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
from .network import Network, Output, PreActNetwork, outputs
from .parts import global_pool, grouping, he_init, resolutions, set_stochastic_depth, stage, zero_residual_init
from .registry import register


class ResNet(Network):
    """[1, table 1]: (N, in_channels, H, W) of any size → logits (N, num_classes).

    depths: the numbers of blocks of the stages C2 … C5. option: "A" for shortcuts padded with zero channels, "B" for
    projections, None for a plain network. v1: bottlenecks with the stride on the first 1×1 convolution, as in [1], instead
    of the 3×3; basic blocks are not affected. pool: "avg" or "max", the global pooling. groups, base_width: of bottlenecks,
    which make wide ResNets and ResNeXts; see ``blocks.inner_width``. zero_init_residual: blocks begin as the identity.
    aux_weight: as of CifarResNet; the auxiliary classifier reads C3. stochastic_depth: the probability that the last residual
    function is left out in training; see ``set_stochastic_depth``. features_only: no classifier, but the outputs of C2 … C5, a
    list, for detection and segmentation; ``feature_info`` has their channels and strides. output_stride: 32, or 16 or 8 by
    dilation; see ``resolutions``. small_images: a 3×3 stem of stride 1 and no pooling after it, for images such as CIFAR's, as
    in kuangliu/pytorch-cifar and weiaicunzai/pytorch-cifar100; output_stride is 8, 4 or 2 then, by default 8. max_pool: whether
    a max pool of stride 2 follows the stem, by default unless it is for small images; with both as in
    huyvnphan/PyTorch_CIFAR10. Raises ConfigError for values that cannot be.
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
        zero_init_residual: bool = False,
        aux_weight: float = 0.0,
        stochastic_depth: float = 0.0,
        features_only: bool = False,
        output_stride: int | None = None,
        small_images: bool = False,
        max_pool: bool | None = None,
    ) -> None:
        pooled = not small_images if max_pool is None else max_pool
        if v1 and block is Bottleneck:
            block = BottleneckV1
        expansion, more = block.expansion, grouping(block, groups, base_width)
        first = (1 if small_images else 2) * (2 if pooled else 1)
        c2, c3, c4, c5 = sizes = resolutions((1, 2, 2, 2), first, 8 * first if output_stride is None else output_stride)
        features = ((f"layer{i + 1}", (64 << i) * expansion, c.reduction) for i, c in enumerate(sizes))
        self.prepare(features_only, aux_weight, features)
        if small_images:
            self.image_size = 32
            self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pooled else nn.Identity()
        self.layer1 = stage(block, 64, 64, depths[0], c2.stride, option, dilation=c2.dilation, **more)
        self.layer2 = stage(block, 64 * expansion, 128, depths[1], c3.stride, option, dilation=c3.dilation, **more)
        self.layer3 = stage(block, 128 * expansion, 256, depths[2], c4.stride, option, dilation=c4.dilation, **more)
        self.layer4 = stage(block, 256 * expansion, 512, depths[3], c5.stride, option, dilation=c5.dilation, **more)
        if not features_only:
            self.avgpool = global_pool(pool)
            self.fc = nn.Linear(512 * expansion, num_classes)
        he_init(self)
        if zero_init_residual:
            zero_residual_init(self)
        set_stochastic_depth(self, stochastic_depth)
        self.add_auxiliary(aux_weight, num_classes)

    def forward(self, x: Tensor) -> Output:
        x = F.conv_bn_relu(x, self.conv1, self.bn1)
        x = self.maxpool(x)
        if self.features_only:
            return outputs((self.layer1, self.layer2, self.layer3, self.layer4), x)
        x = self.layer1(x)
        x = self.layer2(x)
        aux_logits = self.auxiliary(x)
        x = self.layer3(x)
        x = self.layer4(x)
        return self.output(self.fc(F.flatten(self.avgpool(x), 1)), aux_logits)


class ResNetV2(PreActNetwork):
    """[2]: (N, in_channels, H, W) of any size → logits (N, num_classes), with pre-activation bottlenecks.

    The stem has no norm and no relu, since the first block begins with them; a final norm and relu precede the global
    pooling. depths: the numbers of blocks of the four stages. Other options as of ResNet. Of features_only the maps are the
    stages' outputs, the last one after the final norm and relu, as the classifier would read it; the others have neither.
    """

    image_size = 224

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        option: Option = "B",
        num_classes: int = 1000,
        in_channels: int = 3,
        pool: Literal["avg", "max"] = "avg",
        zero_init_residual: bool = False,
        aux_weight: float = 0.0,
        stochastic_depth: float = 0.0,
        features_only: bool = False,
        output_stride: int = 32,
    ) -> None:
        sizes = resolutions((1, 2, 2, 2), 4, output_stride)
        features = ((f"stages.{i}", 256 << i, c.reduction) for i, c in enumerate(sizes))
        self.prepare(features_only, aux_weight, features)
        conv = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.stem = nn.Sequential({"conv": conv, "pool": nn.MaxPool2d(3, stride=2, padding=1)})
        self.stages = nn.Sequential()
        inside = 64
        for channels, depth, c in zip((64, 128, 256, 512), depths, sizes, strict=True):
            blocks = stage(PreActBottleneck, inside, channels, depth, c.stride, option, dilation=c.dilation)
            self.stages.append(nn.Sequential({"blocks": blocks}))
            inside = 4 * channels
        self.norm = nn.BatchNorm2d(2048)
        if not features_only:
            self.head = nn.Sequential(
                {"pool": global_pool(pool), "flatten": nn.Flatten(), "fc": nn.Linear(2048, num_classes)}
            )
        he_init(self)
        if zero_init_residual:
            zero_residual_init(self)
        set_stochastic_depth(self, stochastic_depth)
        self.add_auxiliary(aux_weight, num_classes, "batch")


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
