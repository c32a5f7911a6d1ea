"""The one random generator behind initialisation and dropout."""

import numbers

import numpy as np

from .errors import ConfigError

_generator = np.random.default_rng()


def manual_seed(seed):
    """Start the generator behind initialisation and dropout again from ``seed``, an int ≥ 0.

    >>> import minires as mr
    >>> mr.manual_seed(0); a = mr.random.generator().random()
    >>> mr.manual_seed(0); a == mr.random.generator().random()
    True
    """
    global _generator
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(f"manual_seed: a seed is a whole number from 0 up, not {seed!r}")
    _generator = np.random.default_rng(seed)


def generator():
    """The numpy.random.Generator in use."""
    return _generator
