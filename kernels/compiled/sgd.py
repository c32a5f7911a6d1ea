"""The SGD update with momentum, in place, in one pass over the parameter."""

from ...errors import ShapeError
from ..checks import alike
from ..memory_format import Array, contiguous
from ..runtime.jit import njit
from ..runtime.parallel import on_threads
from ..runtime.threads import SMALL, launch
from .elementwise import part, same_order


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
    param, grad, velocity,  # 1-D
    lr, momentum, weight_decay, now, ahead,  # as in _update
):  # fmt: skip
    if share < 0:
        return on_threads(share, shares)
    mine = part(param.size, share, shares)
    _update(param[mine], grad[mine], velocity[mine], lr, momentum, weight_decay, now, ahead)
    return 0


def sgd_step(
    param: Array, grad: Array, velocity: Array | None, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> None:
    """g = grad + weight_decay·param;  v = momentum·v + g;  param −= lr·(g + momentum·v if nesterov else v).

    param and velocity (None without momentum) have the same shape and memory order and are updated in place. As in PyTorch,
    the learning rate multiplies the velocity, not the gradient in it. Raises ShapeError and DtypeError.
    """
    if velocity is None:
        velocity, momentum = param, 0.0  # velocity is not used
    alike("sgd_step", param, grad, velocity)
    arrays = [a.ravel(order="K") for a in (param, same_order(grad, param), velocity)]
    arrays[1] = contiguous(arrays[1])  # a read-only or unaligned array would compile the kernel again
    one_order = param.strides == velocity.strides and not (arrays[0].flags.owndata or arrays[2].flags.owndata)
    if not (one_order and param.flags.behaved and velocity.flags.behaved):
        raise ShapeError(
            "sgd_step: a parameter and its velocity are updated in place: both are writeable and fill their memory, in "
            "one order of axes"
        )
    kind = param.dtype.type
    now, ahead = (1, momentum) if nesterov else (0, 1)  # the step is now·g + ahead·v
    args = *arrays, kind(lr), kind(momentum), kind(weight_decay), kind(now), kind(ahead)
    if param.nbytes < SMALL:  # networks have dozens of these; even the lock would cost more than the work
        _update(*args)
    else:
        launch(_sgd, *args)
