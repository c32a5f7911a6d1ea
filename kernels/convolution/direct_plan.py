"""Plans of direct convolutions: indirection tables that turn them into products of a few rows by a few vectors.

A convolution is a matrix product whose left matrix, the im2col matrix, is never stored. Its rows are positions of a grid
(q, r) and its columns are taps × channels; element (position; tap, channel) is read at

    start of the packed image  +  row_offsets[position]  +  run_offsets[tap]  +  channel

which is the indirect convolution of Dukhan (2019), with offsets in place of pointers.

All three uses have this form, for any stride and dilation:

forward         one phase. Position = output pixel, tap (kh, kw) at (kh·dilation, kw·dilation).
input gradient  stride² phases. dx[s·q + p] = Σ dy[q + (p + padding − kh·dilation)/s] · w[kh] over the taps kh for which that
                is a whole number: each phase p is a stride-1 convolution of dy with its own taps, and no zero is multiplied.
weight gradient rows are (kh, kw, channel) and the sum runs over output pixels (see ``WeightPlan``).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..runtime import target
from .work_items import PACKED_BYTES, Layout

FEW_POSITIONS = 256  # small images are taken several at a time, so that tiles are full
WEIGHT_POSITIONS = 192  # a weight gradient's tile walks over a cache line of x and of dy for each position
DENSE_BYTES = 128  # from one pixel of dy to the next; beyond, packing pays (measured)


class ConvPlan(NamedTuple):
    """Forward pass or input gradient. Tables are int64; their rows are phases, their offsets bytes."""

    layout: Layout
    record: np.ndarray
    phases: np.ndarray  # (phases, 5): grid rows, grid columns, runs, elements in a run, where its panels begin
    indirection: (
        np.ndarray
    )  # (phases, …): row_offsets, where a position's row of the im2col matrix starts; out_offsets,
    # where its output pixel stands, from the item's first pixel; run_offsets, where each run of neighbouring taps starts
    taps: tuple  # a phase's (taps, 2) array of (kh, kw), in the order in which its weights are packed
    panels: int  # elements of all packed weights


class WeightPlan(NamedTuple):
    layout: Layout
    record: np.ndarray
    indirection: np.ndarray  # int64, bytes: row_offsets, where row (kh, kw, i) of the first group starts in the packed
    # image; run_offsets, where each grid row of an item starts
    panel: int  # elements of an item's dy, packed; 0 if dy is read where it stands


def _layout(g, source, channels, columns, pitch, packed, grid, step, origin, reach, itemsize, most=None):
    """Pack ``grid`` positions whose taps reach from ``origin`` (≤ 0: above and left of the image) over ``reach`` pixels.

    pitch: elements from one packed pixel to the next. packed: pack in any case. most: positions in an item, at most.
    """
    needed = [(n - 1) * s + r for n, s, r in zip(grid, step, reach)]
    direct = not packed and pitch == channels and origin == (0, 0) and all(n <= have for n, have in zip(needed, source))
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
    item = int(direct), images, band, bands, items
    packing = *step, -origin[0], -origin[1], height, width, pitch
    tile = target.tile_columns(columns, itemsize)
    return Layout(*item, *packing, g.groups, columns, tile, g.images, *source, channels)


def _positions(layout, columns, row_step, column_step, image_step):
    """Σ image·image_step + row·row_step + column·column_step over the positions of one item, in order."""
    image, row = np.arange(layout.images), np.arange(layout.band)
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
    row_offsets: np.ndarray
    out_offsets: np.ndarray
    run_offsets: np.ndarray
    run: int
    taps: np.ndarray


def _phase(g, layout, grid, column_step, channels, out_offsets, taps, tap_rows, tap_columns):
    """Tap t of ``taps`` reads the packed image at row tap_rows[t] and column tap_columns[t] from the position."""
    row = layout.step * layout.width * channels
    row_offsets = _positions(layout, grid[1], row, column_step * channels, layout.height * layout.width * channels)
    taps = np.array(taps, np.int64).reshape(-1, 2)
    if not len(taps):  # no tap reaches this phase (a 1×1 kernel with stride 2): its gradient is zero
        return _Phase(grid, row_offsets, out_offsets, np.zeros(0, np.int64), 1, taps)
    offsets = (np.array(tap_rows) * layout.width + np.array(tap_columns)) * channels
    if g.groups > 1:  # a group's channels are a stretch of each pixel's: its taps are no neighbours
        return _Phase(grid, row_offsets, out_offsets, offsets, channels // g.groups, taps)
    return _Phase(grid, row_offsets, out_offsets, *_runs(offsets, taps, channels))


def _plan(layout, phases, ins, out_channels, itemsize):
    """The ConvPlan of some phases, whose products sum over ``ins`` channels of each group."""
    rows = max(len(p.row_offsets) for p in phases)
    indirection = np.zeros((len(phases), 2 * rows + max([1, *(len(p.run_offsets) for p in phases)])), np.int64)
    for table, p in zip(indirection, phases):
        table[: len(p.row_offsets)] = p.row_offsets
        table[rows : rows + len(p.out_offsets)] = p.out_offsets * out_channels
        table[2 * rows : 2 * rows + len(p.run_offsets)] = p.run_offsets
    layout = layout._replace(rows=rows)
    tiles = layout.groups * -(-layout.columns // layout.tile) * layout.tile
    ends = np.cumsum([tiles * ins * len(p.taps) for p in phases])
    table = [(*p.grid, len(p.run_offsets), p.run, at) for p, at in zip(phases, [0, *ends[:-1]])]
    phases_table = np.array(table, np.int64)
    return ConvPlan(
        layout, layout.record(), phases_table, indirection * itemsize, tuple(p.taps for p in phases), int(ends[-1])
    )


@lru_cache(maxsize=512)
def forward_plan(g, itemsize, packed=False):
    """Tables for y = x ∗ w. packed: x is not read where it stands, even where no border is needed."""
    reach = tuple(d * (k - 1) + 1 for d, k in zip(g.dilation, g.kernel))
    origin = tuple(-p for p in g.padding)
    grid = g.out_size
    columns = g.filters // g.groups
    layout = _layout(g, g.size, g.channels, columns, g.channels, packed, grid, g.stride, origin, reach, itemsize)
    layout = layout._replace(out_row=grid[1], out_pixels=grid[0] * grid[1])
    out_offsets = _positions(layout, grid[1], grid[1], 1, grid[0] * grid[1])
    taps = [(kh, kw) for kh in range(g.kernel[0]) for kw in range(g.kernel[1])]
    tap_rows, tap_columns = [kh * g.dilation[0] for kh, _ in taps], [kw * g.dilation[1] for _, kw in taps]
    phase = _phase(g, layout, grid, g.stride[1], g.channels, out_offsets, taps, tap_rows, tap_columns)
    return _plan(layout, [phase], g.channels // g.groups, g.filters, itemsize)


@lru_cache(maxsize=512)
def input_grad_plan(g, itemsize, packed=False):
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
    height, width = g.size
    columns = g.channels // g.groups
    layout = _layout(g, g.out_size, g.filters, columns, g.filters, packed, grid, (1, 1), low, reach, itemsize)
    layout = layout._replace(out_row=g.stride[0] * width, out_pixels=height * width)
    phases = []
    for ph in axis_phases[0]:
        for pw in axis_phases[1]:
            phase_grid = (-(-(height - ph) // g.stride[0]), -(-(width - pw) // g.stride[1]))
            whole = layout._replace(band=phase_grid[0]) if layout.bands == 1 else layout
            out_offsets = (
                _positions(whole, phase_grid[1], layout.out_row, g.stride[1], height * width) + ph * width + pw
            )
            taps = [(kh, kw) for kh, _ in reaching(0, ph) for kw, _ in reaching(1, pw)]
            tap_rows = [shifts[0][kh] - low[0] for kh, _ in taps]
            tap_columns = [shifts[1][kw] - low[1] for _, kw in taps]
            phases.append(_phase(g, whole, phase_grid, 1, g.filters, out_offsets, taps, tap_rows, tap_columns))
    return _plan(layout, phases, g.filters // g.groups, g.channels, itemsize)


@lru_cache(maxsize=512)
def weight_grad_plan(g, itemsize, packed=False, packed_dy=False):
    """Tables for dw[(kh, kw, i), :] = Σ over output pixels of x[pixel·stride + (kh, kw)·dilation, i] · dy[pixel, :]."""
    reach = tuple(d * (k - 1) + 1 for d, k in zip(g.dilation, g.kernel))
    origin = tuple(-p for p in g.padding)
    # Pixels a multiple of 256 bytes apart share a few sets of the L1 cache, and the tile walks over them one by one.
    spread = g.channels * itemsize % 256 == 0
    pitch = g.channels + (64 // itemsize if spread else 0)
    columns = g.filters // g.groups
    layout = _layout(
        g, g.size, g.channels, columns, pitch, packed, g.out_size, g.stride, origin, reach, itemsize, WEIGHT_POSITIONS
    )
    kh, kw, i = np.ogrid[: g.kernel[0], : g.kernel[1], : g.channels // g.groups]
    row_offsets = ((kh * g.dilation[0] * layout.width + kw * g.dilation[1]) * pitch + i).astype(np.int64).ravel()
    run_offsets = _positions(layout, 1, layout.step * layout.width * pitch, 0, layout.height * layout.width * pitch)
    chunks = max(1, min(16, layout.items, (32 << 20) // (row_offsets.size * g.filters * itemsize)))
    splits = max(1, min(16 // chunks, row_offsets.size // target.WIDE_ROWS))
    # dy is read as it stands if its columns are whole tiles, and its pixels no such distance apart either.
    dense = columns % layout.tile == 0 and g.filters * itemsize <= DENSE_BYTES
    layout = layout._replace(chunks=chunks, splits=splits, dense=int(dense), rows=row_offsets.size)
    pixels = layout.images * layout.band * g.out_size[1]
    panel = pixels * (g.filters if dense else -(-columns // layout.tile) * layout.tile)
    panel = 0 if dense and not packed_dy else panel
    return WeightPlan(layout, layout.record(), np.concatenate([row_offsets, run_offsets]) * itemsize, panel)
