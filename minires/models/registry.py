"""The registry of models by name."""

import inspect
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError, nearest
from ..nn import Module

MODELS: dict[str, Callable[..., Module]] = {}  # name -> constructor
SIZES: dict[str, int] = {}  # name -> the side of the images that it is made for


def register(name: str, network: Callable[..., Module], summary: str, fixed: dict[str, Any], **defaults: Any) -> None:
    """Register ``name``: a constructor that calls ``network(**fixed, **options)``, where ``defaults`` may set options.

    summary: the first sentence of the constructor's docstring.
    """

    parameters = inspect.signature(network).parameters.values()
    switches = {p.name: p.default for p in parameters if isinstance(p.default, bool) or p.annotation == bool | None}

    def construct(**options: Any) -> Module:
        for option in switches.keys() & options.keys():
            value = options[option]
            if not isinstance(value, bool) and value is not switches[option]:  # "no" would count as true
                raise ConfigError(f"{option} is true or false, not {value!r}")
        return network(**fixed, **{**defaults, **options})

    construct.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # which inspect.signature reads
        [
            p.replace(kind=p.KEYWORD_ONLY, default=defaults.get(p.name, p.default))
            for p in parameters
            if p.name not in fixed
        ]
    )
    construct.__name__ = construct.__qualname__ = name
    construct.__doc__ = f"{summary} Options: those of {network.__name__}."
    MODELS[name] = construct
    SIZES[name] = network.image_size  # type: ignore[attr-defined]  # of the class


def names() -> list[str]:
    """The names of all models, by family and depth.

    >>> names()[:4]
    ['resnet8', 'resnet14', 'resnet20', 'resnet32']
    """
    return list(MODELS)


def image_size(name: str) -> int:
    """The side in pixels of the images that the model called ``name`` is made for. Raises ConfigError for an unknown name.

    >>> image_size("resnet20"), image_size("resnet50")
    (32, 224)
    """
    _check_name(name)
    return SIZES[name]


def _check_name(name: str) -> None:
    if name not in MODELS:
        raise ConfigError(f"unknown model {name!r}{nearest(name, MODELS) or ': see minires.models.names()'}")


def create(name: str, **options: Any) -> Module:
    """Build the model called ``name``. Raises ConfigError for an unknown name or option.

    >>> create("resnet20", num_classes=100).fc
    Linear(in_features=64, out_features=100, bias=True)
    >>> create("resnet21")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    minires.errors.ConfigError: unknown model 'resnet21' (did you mean ...?)
    """
    _check_name(name)
    known = inspect.signature(MODELS[name]).parameters
    for option in options:
        if option not in known:
            raise ConfigError(
                f"{name} has no option {option!r}{nearest(option, known)}: its options are {', '.join(known)}"
            )
    return MODELS[name](**options)
