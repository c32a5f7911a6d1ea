"""Images in another size: each pixel is one of the image's, or the mean of four. Images are (N, H, W, C)."""

from ..checks import fits
from ..memory_format import Array, Shape, contiguous
from ..runtime.jit import njit
from ..runtime.memory_pool import empty
from ..runtime.parallel import on_threads
from ..runtime.threads import launch
from ..sampling import Line


@njit()
def _resize(
    share, shares, thread,
    x,  # (N, H, W, C)
    top, bottom, down,  # of each row of y: two rows of x, and the weight of the second
    left, right, along,  # of each column of y, the same
    y,  # (N, OH, OW, C)
):  # fmt: skip
    if share < 0:
        return on_threads(share, shares)
    images, rows, columns, C = y.shape
    for line in range(share * images * rows // shares, (share + 1) * images * rows // shares):
        n, i = line // rows, line % rows
        above, below, v = x[n, top[i]], x[n, bottom[i]], down[i]
        for j in range(columns):
            a, b, u, pixel = left[j], right[j], along[j], y[n, i, j]
            of_one_row = top[i] == bottom[i] or v == 0  # no infinity is multiplied by 0
            of_one_column = a == b or u == 0
            for c in range(C):
                upper = above[a, c] if of_one_column else above[a, c] * (1 - u) + above[b, c] * u
                if of_one_row:
                    pixel[c] = upper
                    continue
                lower = below[a, c] if of_one_column else below[a, c] * (1 - u) + below[b, c] * u
                pixel[c] = upper * (1 - v) + lower * v
    return 0


@njit()
def _resize_grad(
    share, shares, thread,
    dy,  # (N, OH, OW, C)
    rows, top, bottom, down,  # rows: of each row of x, the range of rows of dy that it is in; the others as of _resize
    columns, left, right, along,
    dx,  # (N, H, W, C)
):  # fmt: skip
    if share < 0:
        return on_threads(share, shares)
    images, H, W, C = dx.shape
    for line in range(share * images * H // shares, (share + 1) * images * H // shares):
        n, i = line // H, line % H
        for j in range(W):
            pixel = dx[n, i, j]
            pixel[:] = 0
            for k in range(rows[i, 0], rows[i, 1]):
                v = (1 - down[k]) * (top[k] == i) + down[k] * (bottom[k] == i)
                for m in range(columns[j, 0], columns[j, 1]):
                    weight = v * ((1 - along[m]) * (left[m] == j) + along[m] * (right[m] == j))
                    source = dy[n, k, m]
                    for c in range(C):
                        pixel[c] += source[c] * weight
    return 0


def resize(x: Array, rows: Line, columns: Line) -> Array:
    """y (N, OH, OW, C): x with these rows and columns. Raises ShapeError for positions outside x."""
    N, H, W, C = x.shape
    rows.check("resize", H)
    columns.check("resize", W)
    y = empty((N, len(rows.first), len(columns.first), C), x.dtype)
    launch(_resize, contiguous(x), *rows, *columns, y)
    return y


def resize_grad(dy: Array, x_shape: Shape, rows: Line, columns: Line) -> Array:
    """dx (N, H, W, C), of shape x_shape: each pixel's share of every dy that it is in. Raises ShapeError."""
    N, H, W, C = x_shape
    rows.check("resize_grad", H)
    columns.check("resize_grad", W)
    fits("resize_grad", dy.shape == (N, len(rows.first), len(columns.first), C), dy)
    dx = empty(x_shape, dy.dtype)
    launch(_resize_grad, contiguous(dy), rows.readers(H), *rows, columns.readers(W), *columns, dx)
    return dx
