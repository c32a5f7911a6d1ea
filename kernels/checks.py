"""Checks of kernel arguments. Kernels compute addresses from shapes, so a wrong shape would read out of bounds."""

import numpy as np

from ..errors import DataError, DtypeError, ShapeError


def one_dtype(op, *arrays):
    """Raise DtypeError unless all arrays are float32 or all are float64, in native byte order."""
    dtypes = {a.dtype for a in arrays}
    if len(dtypes) > 1 or not dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}:
        raise DtypeError(f"{op}: takes arrays of one dtype, float32 or float64, not {' and '.join(map(str, dtypes))}")


def alike(op, *arrays):
    """Raise ShapeError or DtypeError unless all arrays have the same shape and the same float dtype."""
    one_dtype(op, *arrays)
    fits(op, len({a.shape for a in arrays}) == 1, *arrays)


def fits(op, condition, *arrays):
    """Raise a ShapeError that gives the arrays' shapes unless ``condition`` holds."""
    if not condition:
        raise ShapeError(f"{op}: shapes {' and '.join(str(a.shape) for a in arrays)} do not go together")


def labels_in(op, labels, classes):
    """Raise a DataError that names the first label outside [0, classes), if there is one."""
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise DataError(f"{op}: label {labels[outside[0]]} of sample {outside[0]} is outside [0, {classes})")
