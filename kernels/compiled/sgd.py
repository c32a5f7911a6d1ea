"""The SGD update with momentum, in place, in one pass over all parameters."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from ...errors import ShapeError
from ..checks import alike, one_dtype
from ..memory_format import Array, contiguous
from ..runtime.jit import njit
from ..runtime.parallel import on_threads
from ..runtime.pointers import address_of, array_at
from ..runtime.threads import launch
from .elementwise import same_order


@njit()
def _update(
    ws, gs, vs,  # parameter, gradient and velocity, 1-D
    lr, momentum, weight_decay,
    now, ahead,  # the step is now·g + ahead·v
):  # fmt: skip
    if momentum == 0:
        for i in range(ws.size):
            ws[i] -= lr * (gs[i] + weight_decay * ws[i])
        return
    for i in range(ws.size):
        g = gs[i] + weight_decay * ws[i]
        v = momentum * vs[i] + g
        vs[i] = v
        ws[i] -= lr * (now * g + ahead * v)


@njit()
def _sgd(
    share, shares, thread,
    table,  # (parameters, 4) int64: the addresses of parameter, gradient and velocity, and the elements of all before
    total,  # elements of all parameters
    settings,  # (5,) in their dtype: the last arguments of _update
):  # fmt: skip
    if share < 0:
        return on_threads(share, shares)
    first, stop = share * total // shares, (share + 1) * total // shares
    for n in range(table.shape[0]):
        start, end = table[n, 3], table[n + 1, 3] if n + 1 < table.shape[0] else total
        if end <= first or start >= stop:
            continue
        low, count = max(first, start) - start, min(stop, end) - max(first, start)
        skipped = low * settings.itemsize
        param = array_at(table[n, 0] + skipped, count, settings)
        grad = array_at(table[n, 1] + skipped, count, settings)
        velocity = array_at(table[n, 2] + skipped, count, settings)
        _update(param, grad, velocity, settings[0], settings[1], settings[2], settings[3], settings[4])
    return 0


def sgd_step(
    params: Sequence[Array],
    grads: Sequence[Array],
    velocities: Sequence[Array] | None,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """g = grad + weight_decay·param;  v = momentum·v + g;  param −= lr·(g + momentum·v if nesterov else v).

    One launch for all. A parameter, its gradient and its velocity have the same shape, and all have one dtype. The parameter
    and its velocity have the same memory order too, and are updated in place; velocities may be None without momentum.
    As in PyTorch, the learning rate multiplies the velocity, not the gradient in it. Raises ShapeError and DtypeError.
    """
    if not params:
        return
    if velocities is None:
        velocities, momentum = params, 0.0  # velocities are not used
    one_dtype("sgd_step", *params)
    kept = [_flat(*arrays) for arrays in zip(params, grads, velocities, strict=True)]
    starts = list(accumulate((param.size for param, _, _ in kept), initial=0))
    table = [[*map(address_of, arrays), start] for arrays, start in zip(kept, starts)]
    now, ahead = (1, momentum) if nesterov else (0, 1)  # the step is now·g + ahead·v
    settings = np.array([lr, momentum, weight_decay, now, ahead], params[0].dtype)
    launch(_sgd, np.array(table, np.int64), starts[-1], settings, work=starts[-1] * settings.itemsize)


def _flat(param, grad, velocity):
    """The three as 1-D arrays in one memory order."""
    alike("sgd_step", param, grad, velocity)
    arrays = [a.ravel(order="K") for a in (param, same_order(grad, param), velocity)]
    arrays[1] = contiguous(arrays[1])
    one_order = _steps(param) == _steps(velocity) and not (arrays[0].flags.owndata or arrays[2].flags.owndata)
    if not (one_order and param.flags.behaved and velocity.flags.behaved):
        raise ShapeError(
            "sgd_step: a parameter and its velocity are updated in place: both are writeable and fill their memory, in "
            "one order of axes"
        )
    return arrays


def _steps(array):
    """The strides of those axes along which there is more than one element: those of others mean nothing."""
    return [stride for stride, length in zip(array.strides, array.shape) if length > 1]
