"""All mistakes by name."""

from __future__ import annotations

from contextlib import AbstractContextManager

from ....errors import ConfigError, nearest
from .backward import BACKWARD
from .both_passes import BOTH_PASSES
from .injection import Mistake, injected

MISTAKES: dict[str, Mistake] = {m.name: m for m in (*BACKWARD, *BOTH_PASSES)}


def find(name: str) -> Mistake:
    """The mistake called ``name``. Raises ConfigError for an unknown one."""
    if name not in MISTAKES:
        raise ConfigError(f"unknown mistake {name!r}{nearest(name, MISTAKES)}: choose one of {', '.join(MISTAKES)}")
    return MISTAKES[name]


def inject(name: str) -> AbstractContextManager[Mistake]:
    """A context manager: inside, backward passes of this thread have the mistake called ``name``, a key of ``MISTAKES``.

    Afterwards everything is as it was, also after an error. Other threads are not affected, nor are those started inside.
    What counts is where ``backward()`` runs; of a mistake in both passes, where the forward pass runs too. Raises ConfigError
    for an unknown name, and when the block begins inside another one.

    >>> import numpy as np, minires as mr
    >>> x = mr.tensor([-1.0, 2.0], requires_grad=True)
    >>> with inject("relu-passes-everything"):
    ...     mr.functional.relu(x).sum().backward()
    >>> x.grad
    array([1., 1.], dtype=float32)
    """
    return injected(find(name))
