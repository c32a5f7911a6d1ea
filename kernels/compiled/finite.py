"""The search for NaN and Inf in many arrays at once."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from ..checks import one_dtype
from ..memory_format import Array
from ..runtime.jit import njit
from ..runtime.parallel import on_threads
from ..runtime.pointers import address_of, array_at
from ..runtime.threads import launch
from .elementwise import flat


@njit()
def _find(
    share, shares, thread,
    table,  # (arrays, 2) int64: the address of each, and the elements of all before
    total,  # elements of all arrays
    exponent,  # (1,) int32 or int64, as wide as an element: the bits of its exponent, which are all 1 in NaN and Inf
    found,  # (arrays,) uint8, set to 1 where there is one; nobody else writes anything but 1
):  # fmt: skip
    if share < 0:
        return on_threads(share, shares)
    first, stop, mask = share * total // shares, (share + 1) * total // shares, exponent[0]
    for n in range(table.shape[0]):
        start, end = table[n, 1], table[n + 1, 1] if n + 1 < table.shape[0] else total
        if end <= first or start >= stop:
            continue
        low, count = max(first, start) - start, min(stop, end) - max(first, start)
        bits, largest = array_at(table[n, 0] + low * exponent.itemsize, count, exponent), mask * 0
        for i in range(count):
            largest = max(largest, bits[i] & mask)
        if largest == mask:
            found[n] = 1
    return 0


def not_finite(arrays: Sequence[Array]) -> Array:
    """(arrays,) uint8: 1 for each array that has a NaN or an Inf, else 0. All are of one float dtype: DtypeError."""
    found = np.zeros(len(arrays), np.uint8)
    if arrays:
        one_dtype("not_finite", *arrays)
        kept = [flat(a) for a in arrays]
        starts = list(accumulate((a.size for a in kept), initial=0))
        table = np.array([[address_of(a), at] for a, at in zip(kept, starts)], np.int64)
        dtype = arrays[0].dtype
        exponent = np.array([np.inf], dtype).view(np.dtype(f"i{dtype.itemsize}"))
        launch(_find, table, starts[-1], exponent, found, work=starts[-1] * dtype.itemsize)
    return found
