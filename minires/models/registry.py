"""The registry of models by name."""

import inspect
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError, nearest
from ..nn import Module

MODELS: dict[str, Callable[..., Module]] = {}  # name -> constructor


def register(name: str, network: Callable[..., Module], summary: str, fixed: dict[str, Any], **defaults: Any) -> None:
    """Register ``name``: a constructor that calls ``network(**fixed, **options)``, where ``defaults`` may set options.

    summary: the first sentence of the constructor's docstring.
    """

    def construct(**options: Any) -> Module:
        return network(**fixed, **{**defaults, **options})

    parameters = inspect.signature(network).parameters.values()
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


def names() -> list[str]:
    """The names of all models, by family and depth.

    >>> names()[:4]
    ['resnet8', 'resnet14', 'resnet20', 'resnet32']
    """
    return list(MODELS)


def create(name: str, **options: Any) -> Module:
    """Build the model called ``name``. Raises ConfigError for an unknown name or option.

    >>> create("resnet20", num_classes=100).fc
    Linear(in_features=64, out_features=100, bias=True)
    >>> create("resnet21")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    minires.errors.ConfigError: unknown model 'resnet21' (did you mean ...?)
    """
    if name not in MODELS:
        raise ConfigError(f"unknown model {name!r}{nearest(name, MODELS) or ': see minires.models.names()'}")
    known = inspect.signature(MODELS[name]).parameters
    for option in options:
        if option not in known:
            raise ConfigError(
                f"{name} has no option {option!r}{nearest(option, known)}: its options are {', '.join(known)}"
            )
    return MODELS[name](**options)
