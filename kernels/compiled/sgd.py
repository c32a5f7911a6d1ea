"""The SGD update with momentum, in place, in one pass over the parameter."""

from ...errors import ShapeError
from ..checks import alike
from ..memory_format import contiguous
from ..runtime.jit import njit
from ..runtime.parallel import on_threads
from ..runtime.threads import SMALL, launch
from .elementwise import part, same_order


@njit()
def _update(ws, gs, vs, lr, momentum, weight_decay, now, ahead):
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
def _sgd(t, threads, param, grad, velocity, lr, momentum, weight_decay, now, ahead):
    if t < 0:
        return on_threads(t, threads)
    mine = part(param.size, t, threads)
    _update(param[mine], grad[mine], velocity[mine], lr, momentum, weight_decay, now, ahead)
    return 0


def sgd_step(param, grad, velocity, lr, momentum, weight_decay, nesterov):
    """g = grad + weight_decay·param;  v = momentum·v + g;  param −= lr·(g + momentum·v if nesterov else v).

    param and velocity (None without momentum) of one shape and memory order are changed in place; PyTorch's convention
    (the learning rate multiplies the velocity, not the gradient in it).
    """
    if velocity is None:
        velocity, momentum = param, 0.0  # not touched
    alike("sgd_step", param, grad, velocity)
    arrays = [a.ravel(order="K") for a in (param, same_order(grad, param), velocity)]
    arrays[1] = contiguous(arrays[1])  # one that may not be written to, or is not aligned, would compile it again
    one_order = param.strides == velocity.strides and not (arrays[0].flags.owndata or arrays[2].flags.owndata)
    if not (one_order and param.flags.behaved and velocity.flags.behaved):
        raise ShapeError(
            "sgd_step: a parameter and its velocity are updated in place: both are writeable and fill their memory, in "
            "one order of axes"
        )
    kind = param.dtype.type
    now, ahead = (1, momentum) if nesterov else (0, 1)  # the step is now·g + ahead·v
    args = *arrays, kind(lr), kind(momentum), kind(weight_decay), kind(now), kind(ahead)
    if param.nbytes < SMALL:  # a network has dozens of such: even the lock costs more than the work
        _update(*args)
    else:
        launch(_sgd, *args)
