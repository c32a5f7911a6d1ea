"""The random number generator behind initialisation and dropout. There is one for the process."""

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import ConfigError

_generator = np.random.default_rng()


def manual_seed(seed: int) -> None:
    """Seed the generator with an int ≥ 0. Raises ConfigError for anything else.

    >>> import minires as mr
    >>> mr.manual_seed(0); a = mr.random.generator().random()
    >>> mr.manual_seed(0); a == mr.random.generator().random()
    True
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(f"manual_seed: a seed is a whole number from 0 up, not {seed!r}")
    set_rng_state(np.random.default_rng(seed).bit_generator.state)


def generator() -> np.random.Generator:
    """The numpy.random.Generator in use, always the same object."""
    return _generator


def get_rng_state() -> Mapping[str, Any]:
    """The state of the generator: a dict of plain values, which JSON can hold.

    >>> state = get_rng_state()
    >>> a = generator().random(3)
    >>> set_rng_state(state)
    >>> (generator().random(3) == a).all()
    np.True_
    """
    return _generator.bit_generator.state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Set the generator to a state that ``get_rng_state`` returned. Raises NumPy's ValueError for any other."""
    _generator.bit_generator.state = state
