"""Gradients against finite differences, in float64.

For a random cotangent v the scalar L(x) = Σ v·f(x) has ∂L/∂x = backward(v). A central difference of L along an element, or
along a random direction of a large input, must agree. (A plain .sum() would be blind for batch norm and softmax, whose
outputs sum to a constant.)
"""

import numpy as np

from .errors import MiniresError
from .tensor import Tensor, no_grad


class GradcheckError(MiniresError, AssertionError):
    """An analytic gradient that disagrees with finite differences."""


def _outputs(f, arrays):
    y = f(*[Tensor(a) for a in arrays])
    return [t.data for t in (y if isinstance(y, (tuple, list)) else (y,))]


def _analytic(f, arrays, differentiable, rng):
    """The cotangents that were drawn, and backward's gradient of each input."""
    tensors = [Tensor(a.copy(order="K"), requires_grad=i in differentiable) for i, a in enumerate(arrays)]
    y = f(*tensors)
    ys = y if isinstance(y, (tuple, list)) else (y,)
    cotangents = [rng.standard_normal(t.shape) for t in ys]
    total = None
    for t, v in zip(ys, cotangents):
        if t.requires_grad:
            part = (t * Tensor(v)).sum()
            total = part if total is None else total + part
    if total is None:
        raise GradcheckError("gradcheck: no output of f depends on an input through minires operations")
    total.backward()
    return cotangents, [t.grad for t in tensors]


def gradcheck(f, inputs, *, eps=1e-6, rtol=1e-5, atol=1e-8, most_elements=400, directions=8, seed=0):
    """Check the gradients of ``f`` at ``inputs`` by central differences in float64. True, or GradcheckError.

    f: Tensors → a Tensor or a tuple of them; the same for the same inputs (a stochastic f needs a fixed mask).
    inputs: ndarrays or Tensors; float ones are checked, as float64; others (labels) are passed through.
    Inputs of up to ``most_elements`` are checked element by element, larger ones along random unit directions.
    |analytic − numeric| may be at most atol + rtol·(the largest of the input's gradients).

    >>> gradcheck(lambda x: (x * x).sum(), [np.array([1.0, -2.0])])
    True
    """
    rng = np.random.default_rng(seed)
    arrays = [np.array(x.data if isinstance(x, Tensor) else x, order="K") for x in inputs]
    differentiable = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    for i in differentiable:
        arrays[i] = arrays[i].astype(np.float64, order="K")
    cotangents, grads = _analytic(f, arrays, differentiable, rng)

    def loss():
        with no_grad():
            return sum(float((v * y).sum()) for v, y in zip(cotangents, _outputs(f, arrays)))

    def difference(x, step):
        """(L(x + h·step) − L(x − h·step)) / 2h."""
        start = x.copy()
        x[...] = start + eps * step
        above = loss()
        x[...] = start - eps * step
        below = loss()
        x[...] = start
        return (above - below) / (2 * eps)

    for i in differentiable:
        x = arrays[i]
        grad = np.zeros_like(x) if grads[i] is None else grads[i]
        if grad.shape != x.shape:
            raise GradcheckError(f"gradcheck: input {i} has shape {x.shape}, its gradient {grad.shape}")
        allowed = atol + rtol * np.abs(grad).max(initial=0.0)
        if x.size <= most_elements:
            for element in np.ndindex(x.shape):
                step = np.zeros_like(x)
                step[element] = 1
                where = f"element {list(map(int, element))}"
                _compare(i, where, float(grad[element]), difference(x, step), allowed)
        else:
            for d in range(directions):
                step = rng.standard_normal(x.shape)
                step /= np.linalg.norm(step)
                # the sum along a direction is as large as one element's gradient times √size
                _compare(i, f"direction {d}", float((grad * step).sum()), difference(x, step), allowed * 3)
    return True


def _compare(i, where, analytic, numeric, allowed):
    if not abs(analytic - numeric) <= allowed:
        relative = abs(analytic - numeric) / max(abs(analytic), abs(numeric), 1e-300)
        raise GradcheckError(
            f"gradcheck: input {i}, {where}: analytic {analytic:.9g}, numeric {numeric:.9g}, relative error {relative:.2e} "
            f"(allowed difference {allowed:.1e})"
        )
