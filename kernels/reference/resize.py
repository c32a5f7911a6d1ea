"""Images in another size. Images are (N, H, W, C)."""

import numpy as np

from ..memory_format import Array, Shape
from ..sampling import Line


def resize(x: Array, rows: Line, columns: Line) -> Array:
    """First along the rows, then along the columns: each position is the mean of one or two."""
    for axis, (first, second, weight) in ((1, rows), (2, columns)):
        along = weight.reshape([-1 if a == axis else 1 for a in range(4)])
        a, b = x.take(first, axis), x.take(second, axis)
        mean = a * (1 - along) + np.where(along == 0, 0, b) * along
        x = np.where(first == second, a.swapaxes(axis, 3), mean.swapaxes(axis, 3)).swapaxes(axis, 3)
    return np.ascontiguousarray(x)


def resize_grad(dy: Array, x_shape: Shape, rows: Line, columns: Line) -> Array:
    """The transpose of the two linear maps."""
    for axis, size, (first, second, weight) in ((1, x_shape[1], rows), (2, x_shape[2], columns)):
        dx = np.zeros((size, *np.delete(dy.shape, axis)), dy.dtype)
        for k, part in enumerate(np.moveaxis(dy, axis, 0)):
            dx[first[k]] += part * (1 - weight[k])
            dx[second[k]] += part * weight[k]
        dy = np.moveaxis(dx, 0, axis)
    return np.ascontiguousarray(dy)
