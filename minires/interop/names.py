"""The names that other code gives the same weights: rules, each with the code it is of, to minires's names.

minires's names are torchvision's for post-activation networks (conv1, bn1, layer1.0.conv1, …, fc) and timm's for
pre-activation networks (stem.conv, stages.0.blocks.0.norm1, …, norm, head.fc). Rules are here only for code that computes
the same with the same weights.
"""

import re
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

Replacement = str | Callable[[re.Match[str]], str]


class Style(NamedTuple):
    """The names in one or several published codes. rules: (pattern, replacement), applied in turn to each name."""

    name: str
    rules: tuple[tuple[str, Replacement], ...]


def _plus_one(pattern: str) -> Callable[[re.Match[str]], str]:
    """A replacement: ``pattern`` with {1}, {2} … for the groups, and {1+1} for a group's number and one."""

    def replace(found: re.Match[str]) -> str:
        return re.sub(
            r"\{(\d)(\+1)?\}", lambda g: str(int(found[int(g[1])]) + 1) if g[2] else found[int(g[1])], pattern
        )

    return replace


def _transition(found: re.Match[str]) -> str:
    return f"features.transition{found[1]}.{'norm' if found[2] == 'bn' else 'conv'}."


STYLES = (
    # https://github.com/pytorch/vision/blob/main/torchvision/models/resnet.py, and densenet.py
    # https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/resnetv2.py
    # https://github.com/chenyaofo/pytorch-cifar-models/blob/master/pytorch_cifar_models/resnet.py
    # https://github.com/bearpaw/pytorch-classification/blob/master/models/cifar/resnet.py
    Style("torchvision and timm", ()),
    # https://github.com/akamaster/pytorch_resnet_cifar10/blob/master/resnet.py (its option A has no weights; for a time its
    # layers were called compressible_conv1, …)
    # https://github.com/kuangliu/pytorch-cifar/blob/master/models/resnet.py
    Style(
        "akamaster/pytorch_resnet_cifar10 and kuangliu/pytorch-cifar",
        ((r"(^|\.)compressible_", r"\1"), (r"\.shortcut\.([01])\.", r".downsample.\1.")),
    ),
    # https://github.com/weiaicunzai/pytorch-cifar100/blob/master/models/resnet.py
    Style(
        "weiaicunzai/pytorch-cifar100",
        (
            (r"^conv1\.0\.", "conv1."),
            (r"^conv1\.1\.", "bn1."),
            (r"^conv([2-5])_x\.", lambda found: f"layer{int(found[1]) - 1}."),
            (r"\.residual_function\.([036])\.", lambda found: f".conv{int(found[1]) // 3 + 1}."),
            (r"\.residual_function\.([147])\.", lambda found: f".bn{int(found[1]) // 3 + 1}."),
            (r"\.shortcut\.([01])\.", r".downsample.\1."),
        ),
    ),
    # https://github.com/huggingface/transformers/blob/main/src/transformers/models/resnet/modeling_resnet.py
    Style(
        "Hugging Face transformers",
        (
            (r"^embedder\.embedder\.convolution\.", "conv1."),
            (r"^embedder\.embedder\.normalization\.", "bn1."),
            (r"^(?:encoder\.)?stages\.(\d{1,4})\.layers\.(\d{1,4})\.", _plus_one("layer{1+1}.{2}.")),
            (r"\.shortcut\.convolution\.", ".downsample.0."),
            (r"\.shortcut\.normalization\.", ".downsample.1."),
            (r"\.layer\.(\d{1,4})\.convolution\.", _plus_one(".conv{1+1}.")),
            (r"\.layer\.(\d{1,4})\.normalization\.", _plus_one(".bn{1+1}.")),
        ),
    ),
    # https://github.com/prlz77/ResNeXt.pytorch/blob/master/models/model.py, also in bearpaw/pytorch-classification
    Style(
        "prlz77/ResNeXt.pytorch",
        (
            (r"^conv_1_3x3\.", "conv1."),
            (r"^bn_1\.", "bn1."),
            (r"^stage_(\d)\.stage_\d_bottleneck_(\d{1,4})\.", r"layer\1.\2."),
            (r"\.conv_reduce\.", ".conv1."),
            (r"\.bn_reduce\.", ".bn1."),
            (r"\.conv_conv\.", ".conv2."),
            (r"\.bn\.", ".bn2."),
            (r"\.conv_expand\.", ".conv3."),
            (r"\.bn_expand\.", ".bn3."),
            (r"\.shortcut\.shortcut_conv\.", ".downsample.0."),
            (r"\.shortcut\.shortcut_bn\.", ".downsample.1."),
        ),
    ),
    # https://github.com/xternalz/WideResNet-pytorch/blob/master/wideresnet.py, also in bearpaw/pytorch-classification
    Style(
        "xternalz/WideResNet-pytorch",
        (
            (r"^conv1\.", "stem.conv."),
            (r"^bn1\.", "norm."),
            (r"^block([1-4])\.layer\.", lambda found: f"stages.{int(found[1]) - 1}.blocks."),
            (r"\.bn([12])\.", r".norm\1."),
            (r"\.convShortcut\.", ".downsample.conv."),
        ),
    ),
    # torchvision's DenseNet before 2018, as its own densenet.py translates it
    # https://github.com/gpleiss/efficient_densenet_pytorch/blob/master/models/densenet.py
    Style(
        "gpleiss/efficient_densenet_pytorch",
        ((r"\.(norm|conv)\.([12])\.", r".\1\2."), (r"^features\.norm_final\.", "features.norm5.")),
    ),
    # https://github.com/andreasveit/densenet-pytorch/blob/master/densenet.py
    # https://github.com/bearpaw/pytorch-classification/blob/master/models/cifar/densenet.py
    Style(
        "andreasveit/densenet-pytorch and bearpaw/pytorch-classification",
        (
            (r"^conv1\.", "features.conv0."),
            (r"^bn1?\.", "features.norm5."),
            (r"^trans(\d)\.(conv|bn)1\.", _transition),
            (
                r"^(?:block(\d)\.layer|dense(\d))\.(\d{1,4})\.",
                lambda found: f"features.denseblock{found[1] or found[2]}.denselayer{int(found[3]) + 1}.",
            ),
            (r"\.bn([12])\.", r".norm\1."),
        ),
    ),
)
WRAPPERS = ("module", "_orig_mod", "model", "net", "network", "backbone", "encoder", "student", "resnet")
MOST_WRAPPERS = 8  # one in the other
CLASSIFIERS = ("fc", "linear", "classifier", "classifier.1", "head.fc", "head", "head.1", "last_linear", "output")


