"""Where everything stands: address tables that turn convolutions into products of a few rows by a few vectors.

A convolution is a matrix product whose left matrix, the im2col matrix, is never stored. Its rows are positions of a grid
(q, r) and its columns are taps × channels; element (position; tap, channel) is read at

    start of the packed image  +  rows_at[position]  +  runs_at[tap]  +  channel

All three uses have this form, for any stride and dilation:

forward         one phase. Position = output pixel, tap (kh, kw) at (kh·dilation, kw·dilation).
input gradient  stride² phases. dx[s·q + p] = Σ dy[q + (p + padding − kh·dilation)/s] · w[kh] over the taps kh for which that
                is a whole number: each phase p is a stride-1 convolution of dy with its own taps, and no zero is multiplied.
weight gradient rows are (kh, kw, channel) and the sum runs over output pixels (see ``WeightPlan``).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from . import target
from .layout import out_size

PACKED_BYTES = 128 << 10  # of a packed band of an image: it shares the L2 cache with the weights
FEW_POSITIONS = 256  # small images are taken several at a time, so that tiles are full
WEIGHT_POSITIONS = 192  # a weight gradient's tile walks over a cache line of x and of dy for each position


class Geometry(NamedTuple):
    """One convolution. Pairs are (height, width)."""

    images: int
    size: tuple
    channels: int
    filters: int
    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int

    @property
    def out_size(self):
        return out_size(self.size, self.kernel, self.stride, self.padding, self.dilation)


class Packing(NamedTuple):
    """How bands of an image are copied, with their zero border, into a buffer that stays in cache. All int.

    An item is a group of whole images, or a band of grid rows of one image.
    """

    direct: int  # 1: no border is needed, the image is read where it is
    images: int  # images in one item
    band: int  # grid rows in one item
    bands: int  # items that one image, or group of images, is cut into
    items: int
    step: int  # image rows for one grid row
    column_step: int  # image columns for one grid column
    top: int  # zero rows above the image
    left: int  # zero columns before it
    height: int  # rows of the packed band of one image
    width: int  # its columns
    pitch: int  # elements from one pixel to the next: the channels, or a few more


class Tables(NamedTuple):
    """The phases of a convolution, one row each: a grid of positions and the taps they sum over. int64, offsets in bytes."""

    grid: np.ndarray  # (phases, 2): rows and columns of the whole image's grid
    rows_at: np.ndarray  # (phases, positions of an item): where a position's row of the im2col matrix starts
    out_at: np.ndarray  # (phases, positions of an item): where its output pixel stands, from the item's first pixel
    runs_at: np.ndarray  # (phases, most runs): where each run of neighbouring taps starts
    runs: np.ndarray  # (phases, 2): runs, and elements in a run


class ConvPlan(NamedTuple):
    packing: Packing
    tables: Tables
    taps: tuple  # a phase's (taps, 2) array of (kh, kw), in the order in which its weights are packed
    out_row: int  # output pixels from one grid row to the next
    out_pixels: int  # output pixels of one image


class WeightPlan(NamedTuple):
    packing: Packing
    rows_at: np.ndarray  # (KH·KW·I,) int64, bytes: where row (kh, kw, i) of the first group starts in the packed image
    runs_at: np.ndarray  # (grid rows of an item,) int64, bytes: where each grid row starts
    chunks: int  # parts that the sum over items is cut into, whatever the number of threads
    splits: int  # parts that the rows are cut into, where a part of the sum would be large


def _packing(g, source, pitch, spread, grid, step, origin, reach, itemsize, most=None):
    """Pack ``grid`` positions whose taps reach from ``origin`` (≤ 0: above and left of the image) over ``reach`` pixels.

    spread: pixels are to stand ``pitch`` elements apart, so that packing is needed. most: positions in an item, at most.
    """
    needed = [(n - 1) * s + r for n, s, r in zip(grid, step, reach)]
    direct = not spread and origin == (0, 0) and all(n <= have for n, have in zip(needed, source))
    width = source[1] if direct else needed[1]
    row_bytes = width * pitch * itemsize
    band = grid[0]
    if needed[0] * row_bytes > PACKED_BYTES:
        band = max(1, min(band, (PACKED_BYTES // row_bytes - reach[0]) // step[0] + 1))
    if most is not None:
        band = max(1, min(band, most // grid[1]))
    if band < grid[0]:
        band = -(-grid[0] // -(-grid[0] // band))  # bands of nearly the same height
    bands = -(-grid[0] // band)
    images = 1
    if bands == 1:
        few = (most or FEW_POSITIONS) // (grid[0] * grid[1])
        fits = g.images if direct else PACKED_BYTES // (needed[0] * row_bytes)
        images = max(1, min(few, fits, -(-g.images // 8)))
    height = source[0] if direct else (band - 1) * step[0] + reach[0]
    items = -(-g.images // images) * bands
    return Packing(int(direct), images, band, bands, items, *step, -origin[0], -origin[1], height, width, pitch)


def _positions(packing, columns, row_step, column_step, image_step):
    """Σ image·image_step + row·row_step + column·column_step over the positions of one item, in order."""
    image, row = np.arange(packing.images), np.arange(packing.band)
    column = np.arange(columns) * column_step
    return (image[:, None, None] * image_step + row[:, None] * row_step + column).astype(np.int64).ravel()


def _runs(offsets, taps, channels):
    """Taps in the order of their offsets, neighbours joined into runs where all runs come out equally long."""
    order = np.argsort(offsets, kind="stable")
    offsets, taps = offsets[order], taps[order]
    joints = np.flatnonzero(np.diff(offsets) != channels) + 1
    lengths = np.diff([0, *joints, len(offsets)])
    if len(set(lengths)) == 1:
        return offsets[[0, *joints]], int(lengths[0]) * channels, taps
    return offsets, channels, taps


class _Phase(NamedTuple):
    grid: tuple
    rows_at: np.ndarray
    out_at: np.ndarray
    runs_at: np.ndarray
    run: int
    taps: np.ndarray


def _phase(g, packing, grid, column_step, channels, out_at, taps, tap_rows, tap_columns):
    """Tap t of ``taps`` reads the packed image at row tap_rows[t] and column tap_columns[t] from the position."""
    row = packing.step * packing.width * channels
    rows_at = _positions(packing, grid[1], row, column_step * channels, packing.height * packing.width * channels)
    taps = np.array(taps, np.int64).reshape(-1, 2)
    if not len(taps):  # no tap reaches this phase (a 1×1 kernel with stride 2): its gradient is zero
        return _Phase(grid, rows_at, out_at, np.zeros(0, np.int64), 1, taps)
    offsets = (np.array(tap_rows) * packing.width + np.array(tap_columns)) * channels
    if g.groups > 1:  # a group's channels are a stretch of each pixel's: its taps are no neighbours
        return _Phase(grid, rows_at, out_at, offsets, channels // g.groups, taps)
    return _Phase(grid, rows_at, out_at, *_runs(offsets, taps, channels))


def _tables(phases, out_channels, itemsize):
    def stack(rows, scale):
        table = np.zeros((len(rows), max([1, *map(len, rows)])), np.int64)
        for row, values in zip(table, rows):
            row[: len(values)] = values
        return table * scale

    return Tables(
        np.array([p.grid for p in phases], np.int64),
        stack([p.rows_at for p in phases], itemsize),
        stack([p.out_at for p in phases], out_channels * itemsize),
        stack([p.runs_at for p in phases], itemsize),
        np.array([(len(p.runs_at), p.run) for p in phases], np.int64),
    )


@lru_cache(maxsize=512)
def forward_plan(g, itemsize):
    """Tables for y = x ∗ w."""
    reach = tuple(d * (k - 1) + 1 for d, k in zip(g.dilation, g.kernel))
    origin = tuple(-p for p in g.padding)
    grid = g.out_size
    packing = _packing(g, g.size, g.channels, False, grid, g.stride, origin, reach, itemsize)
    out_at = _positions(packing, grid[1], grid[1], 1, grid[0] * grid[1])
    taps = [(kh, kw) for kh in range(g.kernel[0]) for kw in range(g.kernel[1])]
    tap_rows, tap_columns = [kh * g.dilation[0] for kh, _ in taps], [kw * g.dilation[1] for _, kw in taps]
    phase = _phase(g, packing, grid, g.stride[1], g.channels, out_at, taps, tap_rows, tap_columns)
    return ConvPlan(packing, _tables([phase], g.filters, itemsize), (phase.taps,), grid[1], grid[0] * grid[1])


@lru_cache(maxsize=512)
def input_grad_plan(g, itemsize):
    """Tables for dx = dy ∗ᵀ w, one phase for each remainder of the input position by the stride."""

    def reaching(axis, p):
        """[(k, shift)]: the taps that reach phase p, and which dy they read, counted from the grid position."""
        s, pad, d = g.stride[axis], g.padding[axis], g.dilation[axis]
        return [(k, (p + pad - k * d) // s) for k in range(g.kernel[axis]) if (p + pad - k * d) % s == 0]

    axis_phases = [range(min(s, n)) for s, n in zip(g.stride, g.size)]
    shifts = [{k: shift for p in axis_phases[axis] for k, shift in reaching(axis, p)} for axis in (0, 1)]
    low = tuple(min([0, *s.values()]) for s in shifts)
    reach = tuple(max([0, *s.values()]) - lowest + 1 for s, lowest in zip(shifts, low))
    grid = tuple(-(-n // s) for n, s in zip(g.size, g.stride))
    packing = _packing(g, g.out_size, g.filters, False, grid, (1, 1), low, reach, itemsize)
    height, width = g.size
    phases = []
    for ph in axis_phases[0]:
        for pw in axis_phases[1]:
            phase_grid = (-(-(height - ph) // g.stride[0]), -(-(width - pw) // g.stride[1]))
            whole = packing._replace(band=phase_grid[0]) if packing.bands == 1 else packing
            out_at = (
                _positions(whole, phase_grid[1], g.stride[0] * width, g.stride[1], height * width) + ph * width + pw
            )
            taps = [(kh, kw) for kh, _ in reaching(0, ph) for kw, _ in reaching(1, pw)]
            tap_rows = [shifts[0][kh] - low[0] for kh, _ in taps]
            tap_columns = [shifts[1][kw] - low[1] for _, kw in taps]
            phases.append(_phase(g, whole, phase_grid, 1, g.filters, out_at, taps, tap_rows, tap_columns))
    tables = _tables(phases, g.channels, itemsize)
    return ConvPlan(packing, tables, tuple(p.taps for p in phases), g.stride[0] * width, height * width)


@lru_cache(maxsize=512)
def weight_grad_plan(g, itemsize):
    """Tables for dw[(kh, kw, i), :] = Σ over output pixels of x[pixel·stride + (kh, kw)·dilation, i] · dy[pixel, :]."""
    reach = tuple(d * (k - 1) + 1 for d, k in zip(g.dilation, g.kernel))
    origin = tuple(-p for p in g.padding)
    # Pixels a multiple of 256 bytes apart share a few sets of the L1 cache, and the tile walks over them one by one.
    spread = g.channels * itemsize % 256 == 0
    pitch = g.channels + (64 // itemsize if spread else 0)
    packing = _packing(g, g.size, pitch, spread, g.out_size, g.stride, origin, reach, itemsize, WEIGHT_POSITIONS)
    kh, kw, i = np.ogrid[: g.kernel[0], : g.kernel[1], : g.channels // g.groups]
    rows_at = ((kh * g.dilation[0] * packing.width + kw * g.dilation[1]) * pitch + i).astype(np.int64).ravel()
    runs_at = _positions(packing, 1, packing.step * packing.width * pitch, 0, packing.height * packing.width * pitch)
    weight_bytes = rows_at.size * g.filters * itemsize
    chunks = max(1, min(16, packing.items, (32 << 20) // weight_bytes))
    splits = max(1, min(16 // chunks, rows_at.size // target.WIDE_ROWS))
    return WeightPlan(packing, rows_at * itemsize, runs_at * itemsize, chunks, splits)
