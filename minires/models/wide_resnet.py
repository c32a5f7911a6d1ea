"""Wide networks for 32×32 images: "Wide Residual Networks", Zagoruyko & Komodakis 2016 [1]."""

from typing import Literal

from .registry import register
from .resnet_cifar import CifarPreResNet, blocks_per_stage


class WideResNet(CifarPreResNet):
    """[1, table 1]: WRN-depth-widen, a CifarPreResNet of basic blocks whose stages are ``widen`` times as wide.

    (N, in_channels, H, W) → logits (N, num_classes). depth: 6n + 4, since the projections of the three stages are counted.
    dropout: its probability between the convolutions of a block, in training; [1] takes 0.3, or none. Other options as of
    CifarResNet.
    """

    def __init__(
        self,
        depth: int,
        widen: int,
        num_classes: int = 10,
        in_channels: int = 3,
        pool: Literal["avg", "max"] = "avg",
        dropout: float = 0.0,
        zero_init_residual: bool = False,
        aux_weight: float = 0.0,
        stochastic_depth: float = 0.0,
        features_only: bool = False,
        output_stride: int = 4,
    ) -> None:
        super().__init__(
            6 * blocks_per_stage(depth, 2, 4) + 2,
            option="B",
            num_classes=num_classes,
            in_channels=in_channels,
            pool=pool,
            zero_init_residual=zero_init_residual,
            aux_weight=aux_weight,
            widen=widen,
            dropout=dropout,
            stochastic_depth=stochastic_depth,
            features_only=features_only,
            output_stride=output_stride,
        )


for _d, _widen in ((16, 4), (28, 10)):
    register(
        f"wrn{_d}_{_widen}",
        WideResNet,
        f"WRN-{_d}-{_widen}, a wide pre-activation ResNet for CIFAR.",
        {"depth": _d, "widen": _widen},
    )
