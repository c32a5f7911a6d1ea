"""Checks of kernel arguments. Kernels compute addresses from shapes, so a wrong shape would read out of bounds."""

import numpy as np

from ..errors import DataError, DtypeError, ShapeError

_FLOATS = np.dtype(np.float32), np.dtype(np.float64)  # NumPy has one object for each in the machine's byte order


def one_dtype(op, *arrays):
    """Raise DtypeError unless all arrays are float32 or all are float64, in native byte order."""
    first = arrays[0].dtype
    for a in arrays:
        if a.dtype is not first or first not in _FLOATS:
            break
    else:
        return
    dtypes = {a.dtype for a in arrays}
    if len(dtypes) > 1 or not dtypes <= set(_FLOATS):
        raise DtypeError(f"{op}: takes arrays of one dtype, float32 or float64, not {' and '.join(map(str, dtypes))}")


def alike(op, *arrays):
    """Raise ShapeError or DtypeError unless all arrays have the same shape and the same float dtype."""
    one_dtype(op, *arrays)
    shape = arrays[0].shape
    fits(op, all(a.shape == shape for a in arrays), *arrays)


def fits(op, condition, *arrays):
    """Raise a ShapeError that gives the arrays' shapes unless ``condition`` holds."""
    if not condition:
        raise ShapeError(f"{op}: shapes {' and '.join(str(a.shape) for a in arrays)} do not go together")


def labels_in(op, labels, classes):
    """Raise a DataError that names the first label outside [0, classes), if there is one."""
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise DataError(f"{op}: label {labels[outside[0]]} of sample {outside[0]} is outside [0, {classes})")