def unwrapped(names: Iterable[str], own: Collection[str]) -> dict[str, str]:
    """{name: name without what wrappers put before it}. own: the names in the model, whose first parts are no wrappers.

    A wrapper is a first part that all names have (``encoder_q.…``), or one that is known and some have: ``module.`` of
    DataParallel, ``_orig_mod.`` of torch.compile, ``backbone.`` beside a head.
    """
    first = {name.partition(".")[0] for name in own}
    short = {name: name for name in names}
    for _ in range(MOST_WRAPPERS):
        parts = {now.partition(".")[0] for now in short.values() if "." in now} - first
        alone = len(parts) == 1 and all("." in now and now.partition(".")[0] in parts for now in short.values())
        strip = parts if alone else parts & set(WRAPPERS)
        if not strip:
            break
        for name, now in short.items():
            part, dot, rest = now.partition(".")
            if dot and part in strip:
                short[name] = rest
    return short


def translate(names: Collection[str], own: Collection[str], classifier: str) -> dict[str, str]:
    """{name in the file: name in the model, or the name that it would have there}.

    names, own: those in the file and in the model. classifier: the module in the model whose weights are the last layer's.
    Those rules are taken which find most of the model's names; of several the first. No two names get the same one.
    """
    short = unwrapped(names, own)
    best: dict[str, str] = {}
    most = -1
    needed = {name for name in own if not name.endswith(".num_batches_tracked")}
    for candidate in STYLES:
        if needed <= set(best.values()):
            break
        found = {name: _renamed(now, candidate) for name, now in short.items()}
        found = _with_classifier(found, own, classifier)
        count = len(set(found.values()) & set(own))
        if count > most:
            best, most = found, count
    return _distinct(best)


def _renamed(name: str, style: Style) -> str:
    for pattern, replacement in style.rules:
        name = re.sub(pattern, replacement, name)
    return name


def _with_classifier(found: dict[str, str], own: Collection[str], classifier: str) -> dict[str, str]:
    """``found`` with the last layer's names, which is called otherwise elsewhere, where the model has none of its own."""
    there = set(found.values())
    if not classifier or f"{classifier}.weight" in there:
        return found
    for other in CLASSIFIERS:
        if f"{other}.weight" in there and f"{other}.weight" not in own:
            new = {f"{other}.{part}": f"{classifier}.{part}" for part in ("weight", "bias")}
            return {name: new.get(now, now) for name, now in found.items()}
    return found


def _distinct(found: dict[str, str]) -> dict[str, str]:
    """``found`` with the names of the file for those that would become a name of the model that another one has already."""
    taken: set[str] = set()
    result = {}
    for name, now in sorted(found.items(), key=lambda pair: pair[0] != pair[1]):  # exact names come first
        result[name] = name if now in taken else now
        taken.add(result[name])
    return {name: result[name] for name in found}
