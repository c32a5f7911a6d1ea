"""Prologues and epilogues: what a kernel does to an array as it reads it, and to its outputs before they leave the cache.

A normalised activation need not be stored: the convolution that reads it applies batch norm and ReLU on the way, and
another convolution may add up the sums that a batch norm needs while it writes. ``Operand`` describes the first,
``Epilogue`` the second; both back ends take them. ``reference/fusion.py`` is their maths in plain NumPy.
"""

from typing import NamedTuple

import numpy as np

# Prologues: the values of an Operand, channel by channel.
PLAIN = 0  # array
NORMALISED = 1  # relu((array − mean)·scale + shift)                 batch norm and ReLU
GRADIENT = 2  # a·array + b·(partner − mean) + d                   the gradient of batch norm's input, of its output's

# Epilogues: what becomes of the outputs y. ``other``, where an epilogue has one, is added to them first.
NOTHING = 0  # they are stored as they are
MOMENTS = 1  # and the mean and biased variance of each channel are returned: what the next batch norm needs
NORMALISE = 2  # y ← relu((y − mean)·scale + shift + other): batch norm with known statistics, shortcut and ReLU
ADD = 3  # y ← y + other
MASK = 4  # y ← y + other where the ReLU below let its input pass, else 0; the sums Σ y and Σ y·(c − mean) are returned


class Operand(NamedTuple):
    """An array (N, H, W, C) with its prologue. parameters: float64 rows (C,): mean, scale, shift or mean, a, b, d."""

    array: np.ndarray
    kind: int = PLAIN
    parameters: tuple | np.ndarray = ()
    partner: np.ndarray | None = None  # GRADIENT: batch norm's input


class Epilogue(NamedTuple):
    """Arrays have the shape of the outputs (N, H, W, C); parameters are float64 rows (C,): mean, scale, shift."""

    kind: int = NOTHING
    parameters: tuple | np.ndarray = ()
    relu: bool = True  # NORMALISE: rectify?
    other: np.ndarray | None = None  # what is added: a shortcut, or a gradient that has come another way
    c: np.ndarray | None = None  # MASK: the input of the batch norm below
    z: np.ndarray | None = None  # MASK: the output of the ReLU below; None: relu((c − mean)·scale + shift) is computed


STORE = Epilogue()


def as_operand(x):
    """An array as an Operand without a prologue; an Operand as it is."""
    return x if isinstance(x, Operand) else Operand(x)


def rounded(mean, dtype):
    """The mean as kernels subtract it, rounded to their dtype, and what the rounding left, in float64."""
    near = np.asarray(mean, dtype).astype(np.float64)
    return near, mean - near


def normalised(x, mean, scale, shift):
    """The Operand relu((x − mean)·scale + shift). Subtracting first keeps the digits when the mean is large."""
    near, rest = rounded(mean, x.dtype)
    return Operand(x, NORMALISED, (near, scale, shift - rest * scale))
