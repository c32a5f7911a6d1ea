"""Networks that concatenate where residual networks add: "Densely Connected Convolutional Networks", Huang et al. 2017 [1].

Names of modules as in torchvision's densenet, whose layout this is, with the stem for small images.
"""

from typing import Literal

from .. import functional as F
from .. import nn
from ..errors import ConfigError
from ..tensor import Tensor
from .blocks import MOST_WIDTH, conv1x1, conv3x3
from .network import Network, Output, outputs
from .parts import checked_probability, global_pool, he_init
from .registry import register


class DenseLayer(nn.Module):
    """[x, F(x)] along the channels, F = BN → relu → 1×1 → BN → relu → 3×3 with ``growth`` channels. [1, §3, "DenseNet-B"]

    The 1×1 convolution has four times as many. dropout: its probability after the last convolution, in training.
    """

    recordable = True

    def __init__(self, in_channels: int, growth: int, dropout: float = 0.0) -> None:
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv1x1(in_channels, 4 * growth)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = conv3x3(4 * growth, growth)
        self.dropout = nn.Dropout(dropout) if dropout else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.bn_relu_conv(x, self.norm1, self.conv1)
        y = F.bn_relu_conv(y, self.norm2, self.conv2)
        return F.cat([x, y if self.dropout is None else self.dropout(y)], 1)


class Transition(nn.Module):
    """BN → relu → 1×1 → average pooling by 2, between two dense blocks. [1, §3, "DenseNet-C"]"""

    recordable = True

    def __init__(self, in_channels: int, out_channels: int) -> None:
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = conv1x1(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.bn_relu_conv(x, self.norm, self.conv), 2)


class CifarDenseNet(Network):
    """DenseNet-BC for 32×32 images [1, §3 and §4.2]: a 3×3 convolution, three dense blocks of n layers, a classifier.

    (N, in_channels, H, W) → logits (N, num_classes). depth: 6n + 4. growth: k, the channels that a layer adds; the first
    convolution has twice as many. compression: θ, the part of its channels that a transition keeps. pool: "avg" or "max", the
    global pooling. dropout: its probability after each layer; [1] takes 0.2 for images that are not augmented. aux_weight: as
    of CifarResNet; the auxiliary classifier reads the second dense block. features_only: no classifier, but the outputs of the
    dense blocks, a list, the last one after the final norm and relu. Raises ConfigError for numbers that cannot be.
    """

    recordable = True

    def __init__(
        self,
        depth: int,
        growth: int = 12,
        compression: float = 0.5,
        num_classes: int = 10,
        in_channels: int = 3,
        pool: Literal["avg", "max"] = "avg",
        dropout: float = 0.0,
        aux_weight: float = 0.0,
        features_only: bool = False,
    ) -> None:
        n, growth = layers_per_block(depth), checked_growth(growth)
        dropout, compression = checked_probability("dropout", dropout), checked_compression(compression)
        C = 2 * growth
        features: dict[str, nn.Module] = {"conv0": conv3x3(in_channels, C)}
        ends = []
        for block in (1, 2, 3):
            if block > 1:
                features[f"transition{block - 1}"] = Transition(C, int(C * compression))
                C = int(C * compression)
            layers = {f"denselayer{i + 1}": DenseLayer(C + i * growth, growth, dropout) for i in range(n)}
            features[f"denseblock{block}"] = nn.Sequential({**layers})
            C += n * growth
            ends.append((f"features.denseblock{block}", C, 1 << (block - 1)))
        features["norm5"] = nn.BatchNorm2d(C)
        self.features = nn.Sequential(features)
        self.prepare(features_only, aux_weight, ends)
        if not features_only:
            self.pool = global_pool(pool)
            self.classifier = nn.Linear(C, num_classes)
        he_init(self)
        self.add_auxiliary(aux_weight, num_classes, "batch")

    def forward(self, x: Tensor) -> Output:
        if self.features_only or (self.aux is not None and self.training):
            maps = self.maps(x)
            if self.features_only:
                return maps
            aux_logits, x = self.auxiliary(maps[1]), maps[-1]
        else:
            aux_logits, x = None, F.relu(self.features(x))
        return self.output(self.classifier(F.flatten(self.pool(x), 1)), aux_logits)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The outputs of the dense blocks, the last one normalised and rectified."""
        found = outputs(self.features, x)
        ends = [y for (name, _), y in zip(self.features.named_children(), found) if name.startswith("denseblock")]
        return [*ends[:-1], F.relu(found[-1])]


def layers_per_block(depth: int) -> int:
    """n of a DenseNet-BC with three blocks of n layers: depth = 6n + 4. Raises ConfigError when there is no such n."""
    n, rest = divmod(depth - 4, 6)
    if rest or n < 1:
        raise ConfigError(
            f"depth {depth} cannot be: three dense blocks of n layers with two convolutions each have depth 6n + 4, "
            f"such as {6 * max(n, 1) + 4} or {6 * (max(n, 1) + 1) + 4}"
        )
    return n


def checked_growth(growth: int) -> int:
    """The growth rate, or ConfigError for one that no network has."""
    if not isinstance(growth, int) or isinstance(growth, bool) or not 1 <= growth <= MOST_WIDTH:
        raise ConfigError(
            f"growth is the channels that each layer adds, a whole number from 1 to {MOST_WIDTH}, not {growth!r}"
        )
    return growth


def checked_compression(compression: float) -> float:
    """θ, or ConfigError for a number that is no part of the channels."""
    if not isinstance(compression, int | float) or isinstance(compression, bool) or not 0.1 <= compression <= 1:
        raise ConfigError(
            f"compression is the part of its channels that a transition keeps, a number from 0.1 to 1, not {compression!r}"
        )
    return float(compression)


register(
    "densenet_bc100_12",
    CifarDenseNet,
    "DenseNet-BC for CIFAR with 100 layers and k = 12.",
    {"depth": 100, "growth": 12},
)
