"""The SGD update with momentum."""

from collections.abc import Sequence

from ..checks import alike
from ..memory_format import Array


def sgd_step(
    params: Sequence[Array],
    grads: Sequence[Array],
    velocities: Sequence[Array] | None,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """g = grad + weight_decay·param;  v = momentum·v + g;  param −= lr·(g + momentum·v if nesterov else v). In place."""
    for n, (param, grad) in enumerate(zip(params, grads)):
        velocity = None if velocities is None else velocities[n]
        alike("sgd_step", *[a for a in (param, grad, velocity) if a is not None])
        g = grad + weight_decay * param
        if velocity is not None:
            velocity *= momentum
            velocity += g
            g = g + momentum * velocity if nesterov else velocity
        param -= lr * g
