"""Random bits as a function of a key: without state, draws do not depend on their order, the batch or the thread.

    key of a sample = scramble(key_of("augment", seed, epoch), sample)        its k-th draw = scramble(key, k)

``scramble`` is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014) in closed
form: its output ``word + 1`` steps after the state ``key``. It is plain uint64 arithmetic, which NumPy applies to arrays
and Numba compiles for scalars.
"""

import numpy as np

_ONE, _GOLDEN = np.uint64(1), np.uint64(0x9E3779B97F4A7C15)
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


def scramble(key, word):
    """64 well-mixed bits from a key and a word, both uint64 (in NumPy arrays, whose products wrap without a warning)."""
    z = key + (word + _ONE) * _GOLDEN
    z = (z ^ (z >> _30)) * _A
    z = (z ^ (z >> _27)) * _B
    return z ^ (z >> _31)


def key_of(purpose, *words):
    """The key of a purpose (up to eight letters) and integers of any sign and size: an array of one uint64.

    Draws for different purposes are independent even if the integers are the same.

    >>> key_of("order", 0, 1) == key_of("order", 1, 0)
    array([False])
    """
    key = np.zeros(1, np.uint64)
    for word in (int.from_bytes(purpose.encode(), "little"), *words):
        key = scramble(key, np.array([int(word) & 0xFFFF_FFFF_FFFF_FFFF], np.uint64))
    return key


def permutation(count, purpose, *words):
    """The integers below ``count`` in an order determined by the key, the same on every machine and NumPy version.

    >>> permutation(5, "order", 0, 1)
    array([3, 2, 0, 4, 1])
    """
    draws = scramble(key_of(purpose, *words), np.arange(count, dtype=np.uint64))
    return np.argsort(draws, kind="stable")
