"""Groups of few channels, joined: a register tile is as wide as a vector, and groups of 4 channels would leave most of it idle.

As many neighbouring groups as fill a vector become one, with the weights of each in a block of its diagonal, zeros elsewhere.
The tile multiplies as often as before, by zeros instead of in idle columns, but it reads, packs and writes whole vectors. A NaN
or Inf in one group reaches the outputs of those that it is joined with.
"""

from functools import lru_cache

from ..runtime import target
from ..runtime.jit import njit
from ..runtime.memory_pool import empty
from ..runtime.parallel import on_threads
from ..runtime.recording import preparing
from ..runtime.threads import launch


@lru_cache(maxsize=512)
def join(problem, itemsize):
    """(the Problem with joined groups, how many are joined to one); the Problem itself and 1 if a group fills a vector."""
    one, lanes = problem.group, target.VECTOR_BYTES // itemsize
    most = min(problem.groups, lanes // max(1, one.channels, one.filters))
    together = next((n for n in range(most, 1, -1) if problem.groups % n == 0), 1)
    return problem._replace(groups=problem.groups // together), together


@njit()
def _spread(share, shares, thread, w, filters, joined):
    if share < 0:
        return on_threads(share, shares)
    taps, ins, outs = w.shape
    rows = joined.shape[1]
    together = rows // ins
    for t in range(share * taps // shares, (share + 1) * taps // shares):
        for i in range(rows):
            row, values, group = joined[t, i], w[t, i % ins], i // ins
            for at in range(0, outs, filters):
                if at // filters % together == group:
                    row[at : at + filters] = values[at : at + filters]
                else:
                    row[at : at + filters] = 0
    return 0


def join_weights(w, together, groups):
    """(KH, KW, together·I, O) of w (KH, KW, I, O): each group's weights in a block of its joined group's diagonal."""
    KH, KW, ins, outs = w.shape
    with preparing():
        joined = empty((KH, KW, together * ins, outs), w.dtype)
        launch(_spread, w.reshape(-1, ins, outs), outs // groups, joined.reshape(-1, together * ins, outs))
    return joined


@njit()
def _blocks(share, shares, thread, joined, filters, dw):
    if share < 0:
        return on_threads(share, shares)
    taps, ins, outs = dw.shape
    together = joined.shape[1] // ins
    for t in range(share * taps // shares, (share + 1) * taps // shares):
        for i in range(ins):
            for at in range(0, outs, filters):
                values = joined[t, at // filters % together * ins + i]
                dw[t, i, at : at + filters] = values[at : at + filters]
    return 0


def split_gradient(joined, together, groups):
    """The blocks of ``join_weights``: dw (KH, KW, I, O) from that of joined weights."""
    KH, KW, rows, outs = joined.shape
    dw = empty((KH, KW, rows // together, outs), joined.dtype)
    launch(_blocks, joined.reshape(-1, rows, outs), outs // groups, dw.reshape(-1, rows // together, outs))
    return dw
