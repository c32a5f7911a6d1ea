"""The options by which a command is told its network: a run, or a model by name with a file of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..errors import ConfigError
from .options import model_options, option, path_option

if TYPE_CHECKING:
    from ..data import Normalization
    from ..training.source import TrainedNetwork

NETWORK = "The network"

Run = Annotated[Path | None, path_option(NETWORK, "The folder of a run, or one of its checkpoints.", metavar="RUN")]
Model = Annotated[str | None, option(NETWORK, "The network that --weights are of, by name, such as resnet20.")]
Weights = Annotated[
    Path | None,
    path_option(
        NETWORK,
        "Weights trained elsewhere: safetensors, or a .pth, .pt or .th file of PyTorch's, with the names of torchvision, timm "
        "or the well-known CIFAR codes. Nothing in it is run.",
        metavar="FILE",
    ),
]
NumClasses = Annotated[
    int | None, option(NETWORK, "With --weights: the number of classes, if not the file's: with a new last layer.")
]
ModelOption = Annotated[
    list[str] | None, option(NETWORK, "A setting of the model's constructor, such as option=B.", metavar="NAME=VALUE")
]
Normalize = Annotated[
    str | None,
    option(
        NETWORK,
        "The normalisation of images that weights were trained with: imagenet, cifar10 or cifar100.",
        metavar="NAME",
    ),
]
Mean = Annotated[
    str | None, option(NETWORK, "In place of its name: the means, such as 0.485,0.456,0.406.", metavar="NUMBERS")
]
Std = Annotated[
    str | None, option(NETWORK, "And the standard deviations, such as 0.229,0.224,0.225.", metavar="NUMBERS")
]


def load_network(
    run: Path | None,
    model: str | None,
    weights: Path | None,
    num_classes: int | None = None,
    model_option: Sequence[str] | None = None,
    normalize: str | None = None,
    mean: str | None = None,
    std: str | None = None,
) -> TrainedNetwork:
    """The network that the options name, in evaluation mode.

    Raises ConfigError for options that are missing or do not go together, and what loading raises.
    """
    from ..training.source import network_of_run, network_of_weights

    check_source(run, model, weights, "a run with --run")
    normalization = normalization_of(normalize, mean, std)
    if run is not None:
        others = {"num-classes": num_classes, "model-option": model_option, "normalize": normalization}
        for name, value in others.items():
            if value:
                raise ConfigError(f"a run has its own settings: leave --{name} out, which goes with --weights")
        return network_of_run(run)
    assert model is not None
    assert weights is not None
    options = model_options(model_option or ())
    return network_of_weights(model, weights, num_classes, options, normalization)


def check_source(run: Path | None, model: str | None, weights: Path | None, how: str = "a run") -> None:
    """Raise ConfigError unless there is a run, or a model with weights. how: a run is given, in words."""
    if run is not None:
        for name, value in (("model", model), ("weights", weights)):
            if value is not None:
                raise ConfigError(
                    f"a run names its network itself: give either the run or --model with --weights, not --{name}"
                )
    elif model is None and weights is None:
        raise ConfigError(f"which network? Give {how}, or --model NAME and --weights FILE")
    elif weights is None:
        raise ConfigError(
            f"--model {model} has no trained weights of its own: give a file of them with --weights, or a run"
        )
    elif model is None:
        raise ConfigError(
            f"a file of weights does not say what network it is of: name it with --model, beside {weights}"
        )


def refuse_new_head(network: TrainedNetwork) -> None:
    """Raise ConfigError for a last layer that is not the file's: what it says means nothing."""
    from ..models import classifier

    if network.report is None:
        return
    head, _ = classifier(network.model)
    if any(name.startswith(f"{head}.") for name in network.report.kept):
        raise ConfigError(
            f"the weights in {network.source} have no last layer for {network.num_classes} classes: it would be new, and know "
            "nothing. Leave --num-classes out, or train it first (minires train --weights)"
        )


def normalization_of(normalize: str | None, mean: str | None, std: str | None) -> Normalization | None:
    """The normalisation of --normalize, or of --mean and --std; None without any. Raises ConfigError."""
    from ..data import Normalization

    if normalize is not None:
        if mean is not None or std is not None:
            raise ConfigError("--normalize names a mean and a std: leave --mean and --std out, or --normalize")
        return Normalization.named(normalize)
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise ConfigError(f"--mean and --std go together: give --{'mean' if mean is None else 'std'} too")
    normalization = Normalization(numbers("--mean", mean), numbers("--std", std))
    if max(normalization.mean) > 1:
        scaled = [",".join(f"{n / 255:.4g}" for n in values) for values in (normalization.mean, normalization.std)]
        raise ConfigError(
            f"--mean and --std are of pixels from 0 to 1, and --mean is {mean}: if it is of pixels from 0 to 255, say --mean "
            f"{scaled[0]} --std {scaled[1]}"
        )
    return normalization


def numbers(name: str, text: str, example: str = "0.485,0.456,0.406") -> tuple[float, ...]:
    """ "0.5,0.75" → (0.5, 0.75). Raises ConfigError, which names the option."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{name} takes numbers with commas between them, such as {example}, not {text!r}") from None
