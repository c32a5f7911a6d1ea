"""Imports Numba, after a look at the settings with which compiled kernels cannot work. To be imported before Numba is."""

import os

from ...errors import ConfigError
from .signals import held_back


def check():
    """Raise ConfigError if an environment variable keeps Numba from compiling or from starting threads."""
    threads = os.environ.get("NUMBA_NUM_THREADS")
    if threads is not None and _number(threads) < 1:
        raise ConfigError(
            f"NUMBA_NUM_THREADS is a whole number from 1 up, not {threads!r}: correct this environment variable or unset it"
        )
    disabled = os.environ.get("NUMBA_DISABLE_JIT")
    if disabled is not None and _number(disabled) != 0:
        raise ConfigError(
            f"NUMBA_DISABLE_JIT={disabled} switches off the compiler that the fast kernels need: unset this environment "
            'variable, or use the readable kernels, with minires.backend("reference")'
        )


def _number(text):
    """The whole number in a text, or -1."""
    try:
        return int(text)
    except ValueError:
        return -1


check()
with held_back():
    import numba  # noqa: F401
