"""Prologues and epilogues: what a kernel does to an array as it reads it, and to its outputs before they leave the cache.

A normalised activation need not be stored: the convolution that reads it applies batch norm and ReLU while packing, and
the convolution before a batch norm can compute its sums while writing. ``Operand`` describes an array with its prologue,
``Epilogue`` an epilogue; both back ends take them. ``reference/fusion.py`` has the maths in plain NumPy.
"""

from typing import NamedTuple

import numpy as np

# Prologues: the values of an Operand, per channel.
PLAIN = 0  # array
NORMALISED = 1  # relu((array − mean)·scale + shift)                 batch norm and ReLU
GRADIENT = 2  # a·array + b·(partner − mean) + d                   batch norm's input gradient, from its output gradient

# Epilogues: what happens to the outputs y. If ``other`` is None, it counts as 0.
NOTHING = 0  # y is stored as it is
MOMENTS = 1  # y ← y + other; returns the mean and biased variance of each channel, which the next batch norm needs
NORMALISE = 2  # y ← relu((y − mean)·scale + shift + other): batch norm with known statistics, shortcut and ReLU
ADD = 3  # y ← y + other
MASK = 4  # y ← y + other where the ReLU below passed its input, else 0; returns the sums Σ y and Σ y·(c − mean)


class Operand(NamedTuple):
    """An array (N, H, W, C) with its prologue. parameters: float64 rows (C,), either mean, scale, shift or mean, a, b, d."""

    array: np.ndarray
    kind: int = PLAIN
    parameters: tuple | np.ndarray = ()
    partner: np.ndarray | None = None  # GRADIENT: batch norm's input


class Epilogue(NamedTuple):
    """Arrays have the outputs' shape (N, H, W, C); parameters are float64 rows (C,): mean, scale, shift."""

    kind: int = NOTHING
    parameters: tuple | np.ndarray = ()
    relu: bool = True  # NORMALISE: apply the ReLU?
    other: np.ndarray | None = None  # added to y: a shortcut, or a gradient from another branch
    c: np.ndarray | None = None  # MASK: the input of the batch norm below
    z: np.ndarray | None = None  # MASK: the output of the ReLU below; None: recompute relu((c − mean)·scale + shift)


STORE = Epilogue()


def as_operand(x: "Operand | np.ndarray") -> Operand:
    """Wrap an array in an Operand without a prologue; return an Operand unchanged."""
    return x if isinstance(x, Operand) else Operand(x)


def rounded(mean: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The mean rounded to ``dtype``, as kernels subtract it, and the rounding error; both float64."""
    near = np.asarray(mean, dtype).astype(np.float64)
    return near, np.asarray(mean, np.float64) - near
