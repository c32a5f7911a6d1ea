"""Random bits as a function of a key: no state, so nothing depends on the order, the batch or the thread of the draws.

    key of a sample = scramble(key_of("augment", seed, epoch), sample)        its k-th draw = scramble(key, k)

``scramble`` is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014) in closed
form: the number it draws ``word + 1`` steps from the state ``key``. It is plain arithmetic on uint64, which NumPy runs
over arrays and Numba compiles for scalars.
"""

import numpy as np

_ONE, _GOLDEN = np.uint64(1), np.uint64(0x9E3779B97F4A7C15)
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


def scramble(key, word):
    """64 well-mixed bits of a key and a word; both are uint64 (NumPy: arrays, whose products wrap in silence)."""
    z = key + (word + _ONE) * _GOLDEN
    z = (z ^ (z >> _30)) * _A
    z = (z ^ (z >> _27)) * _B
    return z ^ (z >> _31)


def key_of(purpose, *words):
    """The key of a purpose, of up to eight letters, and whole numbers of any sign and size: an array of one uint64.

    The purpose keeps the draws for one thing independent of those for another with the same numbers.

    >>> key_of("order", 0, 1) == key_of("order", 1, 0)
    array([False])
    """
    key = np.zeros(1, np.uint64)
    for word in (int.from_bytes(purpose.encode(), "little"), *words):
        key = scramble(key, np.array([int(word) & 0xFFFF_FFFF_FFFF_FFFF], np.uint64))
    return key


def permutation(count, purpose, *words):
    """The whole numbers below ``count`` in an order that is a function of the key, on every machine and NumPy.

    >>> permutation(5, "order", 0, 1)
    array([3, 2, 0, 4, 1])
    """
    draws = scramble(key_of(purpose, *words), np.arange(count, dtype=np.uint64))
    return np.argsort(draws, kind="stable")
