"""The SGD update with momentum, in place, in one pass over the parameter."""

import numpy as np
from numba import prange

from ..errors import ShapeError
from .cache import njit
from .checks import alike
from .elementwise import flat, part, same_order
from .threads import launch


@njit(parallel=True)
def _sgd(param, grad, velocity, lr, momentum, weight_decay, now, ahead, threads):
    for t in prange(threads):
        mine = part(param.size, np.int64(t), threads)
        ws, gs, vs = param[mine], grad[mine], velocity[mine]
        if momentum == 0:
            for i in range(ws.size):
                ws[i] -= lr * (gs[i] + weight_decay * ws[i])
            continue
        for i in range(ws.size):
            g = gs[i] + weight_decay * ws[i]
            v = momentum * vs[i] + g
            vs[i] = v
            ws[i] -= lr * (now * g + ahead * v)


def sgd_step(param, grad, velocity, lr, momentum, weight_decay, nesterov):
    """g = grad + weight_decay·param;  v = momentum·v + g;  param −= lr·(g + momentum·v if nesterov else v).

    param and velocity (None without momentum) of one shape and memory order are changed in place; PyTorch's convention
    (the learning rate multiplies the velocity, not the gradient in it).
    """
    if velocity is None:
        velocity, momentum = param, 0.0  # not touched
    alike("sgd_step", param, grad, velocity)
    order = np.argsort([-stride for stride in param.strides], kind="stable")
    if not (param.transpose(order).flags.carray and velocity.transpose(order).flags.carray):
        raise ShapeError(
            "sgd_step: a parameter and its velocity are updated in place: both are writeable and fill their memory, in "
            "one order of axes"
        )
    kind = param.dtype.type
    args = (flat(param), flat(same_order(grad, param)), flat(velocity))
    now, ahead = (1, momentum) if nesterov else (0, 1)  # the step is now·g + ahead·v
    launch(_sgd, *args, *map(kind, (lr, momentum, weight_decay, now, ahead)))
